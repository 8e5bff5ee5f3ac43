package main

import (
	"bytes"
	"io"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestACancelThatComesAsTheProgramEndsEndsTheCall(t *testing.T) {
	for name, e := range map[string]*execution{
		"the answer has begun":        {started: true},
		"the answer takes two frames": {held: make([]byte, heldBytesMax)},
	} {
		agent, socket := socketPair(t)
		conn := newConnection(socket, newRunner("", "", nil))
		conn.payloadBytesMax = heldBytesMax
		c, err := newCall(1, &request{}, true, conn)
		if err != nil {
			t.Fatal(err)
		}
		conn.add(c)
		e.call, e.child = c, &child{spawning: &spawning{}}
		c.cancel()
		// All of its output has been read before the cancel was seen.
		e.finish(0, false)
		conn.writer.close(5 * time.Second)
		closeFd(&socket)
		got, err := io.ReadAll(agent)
		_ = agent.Close()
		want := appendText(nil, typeError, 1, kindCancelled, "cancelled", textBytesMax)
		if err != nil || !bytes.HasSuffix(got, want) || conn.inFlight() != 0 {
			t.Errorf("%s: %d calls open after %d bytes, error %v", name, conn.inFlight(), len(got), err)
		}
	}
}

// The loop answers for programs that have ended, and it alone reads what callers take: it must not wait for them.
func TestMoreOutputThanACallerTakesDoesNotHoldUpTheLoop(t *testing.T) {
	const setPipeSize = 1031 // F_SETPIPE_SZ of fcntl(2), which any program may use
	quick, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	lowDescriptorsTaken()
	c := callOf(t, &request{}, true)
	p, err := openPipes(c)
	if err != nil {
		t.Fatal(err)
	}
	output := make([]byte, 2*c.conn.windowBytes)
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(p.stdout), setPipeSize, uintptr(len(output))); errno != 0 {
		t.Fatal(errno)
	}
	if n, err := syscall.Write(p.children[1], output); n != len(output) {
		t.Fatal(n, err)
	}
	e := &execution{call: c, pipes: p, errors: stderrLog{logs: &logs{}}}
	owner := &processes{children: make(map[int]*child), born: make(chan struct{}, 1)}
	if e.child, err = owner.start(newProgram([]string{quick}, t.TempDir(), nil), nil, p.children[:]); err != nil {
		t.Fatal(err)
	}
	p.closeChildren()
	answered := make(chan struct{})
	go func() { e.answerQuickly(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(10 * time.Second):
		t.Error("it waits for the caller")
	}
	for waited := time.Now(); !c.conn.allSettled(); time.Sleep(time.Millisecond) {
		if time.Since(waited) > 10*time.Second {
			t.Fatal("the rest of the answer was not sent")
		}
		c.grant(len(output))
	}
	closeFd(&e.child.pidfd)
}
