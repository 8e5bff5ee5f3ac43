package main

import (
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestOnlySoManyProgramsAreBeingStartedAtOnce(t *testing.T) {
	l := loopWithCalls(t, 5, 2)
	startedAre := func(when string, starting, waiting int) {
		t.Helper()
		l.startWaiting()
		if len(l.starting) != starting || len(l.waiting) != waiting || l.conn.inFlight() != 5 {
			t.Fatalf("%s: %d being started and %d waiting of %d calls, not %d and %d of 5",
				when, len(l.starting), len(l.waiting), l.conn.inFlight(), starting, waiting)
		}
	}
	startedAre("at first", 2, 3)
	startedAre("nothing has happened", 2, 3)
	first, second := l.starting[0], l.starting[1]

	// However slow this machine is, one of them has run for longer than counts, and the other one has not.
	first.startedAt = time.Now().Add(-time.Hour)
	second.startedAt = time.Now().Add(time.Hour)
	if _, err := poll(l.descriptors(), 0); err != nil {
		t.Fatal(err)
	}
	l.look()
	startedAre("one runs on", 2, 2)
	if l.starting[0] != second || l.starting[1] == first {
		t.Error("it is the wrong one that no longer counts")
	}
}

// loopWithCalls is the loop of a connection on which so many calls wait for their programs, which end with the test only.
func loopWithCalls(t *testing.T, calls uint32, startsMax int) *loop {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	lowDescriptorsTaken()
	// Without the collector, which would take the ends of other tests' programs.
	owner := &processes{children: make(map[int]*child), born: make(chan struct{}, 1)}
	agent, socket := socketPair(t)
	r := newRunner("", "", owner)
	r.startsMax = startsMax
	r.program = newProgram([]string{sleep, "600"}, t.TempDir(), nil)
	conn := newConnection(socket, r)
	for id := uint32(1); id <= calls; id++ {
		c, err := newCall(id, &request{}, true, conn)
		if err != nil {
			t.Fatal(err)
		}
		conn.add(c)
		conn.loop.waiting = append(conn.loop.waiting, c)
	}
	t.Cleanup(func() {
		ended := make([]*child, 0, len(owner.children))
		for _, each := range owner.children {
			each.signal(syscall.SIGKILL)
			ended = append(ended, each)
		}
		conn.loop.abandon()
		for _, each := range ended {
			each.reportEnd()
		}
		for waited := time.Now(); conn.inFlight() > 0; time.Sleep(time.Millisecond) {
			if time.Since(waited) > 30*time.Second {
				t.Fatalf("%d calls have not ended", conn.inFlight())
			}
		}
		conn.writer.close(0)
		<-conn.writer.done
		closeFd(&socket)
		_ = agent.Close()
	})
	return conn.loop
}
