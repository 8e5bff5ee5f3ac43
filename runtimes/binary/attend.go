package main

import (
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	// From SIGTERM to SIGKILL when a call is cancelled.
	termGrace = 200 * time.Millisecond
	// For output that a process outside the program's group still holds open.
	outputGrace = 200 * time.Millisecond
)

// takeAll feeds a program and takes its output, until both are over; true: the call was cancelled.
func (e *execution) takeAll(end <-chan syscall.WaitStatus) (syscall.WaitStatus, bool) {
	stdin := takeFile(&e.pipes.stdin)
	stdout, stderr, meta := takeFile(&e.pipes.stdout), takeFile(&e.pipes.stderr), takeFile(&e.pipes.meta)
	var readers sync.WaitGroup
	readers.Add(3)
	if stdin != nil {
		go e.feed(stdin)
	}
	go func() { defer readers.Done(); e.readOutput(stdout, meta) }()
	go func() { defer readers.Done(); e.readErrors(stderr) }()
	go func() { defer readers.Done(); e.readMeta(meta) }()
	read := make(chan struct{})
	go func() { readers.Wait(); close(read) }()

	var status syscall.WaitStatus
	cancelled := false
	select {
	case status = <-end:
	case <-e.call.cancelled:
		cancelled = true
		status = e.kill(end)
	}
	select {
	case <-read:
	case <-e.call.cancelled:
		cancelled = true
		sweep(e.token)
	case <-e.outputOverdue(read, stdout, stderr, meta):
	}
	for _, file := range []*os.File{stdin, stdout, stderr, meta} {
		if file != nil {
			_ = file.Close()
		}
	}
	<-read
	return status, cancelled
}

// outputOverdue fires when the program has ended, nothing is being sent, and its output is still open.
func (e *execution) outputOverdue(read <-chan struct{}, pipes ...*os.File) <-chan struct{} {
	overdue := make(chan struct{})
	go func() {
		for {
			before := e.progress()
			select {
			case <-read:
				return
			case <-time.After(outputGrace):
			}
			// On a busy machine we may not have come to read what is there: that is not the program's silence.
			if after := e.progress(); after == before && !e.waiting() && !unread(pipes) {
				close(overdue)
				return
			}
		}
	}()
	return overdue
}

// unread is true while one of the pipes holds bytes that have not been read.
func unread(pipes []*os.File) bool {
	for _, pipe := range pipes {
		raw, err := pipe.SyscallConn()
		if err != nil {
			continue
		}
		var bytes int32
		_ = raw.Control(func(fd uintptr) {
			_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&bytes)))
		})
		if bytes > 0 {
			return true
		}
	}
	return false
}

// progress changes whenever body bytes are sent or held.
func (e *execution) progress() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.call.mu.Lock()
	defer e.call.mu.Unlock()
	return len(e.held) - e.call.sendCredit
}

// waiting is true while the caller has not taken what was sent.
func (e *execution) waiting() bool {
	e.call.mu.Lock()
	defer e.call.mu.Unlock()
	return e.call.sendCredit == 0
}

// kill ends the program and all that it has started.
func (e *execution) kill(end <-chan syscall.WaitStatus) syscall.WaitStatus {
	e.child.signal(syscall.SIGTERM)
	timer := time.NewTimer(termGrace)
	defer timer.Stop()
	var status syscall.WaitStatus
	select {
	case status = <-end:
	case <-timer.C:
		e.child.signal(syscall.SIGKILL)
		status = <-end
	}
	sweep(e.token)
	return status
}

// feed writes the request's body to the program.
func (e *execution) feed(stdin *os.File) {
	defer stdin.Close()
	for {
		part, more := e.call.next()
		if !more {
			return
		}
		if _, err := stdin.Write(part); err != nil {
			// It has closed its stdin, or ended: the rest is not wanted.
			e.call.used(len(part))
			e.call.discardBody()
			return
		}
		e.call.used(len(part))
	}
}

func (e *execution) readOutput(stdout, meta *os.File) {
	buffer := make([]byte, readBytes)
	for {
		n, err := stdout.Read(buffer)
		if n > 0 && !e.take(buffer[:n], meta) {
			return
		}
		if err != nil {
			return
		}
	}
}

// take holds output back, or sends it on; false: it is not wanted.
func (e *execution) take(data []byte, meta *os.File) bool {
	e.mu.Lock()
	if !e.started && len(e.held)+len(data) <= heldBytesMax {
		e.held = append(e.held, data...)
		e.mu.Unlock()
		return true
	}
	if !e.started {
		// What was written to the descriptor for the head before this output is in the pipe, at least.
		if raw, err := meta.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { e.drainMeta(fd) })
		}
		e.begin()
	}
	e.mu.Unlock()
	return e.call.write(data, false)
}

// begin sends the head and what was held back. The lock must be held.
func (e *execution) begin() {
	e.started = true
	status, head, err := e.meta.head()
	if err != nil {
		e.call.fail(kindBadAnswer, err.Error())
		// The agent's cancel no longer finds this call: without one of ours the program would be left to its full pipe.
		e.call.cancel()
		return
	}
	held := e.held
	e.held = nil
	e.call.respond(status, head, held, false)
}

func (e *execution) readErrors(stderr *os.File) {
	buffer := make([]byte, readBytes)
	for {
		n, err := stderr.Read(buffer)
		e.errors.add(e.call.logID(), buffer[:n], err != nil)
		if err != nil {
			return
		}
	}
}

// readMeta reads what the program says about its answer. Reading and noting it are one step under the lock, so that whoever
// holds the lock and has drained the pipe knows all that was said.
func (e *execution) readMeta(file *os.File) {
	raw, err := file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		ended := e.drainMeta(fd)
		if e.meta.over && !e.started {
			e.begin()
		}
		return ended
	})
}

// drainMeta notes what the pipe holds; true: there will be no more. The lock must be held.
func (e *execution) drainMeta(fd uintptr) bool {
	var buffer [4096]byte
	for {
		n, err := syscall.Read(int(fd), buffer[:])
		if n > 0 {
			e.meta.write(buffer[:n])
		} else if err != syscall.EINTR {
			return err != syscall.EAGAIN
		}
	}
}
