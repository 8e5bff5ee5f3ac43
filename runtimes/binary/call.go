package main

import (
	"fmt"
	"sync"
)

// call is one call on the wire: its body coming in, its answer going out, with flow control both ways.
type call struct {
	id      uint32
	request *request
	conn    *connection

	mu      sync.Mutex
	changed *sync.Cond

	// the request's body
	parts         [][]byte
	bodyEnded     bool
	receiveCredit int
	consumed      int

	// the answer
	sendCredit int
	ended      bool

	cancelOnce sync.Once
	cancelled  chan struct{}
}

func newCall(id uint32, request *request, last bool, conn *connection) (*call, error) {
	c := &call{
		id:            id,
		request:       request,
		conn:          conn,
		bodyEnded:     last,
		receiveCredit: conn.windowBytes - len(request.body),
		sendCredit:    conn.windowBytes,
		cancelled:     make(chan struct{}),
	}
	c.changed = sync.NewCond(&c.mu)
	if c.receiveCredit < 0 {
		return nil, broken("WINDOW_EXCEEDED", "call %d: more body than granted", id)
	}
	if len(request.body) > 0 {
		c.parts = append(c.parts, request.body)
	}
	request.body = nil
	return c, nil
}

// whole returns the body when it has come completely, and is small enough to fit a pipe.
func (c *call) whole(bytesMax int) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.bodyEnded || len(c.parts) > 1 {
		return nil, false
	}
	if len(c.parts) == 0 {
		return nil, true
	}
	if len(c.parts[0]) > bytesMax {
		return nil, false
	}
	body := c.parts[0]
	c.parts = nil
	return body, true
}

// collect waits for the whole body.
func (c *call) collect(bytesMax int) ([]byte, error) {
	var parts [][]byte
	bytes := 0
	for {
		part, more := c.next()
		if !more {
			break
		}
		parts = append(parts, part)
		if bytes += len(part); bytes > bytesMax {
			return nil, fmt.Errorf("a body above %d bytes, the most that a program that stays alive is given", bytesMax)
		}
		c.used(len(part))
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	out := make([]byte, 0, bytes)
	for _, part := range parts {
		out = append(out, part...)
	}
	return out, nil
}

// putBack returns what `whole` gave and found no room.
func (c *call) putBack(body []byte) {
	c.mu.Lock()
	c.parts = append(c.parts, body)
	c.mu.Unlock()
}

// receive takes body bytes from the agent.
func (c *call) receive(data []byte, last bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bodyEnded {
		return broken("FORBIDDEN", "call %d: data after the end of the body", c.id)
	}
	c.receiveCredit -= len(data)
	if c.receiveCredit < 0 {
		return broken("WINDOW_EXCEEDED", "call %d: more body than granted", c.id)
	}
	if len(data) > 0 {
		c.parts = append(c.parts, data)
	}
	c.bodyEnded = last
	c.changed.Broadcast()
	return nil
}

// next waits for body bytes; false: there are none any more, or the call has ended and nobody wants them.
func (c *call) next() ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.parts) == 0 && !c.bodyEnded && !c.ended && !c.stopped() {
		c.changed.Wait()
	}
	if len(c.parts) == 0 || c.ended || c.stopped() {
		return nil, false
	}
	part := c.parts[0]
	c.parts = c.parts[1:]
	return part, true
}

// used reports body bytes that the program has taken: the agent may send as many more.
func (c *call) used(bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consumed += bytes
	if c.bodyEnded || c.ended || c.consumed*2 < c.conn.windowBytes {
		return
	}
	grant := c.consumed
	c.consumed = 0
	c.receiveCredit += grant
	c.conn.writer.add(func(out []byte) []byte { return appendWindow(out, c.id, grant) })
}

// discardBody forgets the rest of the body: the program reads no more.
func (c *call) discardBody() {
	for {
		part, more := c.next()
		if !more {
			return
		}
		c.used(len(part))
	}
}

// respond begins the answer, or is the whole of it when last.
func (c *call) respond(status int, head string, body []byte, last bool) {
	if status < statusMin || status > statusMax {
		// An agent ends the connection, and all calls on it, for such.
		c.fail(kindBadAnswer, fmt.Sprintf("a status of %d; it must be %d to %d", status, statusMin, statusMax))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	inline := smaller(smaller(len(body), c.sendCredit), c.conn.payloadBytesMax-4-len(head))
	whole := last && inline == len(body)
	var flags byte
	if whole {
		flags = flagEnd
	}
	c.sendCredit -= inline
	if whole {
		c.end()
	}
	c.conn.writer.add(func(out []byte) []byte {
		return appendResponse(out, flags, c.id, status, head, body[:inline])
	})
	if whole {
		c.conn.settled()
		return
	}
	c.send(body[inline:], last)
}

// write sends more of the body; it waits until the agent takes it. False: nobody wants it any more.
func (c *call) write(body []byte, last bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.send(body, last)
}

func (c *call) send(body []byte, last bool) bool {
	for !c.ended && !c.stopped() {
		size := smaller(smaller(len(body), c.sendCredit), smaller(frameBodyBytesMax, c.conn.payloadBytesMax))
		if size == 0 && len(body) > 0 {
			c.changed.Wait()
			continue
		}
		var flags byte
		if last && size == len(body) {
			flags = flagEnd
		}
		if flags == flagEnd {
			c.end()
		}
		if size > 0 || flags == flagEnd {
			part := body[:size]
			c.conn.writer.add(func(out []byte) []byte { return appendFrame(out, typeData, flags, c.id, part) })
		}
		c.sendCredit -= size
		body = body[size:]
		if flags == flagEnd {
			c.conn.settled()
		}
		if len(body) == 0 {
			return true
		}
	}
	return false
}

func (c *call) grant(bytes int) {
	c.mu.Lock()
	// No agent that consumes what it grants gets beyond the window; one that does would have the output pile up here.
	c.sendCredit = smaller(c.conn.windowBytes, c.sendCredit+bytes)
	c.changed.Broadcast()
	c.mu.Unlock()
}

// fail ends the call with an error.
func (c *call) fail(kind byte, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.end()
	c.conn.writer.add(func(out []byte) []byte {
		return appendText(out, typeError, c.id, kind, text, textBytesMax)
	})
	c.conn.settled()
}

// end must be called with the lock held, and before the frame that ends the call is handed to the writer: the agent may use
// the id again as soon as it has that frame, and a request with the id of a call in flight breaks the connection.
func (c *call) end() {
	c.ended = true
	c.changed.Broadcast()
	c.conn.remove(c)
}

// cancel asks the program to stop, and wakes whoever waits for the agent.
func (c *call) cancel() {
	c.cancelOnce.Do(func() { close(c.cancelled) })
	c.mu.Lock()
	c.changed.Broadcast()
	c.mu.Unlock()
}

// logID is what log lines carry; 0: an id of a connection that is gone may be another call's by now.
func (c *call) logID() uint32 {
	if c.conn.over.Load() {
		return 0
	}
	return c.id
}

func (c *call) stopped() bool {
	select {
	case <-c.cancelled:
		return true
	default:
		return false
	}
}

func smaller(a, b int) int {
	if a < b {
		return a
	}
	return b
}
