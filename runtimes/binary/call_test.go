package main

import (
	"errors"
	"net"
	"os"
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
		agent, socket := net.Pipe()
		conn := newConnection(socket, newRunner("", "", nil))
		c, err := newCall(1, &request{}, true, conn)
		if err != nil {
			t.Fatal(err)
		}
		conn.calls[1] = c
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

// received tells whether anything comes within the time.
func received(from net.Conn, wait time.Duration) bool {
	_ = from.SetReadDeadline(time.Now().Add(wait))
	_, err := from.Read(make([]byte, 4096))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}
