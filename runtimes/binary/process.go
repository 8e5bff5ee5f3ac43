package main

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// processes starts programs and learns of their ends.
//
// Who starts a program looks for its end for a short while (`pidfd`, `reap`); most programs need no more. The ends of the others
// are collected by one goroutine (`watch`), and it also waits for the processes that the runner inherits as PID 1 or subreaper.
type processes struct {
	// Held for reading while a program is being started: its end may come before its pid is known here.
	starting sync.RWMutex
	mu       sync.Mutex
	children map[int]*child
	born     chan struct{}
}

// child is a program that was started and has not been waited for.
type child struct {
	owner    *processes
	spawning *spawning
	pid      int
	// readable when the program has ended; none: this kernel has no such descriptors. Its owner closes it.
	pidfd   int
	watched bool
	// somebody takes its status
	claimed bool
	// gets the one status of a watched child
	end chan syscall.WaitStatus
}

const (
	prSetChildSubreaper = 36
	pAll                = 0
	wExited             = 4
	wNoWait             = 0x01000000
	// si_pid in the kernel's siginfo_t on 64-bit Linux
	siginfoPidOffset = 16
	// The collector has seen the end of a child that is its starter's: it looks again then, and costs little where many end.
	collectAgain = 10 * time.Millisecond
)

func startProcesses() *processes {
	// Outside a container: orphans of the programs come to this process in place of init.
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0)
	lowDescriptorsTaken()
	p := &processes{children: make(map[int]*child), born: make(chan struct{}, 1)}
	go p.collect()
	return p
}

// start starts a program for a call, with its own part of the environment.
//
// It dies with the thread that started it (PDEATHSIG), and so with the runner: Go ends no thread before.
func (p *processes) start(program *program, env []string, files []int) (*child, error) {
	p.starting.RLock()
	defer p.starting.RUnlock()
	spawning, pid, err := spawn(program, env, files)
	if err != nil {
		return nil, err
	}
	c := &child{
		owner: p, spawning: spawning, pid: pid, pidfd: int(spawning.pidfd), end: make(chan syscall.WaitStatus, 1),
	}
	p.mu.Lock()
	p.children[pid] = c
	p.mu.Unlock()
	select {
	case p.born <- struct{}{}:
	default:
	}
	return c, nil
}

// watch leaves the program's end to the collector: it comes by the channel.
func (c *child) watch() <-chan syscall.WaitStatus {
	c.owner.mu.Lock()
	c.watched = true
	c.owner.mu.Unlock()
	return c.end
}

// signal signals a program and its group, unless its end has been taken note of.
//
// One that has only just been made may have no group yet: then it gets the signal itself, as soon as it can take any.
func (c *child) signal(signal syscall.Signal) {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	// What has been waited for is not signalled: its number may be in use again.
	if !c.claimed && syscall.Kill(-c.pid, signal) == syscall.ESRCH {
		_ = syscall.Kill(c.pid, signal)
	}
}

// reap takes the status of a program that has ended, and ends what it leaves running; false: somebody else has done so.
func (c *child) reap() (syscall.WaitStatus, bool) {
	c.owner.mu.Lock()
	claimed := c.claimed
	c.claimed = true
	c.owner.mu.Unlock()
	if claimed {
		return 0, false
	}
	// While it is not waited for, its group's number is not used again.
	_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	var status syscall.WaitStatus
	_, err := syscall.Wait4(c.pid, &status, 0, nil)
	for err == syscall.EINTR {
		_, err = syscall.Wait4(c.pid, &status, 0, nil)
	}
	c.owner.mu.Lock()
	if c.owner.children[c.pid] == c {
		// Else the number is in use again already.
		delete(c.owner.children, c.pid)
	}
	c.owner.mu.Unlock()
	return status, err == nil
}

// reportEnd tells who watches a program that has ended.
func (c *child) reportEnd() {
	if status, ok := c.reap(); ok {
		c.end <- status
	}
}

// collect waits for the end of every child that nobody else waits for, adopted ones included.
func (p *processes) collect() {
	for {
		pid, err := peekEnded()
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			// No child at all. An adopted one can only come from a program that was started.
			select {
			case <-p.born:
			case <-time.After(time.Second):
			}
			continue
		}
		if !p.collectOne(pid) {
			time.Sleep(collectAgain)
		}
	}
}

// collectOne takes the status of a child that has ended; false: it belongs to who started it.
func (p *processes) collectOne(pid int) bool {
	p.starting.Lock()
	defer p.starting.Unlock()
	p.mu.Lock()
	c := p.children[pid]
	watched := c != nil && c.watched
	p.mu.Unlock()
	if c == nil {
		// Adopted; or one of ours that has been waited for since, and then this finds none.
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		return true
	}
	if watched {
		c.reportEnd()
	}
	return watched
}

// peekEnded waits until a child has ended, and leaves it waited for.
func peekEnded() (int, error) {
	var info [128]byte
	_, _, errno := syscall.Syscall6(
		syscall.SYS_WAITID, pAll, 0, uintptr(unsafe.Pointer(&info[0])), wExited|wNoWait, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(*(*int32)(unsafe.Pointer(&info[siginfoPidOffset]))), nil
}

// sweep kills every process that was started with this entry in its environment, also one that has left its group, until none
// is found.
func sweep(entry string) {
	needle := []byte(entry)
	for round := 0; round < 50; round++ {
		found := false
		names, err := readDirNames("/proc")
		if err != nil {
			return
		}
		for _, name := range names {
			pid, err := strconv.Atoi(name)
			if err != nil || pid == os.Getpid() {
				continue
			}
			environ, err := os.ReadFile("/proc/" + name + "/environ")
			if err != nil || !hasEntry(environ, needle) {
				continue
			}
			found = true
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if !found {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func hasEntry(environ, entry []byte) bool {
	for _, each := range bytes.Split(environ, []byte{0}) {
		if bytes.Equal(each, entry) {
			return true
		}
	}
	return false
}

func readDirNames(path string) ([]string, error) {
	folder, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	return folder.Readdirnames(-1)
}
