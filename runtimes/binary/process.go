package main

import (
	"bytes"
	"io"
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

const (
	sweepRounds = 50
	// Rounds, each twice as long after the last, that find only programs that show no environment; those without any stay so.
	unsureRounds = 7
	// More than nearly every environment has.
	environBytes = 256 * 1024
)

// sweep kills every process that was started with this entry in its environment, also one that has left its group, until none
// is found.
func sweep(entry string) {
	unsure := 0
	for round := 0; round < sweepRounds && unsure < unsureRounds; round++ {
		killed, executing := sweepOnce([]byte(entry))
		if killed == 0 && executing == 0 {
			return
		}
		time.Sleep(time.Millisecond << unsure)
		if killed == 0 {
			unsure++
		}
	}
}

// sweepOnce says how many processes it killed, and how many may be about to show an environment.
func sweepOnce(entry []byte) (killed, executing int) {
	names, err := readDirNames("/proc")
	if err != nil {
		return 0, 0
	}
	buffer := make([]byte, environBytes)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := readEnviron(name, buffer)
		switch {
		case err != nil:
		case len(environ) == 0 && mayExecute(name):
			executing++
		case hasEntry(environ, entry):
			killed++
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return killed, executing
}

// readEnviron takes all at once where it can: of a program that is replaced between two reads, the rest is gone.
func readEnviron(pid string, buffer []byte) ([]byte, error) {
	file, err := os.Open("/proc/" + pid + "/environ")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	n, err := file.Read(buffer)
	if err == io.EOF {
		return nil, nil
	}
	if err != nil || n < len(buffer) {
		return buffer[:n], err
	}
	rest, err := io.ReadAll(file)
	return append(buffer[:n:n], rest...), err
}

const kernelThread = 0x00200000 // PF_KTHREAD

// mayExecute is for a process without an environment: it has none while it is replaced by another program (execve(2)), and neither
// have one that has ended and a thread of the kernel.
func mayExecute(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	// proc(5): "pid (name) state ppid pgrp session tty tpgid flags"; the name may have any character.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 7 || bytes.ContainsAny(fields[0], "ZX") {
		return false
	}
	flags, err := strconv.ParseUint(string(fields[6]), 10, 64)
	return err == nil && flags&kernelThread == 0
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
