package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// Bodies, both ways: they are held in memory whole.
	stayBodyBytesMax = 16 * 1048576
	// A line in front of a body.
	stayLineBytesMax = 131072
	// What a program says when it can take calls.
	readyLine = "ready\n"
	// Answers that wait for their callers without their places, together. Beyond, each keeps its place until it is taken.
	undeliveredBytesMax = 2 * stayBodyBytesMax
	// For an answer to a call that was cancelled.
	cancelledGrace = 300 * time.Millisecond
)

// errCancelled: the call was cancelled before the program was given it.
var errCancelled = errors.New("cancelled")

// resident is one life of a program that stays alive.
type resident struct {
	stay   *stay
	token  string
	child  *child
	stdin  *os.File
	stdout *os.File
	stderr *os.File
	errors stderrLog
	// messages for stdin; each call sends one, so it has room for all unless the program answers what it has not been sent
	out chan residentMessage
	// closed when the program has ended; `status` is its
	gone    chan struct{}
	status  syscall.WaitStatus
	endOnce sync.Once
	// calls that use a place; belongs to `stay`
	taken int
	// where there is one call at a time: that one
	current atomic.Pointer[call]

	mu    sync.Mutex
	calls map[uint64]*residentCall
	next  uint64
	// places that cancelled calls have left without an answer
	abandoned int
	// it has closed its stdin
	deaf bool
	over bool
}

// residentMessage is a call on its way to stdin.
type residentMessage struct {
	id   uint64
	text []byte
}

type residentCall struct {
	result    chan residentResult
	abandoned bool
}

// residentResult is an answer, or what went wrong in its place.
type residentResult struct {
	line answerLine
	body []byte
	kind byte
	err  error
}

func startResident(s *stay) (*resident, error) {
	r := &resident{
		stay:   s,
		token:  "SHOAL_CALL=" + s.runner.nextToken(),
		errors: stderrLog{logs: s.runner.logs},
		out:    make(chan residentMessage, s.settings.CallsAtOnce),
		gone:   make(chan struct{}),
		calls:  make(map[uint64]*residentCall),
	}
	own, children := [3]int{none, none, none}, [3]int{none, none, none}
	for at := range own {
		var fds [2]int
		if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
			for at := range own {
				closeFd(&own[at])
				closeFd(&children[at])
			}
			return nil, fmt.Errorf("cannot start the program: %w", err)
		}
		own[at], children[at] = fds[0], fds[1]
		if at == 0 {
			own[at], children[at] = fds[1], fds[0]
		}
	}
	r.stdin, r.stdout, r.stderr = takeFile(&own[0]), takeFile(&own[1]), takeFile(&own[2])
	child, err := s.runner.processes.start(s.runner.program, []string{r.token}, children[:])
	for _, fd := range children {
		_ = syscall.Close(fd)
	}
	if err != nil {
		r.closeFiles()
		return nil, fmt.Errorf("cannot start the program: %w", err)
	}
	closeFd(&child.pidfd)
	r.child = child
	return r, nil
}

// serve returns when the program has ended, and why.
func (r *resident) serve() error {
	go r.watch()
	go r.write()
	logged := make(chan struct{})
	go func() { defer close(logged); r.readErrors() }()
	wrong := r.read()
	r.stay.leave(r)
	if wrong == nil {
		// It has closed its stdout, which is how most end.
		select {
		case <-r.gone:
		case <-time.After(termGrace):
		}
	}
	r.end()
	<-r.gone
	<-logged
	r.closeFiles()
	kind, err := byte(kindExited), r.child.spawning.err()
	switch {
	case wrong != nil:
		kind, err = kindBadAnswer, wrong
	case err != nil:
		err = fmt.Errorf("cannot start the program: %w", err)
	default:
		err = errors.New("the program ended: " + r.errors.endText(r.status))
	}
	r.failAll(kind, err)
	return err
}

// watch waits for the program's end, and ends what it leaves behind.
func (r *resident) watch() {
	r.status = <-r.child.watch()
	close(r.gone)
	sweep(r.token)
	// For what a process holds open that cannot be found.
	time.AfterFunc(outputGrace, r.closeFiles)
}

// read takes the answers until stdout ends; the error says what the program did wrong.
func (r *resident) read() error {
	in := bufio.NewReaderSize(r.stdout, stayLineBytesMax)
	for ready := false; ; {
		line, err := in.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			return fmt.Errorf("the program wrote a line above %d bytes", stayLineBytesMax)
		}
		if err != nil {
			return nil
		}
		if !ready {
			if string(line) != readyLine {
				return fmt.Errorf("the program wrote %q first; it must be `ready`", cut(string(line), 200))
			}
			ready = true
			r.stay.join(r)
			continue
		}
		answer, err := parseAnswerLine(string(line))
		if err != nil {
			return err
		}
		if !r.expects(answer.id) {
			return fmt.Errorf("the program answered %d, which is no call of its", answer.id)
		}
		body := make([]byte, answer.bytes)
		if _, err := io.ReadFull(in, body); err != nil {
			return nil
		}
		r.settle(answer, body)
	}
}

