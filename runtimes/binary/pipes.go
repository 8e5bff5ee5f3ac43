package main

import (
	"os"
	"syscall"
)

// openPipes makes the program's four descriptors: stdin, stdout, stderr and the one for the head.
func openPipes(c *call) (*pipes, error) {
	p := &pipes{}
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
	for _, own := range []**os.File{&p.stdout, &p.stderr, &p.meta} {
		var fds [2]int
		if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
			return err
		}
		*own = ownEnd(fds[0])
		p.children = append(p.children, fds[1])
	}
	return nil
}

// openStdin puts a small body into the pipe at once; what remains is left to feed.
func (p *pipes) openStdin(c *call) error {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return err
	}
	p.children = append(p.children, fds[0])
	body, whole := c.whole(pipeBytes)
	if !whole {
		p.stdin = ownEnd(fds[1])
		return nil
	}
	_ = syscall.SetNonblock(fds[1], true)
	for len(body) > 0 {
		n, err := syscall.Write(fds[1], body)
		if n > 0 {
			body = body[n:]
			continue
		}
		if err == syscall.EINTR {
			continue
		}
		// A system short of pipe memory gives smaller pipes.
		c.mu.Lock()
		c.parts = append(c.parts, body)
		c.mu.Unlock()
		p.stdin = os.NewFile(uintptr(fds[1]), "pipe")
		return nil
	}
	return syscall.Close(fds[1])
}

// ownEnd wraps the runner's end, so that reads and writes wait in the poller and not in a thread.
func ownEnd(fd int) *os.File {
	_ = syscall.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "pipe")
}

func (p *pipes) closeChildren() {
	for _, fd := range p.children {
		_ = syscall.Close(fd)
	}
	p.children = nil
}

func (p *pipes) closeOwn() {
	for _, file := range []*os.File{p.stdin, p.stdout, p.stderr, p.meta} {
		if file != nil {
			_ = file.Close()
		}
	}
}
