package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	// Held back until the program ends, so that one that fails after a few lines answers with an error.
	heldBytesMax = 65536
	// End of stderr that an error carries.
	errorTailBytes = 4096
	// A pipe takes so much at once, usually.
	pipeBytes = 65536
	readBytes = 65536
	// From SIGTERM to SIGKILL when a call is cancelled.
	termGrace = 200 * time.Millisecond
	// For output that a process outside the program's group still holds open.
	outputGrace = 200 * time.Millisecond
	// A program that runs longer no longer counts as being started.
	slotHeld = 20 * time.Millisecond
	metaFd   = 3
)

// execution is one call being answered by one program.
type execution struct {
	call *call
	pid  int

	mu      sync.Mutex
	started bool
	held    []byte
	meta    meta

	tail bytes.Buffer
}

type pipes struct {
	stdin, stdout, stderr, meta *os.File
	children                    []int
}

// execute answers a call by running the program once.
func (r *runner) execute(c *call) {
	if !r.acquireSlot(c) {
		c.fail(kindCancelled, "cancelled")
		return
	}
	release := onceFunc(func() { <-r.slots })
	defer release()
	e := &execution{call: c}
	p, err := openPipes(c)
	if err != nil {
		c.fail(kindLimit, "cannot start the program: "+err.Error())
		return
	}
	token := "SHOAL_CALL=" + r.nextToken()
	attr := &syscall.ProcAttr{
		Dir:   r.program.dir,
		Env:   append(callEnv(r.program.env, c.request), token),
		Files: []uintptr{uintptr(p.children[0]), uintptr(p.children[1]), uintptr(p.children[2]), uintptr(p.children[3])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	pid, end, err := r.processes.start(r.program.argv, attr)
	p.closeChildren()
	if err != nil {
		p.closeOwn()
		c.fail(startKind(err), "cannot start the program: "+err.Error())
		return
	}
	e.pid = pid
	time.AfterFunc(slotHeld, release)
	status, cancelled := e.run(p, end, token, r.logs)
	e.finish(status, cancelled)
}

// run feeds the program and takes its output until both are over.
func (e *execution) run(p *pipes, end <-chan syscall.WaitStatus, token string, logs *logs) (syscall.WaitStatus, bool) {
	var readers sync.WaitGroup
	readers.Add(3)
	if p.stdin != nil {
		go e.feed(p.stdin)
	}
	go func() { defer readers.Done(); e.readOutput(p.stdout, p.meta) }()
	go func() { defer readers.Done(); e.readErrors(p.stderr, logs) }()
	go func() { defer readers.Done(); e.readMeta(p.meta) }()
	read := make(chan struct{})
	go func() { readers.Wait(); close(read) }()

	var status syscall.WaitStatus
	cancelled := false
	select {
	case status = <-end:
	case <-e.call.cancelled:
		cancelled = true
		status = e.kill(end, token)
	}
	select {
	case <-read:
	case <-e.call.cancelled:
		cancelled = true
		sweep(token)
	case <-e.outputOverdue(read, p):
	}
	p.closeOwn()
	<-read
	return status, cancelled
}

// outputOverdue fires when the program has ended, nothing is being sent, and its output is still open.
func (e *execution) outputOverdue(read <-chan struct{}, p *pipes) <-chan struct{} {
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
			if after := e.progress(); after == before && !e.waiting() && !unread(p.stdout) && !unread(p.stderr) && !unread(p.meta) {
				close(overdue)
				return
			}
		}
	}()
	return overdue
}

// unread is true while a pipe holds bytes that have not been read.
func unread(pipe *os.File) bool {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return false
	}
	var bytes int32
	_ = raw.Control(func(fd uintptr) {
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&bytes)))
	})
	return bytes > 0
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
func (e *execution) kill(end <-chan syscall.WaitStatus, token string) syscall.WaitStatus {
	_ = syscall.Kill(-e.pid, syscall.SIGTERM)
	timer := time.NewTimer(termGrace)
	defer timer.Stop()
	var status syscall.WaitStatus
	select {
	case status = <-end:
	case <-timer.C:
		_ = syscall.Kill(-e.pid, syscall.SIGKILL)
		status = <-end
	}
	sweep(token)
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
		return
	}
	held := e.held
	e.held = nil
	e.call.respond(status, head, held, false)
}

func (e *execution) readErrors(stderr *os.File, logs *logs) {
	buffer := make([]byte, readBytes)
	var line []byte
	for {
		n, err := stderr.Read(buffer)
		data := buffer[:n]
		e.keepTail(data)
		for len(data) > 0 {
			at := bytes.IndexByte(data, '\n')
			if at < 0 {
				line = append(line, data...)
				break
			}
			line = append(line, data[:at]...)
			logs.line(e.call.id, levelError, strings.TrimSuffix(string(line), "\r"))
			line, data = line[:0], data[at+1:]
		}
		if len(line) > logLineBytesMax || (err != nil && len(line) > 0) {
			logs.line(e.call.id, levelError, string(line))
			line = line[:0]
		}
		if err != nil {
			return
		}
	}
}

func (e *execution) keepTail(data []byte) {
	e.tail.Write(data)
	if e.tail.Len() > 2*errorTailBytes {
		e.tail.Next(e.tail.Len() - errorTailBytes)
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

// finish answers, or ends the answer, when the program has ended.
func (e *execution) finish(status syscall.WaitStatus, cancelled bool) {
	c := e.call
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case cancelled:
		c.fail(kindCancelled, "cancelled")
	case status.ExitStatus() != 0:
		tail := e.tail.Bytes()
		if len(tail) > errorTailBytes {
			tail = tail[len(tail)-errorTailBytes:]
		}
		text := endText(status)
		if len(tail) > 0 {
			// The last line in front: callers see the first line of an error, and a program says last what was wrong.
			text += ": " + lastLine(tail) + "\n" + string(tail)
		}
		c.fail(kindFunction, strings.TrimRight(text, "\n"))
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
}

func lastLine(text []byte) string {
	trimmed := bytes.TrimRight(text, "\r\n")
	return string(trimmed[bytes.LastIndexByte(trimmed, '\n')+1:])
}

func endText(status syscall.WaitStatus) string {
	if status.Signaled() {
		return fmt.Sprintf("the program was ended by signal %d (%s)", int(status.Signal()), status.Signal())
	}
	return "exit status " + strconv.Itoa(status.ExitStatus())
}

func startKind(err error) byte {
	if err == syscall.EAGAIN || err == syscall.ENOMEM || err == syscall.EMFILE {
		return kindLimit
	}
	return kindFunction
}

func onceFunc(action func()) func() {
	var once sync.Once
	return func() { once.Do(action) }
}