func (r *resident) expects(id uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[id] != nil
}

// settle gives an answer to its call, or the place of a call that was abandoned back.
func (r *resident) settle(line answerLine, body []byte) {
	r.mu.Lock()
	pending := r.calls[line.id]
	if pending == nil {
		// Cancelled since its answer began, and never sent: a program may guess.
		r.mu.Unlock()
		return
	}
	delete(r.calls, line.id)
	if pending.abandoned {
		r.abandoned--
	}
	idle := r.deaf && r.idle()
	r.mu.Unlock()
	if idle {
		go r.end()
	}
	if pending.abandoned {
		r.stay.release(r)
	} else {
		pending.result <- residentResult{line: line, body: body}
	}
}

// answer answers a call by this program, in which it has a place.
func (r *resident) answer(c *call, body []byte) {
	// Its id may be another call's from then on.
	defer r.current.CompareAndSwap(c, nil)
	id, result, err := r.send(c, body)
	if err != nil {
		kind := byte(kindExited)
		if err == errCancelled {
			kind = kindCancelled
		}
		c.fail(kind, err.Error())
		r.stay.release(r)
		return
	}
	select {
	case one := <-result:
		r.deliver(c, one)
		return
	case <-c.cancelled:
		timer := time.NewTimer(cancelledGrace)
		defer timer.Stop()
		select {
		case <-result:
			c.fail(kindCancelled, "cancelled")
		case <-timer.C:
			kept := r.abandon(id)
			c.fail(kindCancelled, "cancelled")
			if kept {
				return
			}
		}
	}
	r.stay.release(r)
}

// send gives the call to the program.
func (r *resident) send(c *call, body []byte) (id uint64, result <-chan residentResult, err error) {
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		return 0, nil, errors.New("the program ended before it was given the call")
	}
	r.next++
	id = r.next
	pending := &residentCall{result: make(chan residentResult, 1)}
	r.calls[id] = pending
	r.mu.Unlock()
	if r.stay.settings.CallsAtOnce == 1 {
		r.current.Store(c)
	}
	select {
	case r.out <- residentMessage{id, append(requestLine(id, c.request, len(body)), body...)}:
		return id, pending.result, nil
	case <-r.gone:
		err = errors.New("the program ended before it was given the call")
	case <-c.cancelled:
		err = errCancelled
	}
	r.mu.Lock()
	delete(r.calls, id)
	r.mu.Unlock()
	return 0, nil, err
}

// deliver gives the place back before the caller has taken the answer, which may take it long: others need not wait for that.
func (r *resident) deliver(c *call, one residentResult) {
	if !r.stay.hold(len(one.body)) {
		deliver(c, one)
		r.stay.release(r)
		return
	}
	r.stay.release(r)
	deliver(c, one)
	r.stay.hold(-len(one.body))
}

func deliver(c *call, result residentResult) {
	if result.err != nil {
		c.fail(result.kind, result.err.Error())
		return
	}
	status, head, failure, err := parseAbout(result.line.about)
	switch {
	case err != nil:
		c.fail(kindBadAnswer, err.Error())
	case failure != "":
		c.fail(kindFunction, failure)
	default:
		c.respond(status, head, result.body, true)
		// Nothing, unless it was cancelled on the way.
		c.fail(kindCancelled, "cancelled")
	}
}

// abandon: nobody waits for the answer any more, and its place stays taken until it comes; a program that has only such calls
// is ended. False: the answer has just come.
func (r *resident) abandon(id uint64) bool {
	r.mu.Lock()
	pending := r.calls[id]
	if pending == nil {
		r.mu.Unlock()
		return false
	}
	pending.abandoned = true
	r.abandoned++
	stuck := r.abandoned == r.stay.settings.CallsAtOnce || r.deaf && r.idle()
	r.mu.Unlock()
	if stuck {
		r.stay.leave(r)
		go r.end()
	}
	return true
}

// end asks the program to end, then makes it.
func (r *resident) end() {
	r.endOnce.Do(func() {
		r.child.signal(syscall.SIGTERM)
		time.AfterFunc(termGrace, func() { r.child.signal(syscall.SIGKILL) })
	})
}

func (r *resident) failAll(kind byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	for id, each := range r.calls {
		delete(r.calls, id)
		if !each.abandoned {
			each.result <- residentResult{kind: kind, err: err}
		}
	}
}

func (r *resident) readErrors() {
	buffer := make([]byte, readBytes)
	for {
		n, err := r.stderr.Read(buffer)
		var id uint32
		if c := r.current.Load(); c != nil {
			id = c.logID()
		}
		r.errors.add(id, buffer[:n], err != nil)
		if err != nil {
			return
		}
	}
}

func (r *resident) closeFiles() {
	for _, file := range []*os.File{r.stdin, r.stdout, r.stderr} {
		_ = file.Close()
	}
}
