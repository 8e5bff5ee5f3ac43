package main

import (
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// spawning is a program being started, by a process that shares the runner's memory until it is that program.
//
// Go's own syscall.ForkExec holds its caller up until the new program is loaded, which on a busy machine is most of what a small
// program takes. Here the new process executes a prepared list of system calls, of which the last is execve, while the caller
// goes on (`cloneSteps`, in assembly: that process has no stack of its own and must run no Go). So all that the list refers to
// has to stay as it is until the process has ended, or is known to be the program.
type spawning struct {
	// The assembly knows the fields up to `steps` by their offsets.
	allSignals   uint64
	usualSignals uint64
	pidfd        int32
	_            int32
	flags        uintptr
	// The error number of the step that failed, negative; 0: none has.
	failure int64
	steps   [stepsMax]step

	argv, env []*byte
	dir       *byte
	defaults  [sigactionWords]uintptr
}

// step is a system call: its number and arguments.
type step struct {
	number    uintptr
	arguments [4]uintptr
}

const (
	signals        = 64
	stepsMax       = signals + 3 + metaFd + 1 + 2
	sigactionWords = 4
	// What the process ends with when a step fails. The failure itself is in the shared memory.
	stepFailedStatus = 127
	cloneVM          = 0x100
	clonePidfd       = 0x1000
	cloneVfork       = 0x4000
	sigSetMask       = 2
	signalSetBytes   = 8
)

// cloneSteps makes the process, with all signals blocked meanwhile; its pid, or a negative error number.
func cloneSteps(s *spawning) int

// spawn starts a program as leader of a process group of its own, which is killed with the runner; files are its descriptors from 0 on.
func spawn(program *program, env []string, files []int) (*spawning, int, error) {
	s := &spawning{
		allSignals: ^uint64(0),
		pidfd:      none,
		argv:       program.argv,
		env:        append(append(make([]*byte, 0, len(program.env)+len(env)+1), program.env...), cStrings(env)...),
		dir:        program.dir,
	}
	s.prepare(files)
	pid := -int(syscall.EINVAL)
	// What stands for a kernel (gVisor, QEMU's user mode) may have no pidfd, or know only vfork.
	for _, flags := range [...]uintptr{cloneVM | clonePidfd, cloneVM, cloneVM | cloneVfork} {
		if pid == -int(syscall.EINVAL) {
			s.flags = flags | uintptr(syscall.SIGCHLD)
			pid = cloneSteps(s)
		}
	}
	if pid < 0 {
		return nil, 0, syscall.Errno(-pid)
	}
	return s, pid, nil
}

func (s *spawning) prepare(files []int) {
	steps := s.steps[:0]
	add := func(number uintptr, arguments ...uintptr) {
		next := step{number: number}
		copy(next.arguments[:], arguments)
		steps = append(steps, next)
	}
	// The handlers are the runner's until then: no signal may come before.
	for signal := syscall.Signal(1); signal <= signals; signal++ {
		if signal != syscall.SIGKILL && signal != syscall.SIGSTOP {
			add(syscall.SYS_RT_SIGACTION, uintptr(signal), address(&s.defaults), 0, signalSetBytes)
		}
	}
	add(syscall.SYS_RT_SIGPROCMASK, sigSetMask, address(&s.usualSignals), 0, signalSetBytes)
	add(syscall.SYS_SETPGID, 0, 0)
	add(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL))
	for at, fd := range files {
		add(syscall.SYS_DUP3, uintptr(fd), uintptr(at), 0)
	}
	add(syscall.SYS_CHDIR, address(s.dir))
	add(syscall.SYS_EXECVE, address(s.argv[0]), address(&s.argv[0]), address(&s.env[0]))
}

// err is why the process did not become the program. To be asked when it has ended.
func (s *spawning) err() error {
	if failure := atomic.LoadInt64(&s.failure); failure != 0 {
		return syscall.Errno(-failure)
	}
	return nil
}

func address[T any](of *T) uintptr { return uintptr(unsafe.Pointer(of)) }

// cStrings is a list as the kernel takes it, with nil at its end. A NUL inside cannot be said and is left out.
func cStrings(list []string) []*byte {
	bytes := len(list)
	for _, each := range list {
		bytes += len(each)
	}
	// In one piece, which is never moved: it has room for all.
	text := make([]byte, 0, bytes)
	out := make([]*byte, 0, len(list)+1)
	for _, each := range list {
		start := len(text)
		text = append(append(text, strings.ReplaceAll(each, "\x00", "")...), 0)
		out = append(out, &text[start])
	}
	return append(out, nil)
}

// lowDescriptorsTaken makes sure that no pipe of the runner's gets a number that it has to have in the program.
func lowDescriptorsTaken() {
	for {
		fd, err := syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
		if err != nil || fd > metaFd {
			_ = syscall.Close(fd)
			return
		}
	}
}
