package main

import (
	"bytes"
	"io"
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
		conn.calls[1] = c
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
