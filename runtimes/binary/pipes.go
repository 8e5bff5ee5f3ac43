package main

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

const none = -1

// pipes are the four between the runner and one program; a descriptor that is not open is `none`.
type pipes struct {
	// The runner's ends. stdin is none when all of the body is in the pipe already.
	stdin, stdout, stderr, meta int
	// The program's ends, in the order of their numbers there.
	children [metaFd + 1]int
}

// openPipes makes the program's four descriptors: stdin, stdout, stderr and the one for the head.
func openPipes(c *call) (*pipes, error) {
	p := &pipes{none, none, none, none, [metaFd + 1]int{none, none, none, none}}
	if err := p.open(c); err != nil {
		p.closeChildren()
		p.closeOwn()
		return nil, err
	}
	return p, nil
}

func (p *pipes) open(c *call) error {
	if err := p.openStdin(c); err != nil {
		return err
	}
	for at, own := range []*int{&p.stdout, &p.stderr, &p.meta} {
		var fds [2]int
		if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
			return err
		}
		*own, p.children[1+at] = fds[0], fds[1]
	}
	return nil
}

// openStdin puts a small body into the pipe at once; what remains is left to feed.
func (p *pipes) openStdin(c *call) error {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return err
	}
	p.children[0], p.stdin = fds[0], fds[1]
	body, whole := c.whole(pipeBytes)
	if !whole {
		return nil
	}
	if len(body) > pipeBytesSure {
		// A system short of pipe memory gives smaller pipes.
		_ = syscall.SetNonblock(p.stdin, true)
	}
	for len(body) > 0 {
		n, err := syscall.Write(p.stdin, body)
		if n > 0 {
			body = body[n:]
		} else if err != syscall.EINTR {
			c.putBack(body)
			return nil
		}
	}
	closeFd(&p.stdin)
	return nil
}

// left is what waits in the three pipes; false: somebody could still write to them.
//
// stdout is appended to `held`, which has room for what a pipe holds.
func (p *pipes) left(held []byte) (stdout, stderr, meta []byte, whole bool) {
	polled := [...]pollFd{{fd: int32(p.stdout), events: pollIn}, {fd: int32(p.stderr), events: pollIn}, {fd: int32(p.meta), events: pollIn}}
	if n, err := poll(polled[:], 0); n != len(polled) || err != nil {
		return nil, nil, nil, false
	}
	// Of all three before the first is emptied: what has been read here is lost to who reads on.
	for _, each := range polled {
		if each.revents&pollHup == 0 {
			return nil, nil, nil, false
		}
	}
	out := [...][]byte{held, nil, nil}
	for at, each := range polled {
		if each.revents&pollIn != 0 {
			out[at] = readAll(int(each.fd), out[at])
		}
	}
	return out[0], out[1], out[2], true
}

// readAll appends what a pipe holds that nobody can write to any more.
func readAll(fd int, to []byte) []byte {
	for {
		if len(to) == cap(to) {
			to = append(to, make([]byte, pipeBytesSure)...)[:len(to)]
		}
		n, err := syscall.Read(fd, to[len(to):cap(to)])
		if n > 0 {
			to = to[:len(to)+n]
		}
		// Less than there was room for: the pipe is empty.
		if err != syscall.EINTR && len(to) < cap(to) {
			return to
		}
	}
}

func (p *pipes) closeChildren() {
	for at := range p.children {
		closeFd(&p.children[at])
	}
}

func (p *pipes) closeOwn() {
	for _, fd := range []*int{&p.stdin, &p.stdout, &p.stderr, &p.meta} {
		closeFd(fd)
	}
}

func closeFd(fd *int) {
	if *fd != none {
		_ = syscall.Close(*fd)
		*fd = none
	}
}

// takeFile makes a file of the runner's end of a pipe, so that reads and writes wait in the poller and not in a thread.
func takeFile(fd *int) *os.File {
	if *fd == none {
		return nil
	}
	_ = syscall.SetNonblock(*fd, true)
	file := os.NewFile(uintptr(*fd), "pipe")
	*fd = none
	return file
}

const (
	pollIn  = 0x1
	pollOut = 0x4
	pollHup = 0x10
)

// pollFd is the kernel's struct pollfd.
type pollFd struct {
	fd              int32
	events, revents int16
}

// poll waits at most so long (negative: for ever) for one of the events, and returns how many descriptors have any.
func poll(fds []pollFd, wait time.Duration) (int, error) {
	// The kernel leaves there what remains of the time.
	left := syscall.NsecToTimespec(int64(wait))
	timeout := unsafe.Pointer(&left)
	if wait < 0 {
		timeout = nil
	}
	for {
		n, _, errno := syscall.Syscall6(
			syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(timeout), 0, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}
