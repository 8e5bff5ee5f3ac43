package main

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// Held back until the program ends, so that one that fails after a few lines answers with an error.
	heldBytesMax = 65536
	// A pipe takes so much at once, usually; and so much at the very least.
	pipeBytes     = 65536
	pipeBytesSure = 4096
	readBytes     = 65536
	metaFd        = 3
)

// execution is one call being answered by one program.
type execution struct {
	call  *call
	child *child
	pipes *pipes
	// its entry in the environments of all that belongs to it
	token     string
	startedAt time.Time
	// goroutines of its own attend to it; over: they are done
	attended bool
	over     atomic.Bool

	mu      sync.Mutex
	started bool
	held    []byte
	meta    meta

	errors stderrLog
}

var heldBuffers = sync.Pool{New: func() any { return new([heldBytesMax]byte) }}

// start starts the program for a call. The execution is nil when that cannot be done: then the call has been answered.
func (r *runner) start(c *call) *execution {
	e := &execution{call: c, errors: stderrLog{logs: r.logs}, token: "SHOAL_CALL=" + r.nextToken(), startedAt: time.Now()}
	if err := e.start(r.program, r.processes); err != nil {
		c.fail(startKind(err), "cannot start the program: "+err.Error())
		return nil
	}
	// Input that is still coming has to be fed, and is likely to be answered with as much.
	if e.pipes.stdin != none || e.child.pidfd == none {
		e.attend(e.child.watch())
	}
	return e
}

func (e *execution) start(program *program, processes *processes) error {
	p, err := openPipes(e.call)
	if err != nil {
		return err
	}
	e.pipes = p
	e.child, err = processes.start(program, append(callEnv(e.call.request), e.token), p.children[:])
	p.closeChildren()
	if err != nil {
		p.closeOwn()
	}
	return err
}

// answerQuickly answers for a program that has ended, with what it has left in its pipes.
func (e *execution) answerQuickly() {
	status, _ := e.child.reap()
	buffer, _ := heldBuffers.Get().(*[heldBytesMax]byte)
	defer heldBuffers.Put(buffer)
	stdout, stderr, meta, whole := e.pipes.left(buffer[:0])
	if !whole {
		end := make(chan syscall.WaitStatus, 1)
		end <- status
		e.attend(end)
		return
	}
	e.pipes.closeOwn()
	e.errors.add(e.call.logID(), stderr, true)
	e.meta.write(meta)
	e.held = stdout
	if len(stdout) > heldBytesMax {
		// A program may enlarge its pipes. So much may have to wait for the caller, and this goroutine reads what it grants.
		go e.finish(status, e.call.stopped())
		return
	}
	e.finish(status, e.call.stopped())
}

// attend gives the program goroutines that feed it, take its output, and answer for it.
func (e *execution) attend(end <-chan syscall.WaitStatus) {
	e.attended = true
	go func() {
		e.finish(e.takeAll(end))
		e.over.Store(true)
	}()
}

// finish answers, or ends the answer, when the program has ended.
func (e *execution) finish(status syscall.WaitStatus, cancelled bool) {
	c := e.call
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case cancelled:
		c.fail(kindCancelled, "cancelled")
	case e.child.spawning.err() != nil:
		err := e.child.spawning.err()
		c.fail(startKind(err), "cannot start the program: "+err.Error())
	case status.ExitStatus() != 0:
		c.fail(kindFunction, e.errors.endText(status))
	case e.started:
		c.write(nil, true)
	default:
		code, head, err := e.meta.head()
		if err != nil {
			c.fail(kindBadAnswer, err.Error())
			return
		}
		c.respond(code, head, e.held, true)
	}
	// Nothing, unless a cancel came too late to be seen above and kept the answer from ending.
	c.fail(kindCancelled, "cancelled")
}

func startKind(err error) byte {
	if err == syscall.EAGAIN || err == syscall.ENOMEM || err == syscall.EMFILE {
		return kindLimit
	}
	return kindFunction
}
