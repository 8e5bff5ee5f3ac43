package main

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// processes starts programs and learns of their ends.
//
// All are started by one thread, because a program is to die with it (PDEATHSIG is bound to a thread), and all ends are
// collected by one goroutine, because as PID 1 the runner inherits processes that it did not start.
type processes struct {
	mu     sync.Mutex
	ends   map[int]chan syscall.WaitStatus
	starts chan *start
	born   chan struct{}
}

type start struct {
	argv []string
	attr *syscall.ProcAttr
	pid  int
	err  error
	end  chan syscall.WaitStatus
	done chan struct{}
}

const (
	prSetChildSubreaper = 36
	pAll                = 0
	wExited             = 4
	wNoWait             = 0x01000000
	// si_pid in the kernel's siginfo_t on 64-bit Linux
	siginfoPidOffset = 16
)

func startProcesses() *processes {
	// Outside a container: orphans of the programs come to this process in place of init.
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0)
	p := &processes{
		ends:   make(map[int]chan syscall.WaitStatus),
		starts: make(chan *start),
		born:   make(chan struct{}, 1),
	}
	go p.startAll()
	go p.collect()
	return p
}

// start starts a program as leader of a session of its own. Its end comes by the channel.
func (p *processes) start(argv []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	s := &start{argv: argv, attr: attr, end: make(chan syscall.WaitStatus, 1), done: make(chan struct{})}
	p.starts <- s
	<-s.done
	return s.pid, s.end, s.err
}

func (p *processes) startAll() {
	runtime.LockOSThread()
	for s := range p.starts {
		// Held until the pid is known: the end may come before.
		p.mu.Lock()
		s.pid, s.err = syscall.ForkExec(s.argv[0], s.argv, s.attr)
		if s.err == nil {
			p.ends[s.pid] = s.end
		}
		p.mu.Unlock()
		select {
		case p.born <- struct{}{}:
		default:
		}
		close(s.done)
	}
}

// collect waits for the end of every child, adopted ones included.
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
		p.mu.Lock()
		end, own := p.ends[pid]
		delete(p.ends, pid)
		p.mu.Unlock()
		if own {
			// What the program leaves running ends with it. While it is not waited for, its group's number is not used again.
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
		var status syscall.WaitStatus
		_, err = syscall.Wait4(pid, &status, 0, nil)
		if own && err == nil {
			end <- status
		}
	}
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
