package main

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// The agent may use an id again as soon as it has the frame that ends its call. Here nothing can be taken off the list of calls
// for a while: what leaves meanwhile leaves too early.
func TestAnIDIsFreeBeforeItsLastFrameLeaves(t *testing.T) {
	for name, end := range map[string]func(c *call){
		"a whole answer": func(c *call) { c.respond(200, "", []byte("whole"), true) },
		"the last part":  func(c *call) { c.send([]byte("last"), true) },
		"an error":       func(c *call) { c.fail(kindFunction, "no") },
	} {
		agent, socket := socketPair(t)
		conn := newConnection(socket, newRunner("", "", nil))
		c, err := newCall(1, &request{}, true, conn)
		if err != nil {
			t.Fatal(err)
		}
		conn.add(c)
		conn.mu.Lock()
		go end(c)
		early := received(agent, 50*time.Millisecond)
		conn.mu.Unlock()
		if early {
			t.Errorf("%s left while its id was in use", name)
		} else if !received(agent, 5*time.Second) || conn.inFlight() != 0 {
			t.Errorf("%s did not leave, or its call stayed", name)
		}
		conn.writer.close(0)
		_ = agent.Close()
	}
}

// A program that answers without reading its input, such as one that refuses an upload: nobody sends the rest any more.
func TestWhoWaitsForInputLearnsOfTheEndOfTheCall(t *testing.T) {
	c := callOf(t, &request{}, false)
	fed := make(chan bool, 1)
	go func() {
		_, more := c.next()
		fed <- more
	}()
	c.respond(200, "", []byte("no"), true)
	select {
	case more := <-fed:
		if more {
			t.Error("there is input after the end")
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for ever")
	}
}

// A runner that is to end does so when nothing is left to be sent, and not when no call is left.
func TestACallCountsUntilItsLastFrameIsTheWriters(t *testing.T) {
	c := callOf(t, &request{}, true)
	c.conn.writer.mu.Lock()
	go c.respond(200, "", []byte("whole"), true)
	for waited := time.Now(); c.conn.inFlight() > 0; time.Sleep(time.Millisecond) {
		if time.Since(waited) > 10*time.Second {
			t.Fatal("the call has not ended")
		}
	}
	early := c.conn.allSettled()
	c.conn.writer.mu.Unlock()
	if early {
		t.Error("it no longer counts although its answer can still be lost")
	}
	for waited := time.Now(); !c.conn.allSettled(); time.Sleep(time.Millisecond) {
		if time.Since(waited) > 10*time.Second {
			t.Fatal("it counts although its answer has been sent")
		}
	}
}

// A slow agent may get a line when the id in it is another call's.
func TestLinesThatWaitAreNobodysOnceTheirCallHasEnded(t *testing.T) {
	c := callOf(t, &request{}, true)
	logs := c.conn.runner.logs
	logs.line(c.id, levelInfo, "own")
	logs.line(c.id+1, levelInfo, "another's")
	c.respond(200, "", nil, true)
	if logs.kept[0].id != 0 || logs.kept[1].id != c.id+1 {
		t.Errorf("they carry %d and %d", logs.kept[0].id, logs.kept[1].id)
	}

	late := callOf(t, &request{}, true)
	late.conn.runner.logs = logs
	late.conn.over.Store(true)
	logs.line(late.logID(), levelInfo, "of a connection that is gone")
	logs.attach(nil)
	for _, line := range logs.kept {
		if line.id != 0 {
			t.Errorf("%q carries %d after the connection", line.text, line.id)
		}
	}

	// The next connection has a call with the same id, whose lines wait.
	next := callOf(t, &request{}, true)
	logs.writer = next.conn.writer
	logs.line(next.id, levelInfo, "the next one's")
	late.respond(200, "", nil, true)
	if last := logs.kept[len(logs.kept)-1]; last.id != next.id {
		t.Errorf("%q carries %d", last.text, last.id)
	}
}

// An agent ends the connection for such a status, and with it the calls of others.
func TestNoStatusLeavesThatAnAgentTakesForABrokenRunner(t *testing.T) {
	for _, status := range []int{-1, 0, 199, 600, 65736} {
		c, agent := callBy(t, &request{}, true)
		c.respond(status, "", nil, true)
		_ = agent.SetReadDeadline(time.Now().Add(5 * time.Second))
		f, err := readFrame(agent)
		if err != nil || f.kind != typeError || f.payload[0] != kindBadAnswer {
			t.Errorf("%d: %+v, error %v", status, f, err)
		}
	}
}

// callOf is a call in flight on a connection whose agent reads nothing and which ends with the test.
func callOf(t *testing.T, request *request, whole bool) *call {
	t.Helper()
	c, _ := callBy(t, request, whole)
	return c
}

// callBy is a call in flight, and the agent's end of its connection, which ends with the test.
func callBy(t *testing.T, request *request, whole bool) (*call, net.Conn) {
	t.Helper()
	agent, socket := socketPair(t)
	conn := newConnection(socket, newRunner("", "", nil))
	c, err := newCall(1, request, whole, conn)
	if err != nil {
		t.Fatal(err)
	}
	conn.add(c)
	t.Cleanup(func() {
		_ = agent.Close()
		conn.writer.close(0)
		<-conn.writer.done
		closeFd(&socket)
	})
	return c, agent
}

// socketPair returns the agent's end of a connection, and the runner's.
func socketPair(t *testing.T) (net.Conn, int) {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(pair[0]), "agent")
	defer file.Close()
	agent, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return agent, pair[1]
}

// received tells whether anything comes within the time.
func received(from net.Conn, wait time.Duration) bool {
	_ = from.SetReadDeadline(time.Now().Add(wait))
	_, err := from.Read(make([]byte, 4096))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}
