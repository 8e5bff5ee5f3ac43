package main

import "errors"

// refuse answers a call for a program that has closed its stdin: it gets no more of them, and is ended when it has answered those it has.
func (r *resident) refuse(id uint64) {
	r.stay.leave(r)
	r.mu.Lock()
	r.deaf = true
	pending := r.calls[id]
	delete(r.calls, id)
	if pending != nil && pending.abandoned {
		r.abandoned--
	}
	idle := r.idle()
	r.mu.Unlock()
	switch {
	case pending == nil:
	case pending.abandoned:
		r.stay.release(r)
	default:
		pending.result <- residentResult{kind: kindExited, err: errors.New("the program has closed its input and takes no more calls")}
	}
	if idle {
		r.end()
	}
}

// idle: nobody waits for any of its answers. The lock must be held.
func (r *resident) idle() bool {
	return r.abandoned == len(r.calls)
}

func (r *resident) write() {
	for {
		select {
		case message := <-r.out:
			if _, err := r.stdin.Write(message.text); err != nil {
				r.refuse(message.id)
			}
		case <-r.gone:
			return
		}
	}
}
