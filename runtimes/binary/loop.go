package main

import (
	"io"
	"syscall"
	"time"
)

// Most programs have ended by then. Until then nothing is read of them, and the loop alone waits for them.
const quickTime = 4 * time.Millisecond

// A program that runs longer no longer counts as being started.
const slotHeld = 20 * time.Millisecond

// This kernel does not tell the loop of ends: it asks.
const askAgain = time.Millisecond

// loop is what one goroutine does for a connection: it reads frames, starts programs for calls, a bounded number at once, and
// answers for those that end soon. In the one goroutine, because handing a call from one to the other costs as much as
// starting a small program. Programs that run longer, or that are still being sent their input, get goroutines (`attend`).
type loop struct {
	conn    *connection
	waiting []*call
	// programs that count as being started
	starting []*execution
	polled   []pollFd
}

// run returns when the connection has ended or is to be closed.
func (l *loop) run() error {
	defer l.abandon()
	in := newFrameBuffer()
	for {
		l.startWaiting()
		if _, err := poll(l.descriptors(), l.waitTime()); err != nil {
			return err
		}
		if l.polled[0].revents != 0 {
			if err := l.receive(in); err != nil {
				return err
			}
		} else if l.conn.greetingOverdue() {
			return broken("TIMEOUT", "no WELCOME in %v", greetingTime)
		}
		l.look()
	}
}

// receive handles the frames that have come.
func (l *loop) receive(in *frameBuffer) error {
	n, err := syscall.Read(l.conn.socket, in.room())
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return nil
	}
	if err != nil || n == 0 {
		return io.EOF
	}
	in.add(n)
	for {
		f, ok, err := in.next(payloadBytesMax)
		if err != nil || !ok {
			return err
		}
		if err := l.conn.onFrame(&f); err != nil {
			return err
		}
	}
}

func (l *loop) startWaiting() {
	for len(l.waiting) > 0 && len(l.starting) < l.conn.runner.startsMax {
		c := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		if c.stopped() {
			c.fail(kindCancelled, "cancelled")
		} else if e := l.conn.runner.start(c); e != nil {
			l.starting = append(l.starting, e)
		}
	}
}

// descriptors are the socket, and one for the end of each program that is being started (-1: poll ignores it).
func (l *loop) descriptors() []pollFd {
	l.polled = append(l.polled[:0], pollFd{fd: int32(l.conn.socket), events: pollIn})
	for _, e := range l.starting {
		l.polled = append(l.polled, pollFd{fd: int32(e.child.pidfd), events: pollIn})
	}
	return l.polled
}

// waitTime is until something is due; negative: nothing is.
func (l *loop) waitTime() time.Duration {
	wait := time.Duration(-1)
	if !l.conn.welcomed {
		wait = greetingTime
	}
	for _, e := range l.starting {
		due := slotHeld
		if !e.attended {
			due = quickTime
		}
		left := due - time.Since(e.startedAt)
		if left < 0 {
			left = 0
		}
		if e.child.pidfd == none && left > askAgain {
			left = askAgain
		}
		if wait < 0 || left < wait {
			wait = left
		}
	}
	return wait
}

// look goes through the programs that are being started: those that have ended, and those for which the time is over.
func (l *loop) look() {
	kept := l.starting[:0]
	for at, e := range l.starting {
		ended := l.polled[1+at].revents != 0 || e.over.Load()
		running := time.Since(e.startedAt)
		switch {
		case ended && !e.attended:
			e.answerQuickly()
		case ended && !e.over.Load():
			e.child.reportEnd()
		case !ended && !e.attended && running >= quickTime:
			e.attend(e.child.watch())
		}
		if ended || running >= slotHeld {
			closeFd(&e.child.pidfd)
		} else {
			kept = append(kept, e)
		}
	}
	for at := len(kept); at < len(l.starting); at++ {
		l.starting[at] = nil
	}
	l.starting = kept
}

// abandon cancels the connection's calls.
func (l *loop) abandon() {
	for _, c := range l.conn.all() {
		c.cancel()
	}
	for _, e := range l.starting {
		if !e.attended {
			e.attend(e.child.watch())
		}
		closeFd(&e.child.pidfd)
	}
	for _, c := range l.waiting {
		c.fail(kindCancelled, "cancelled")
	}
}
