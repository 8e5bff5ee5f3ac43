package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const greetingTime = 5 * time.Second

// connection is one connection to the agent, and the calls in flight on it.
type connection struct {
	runner *runner
	// does not block; the loop reads it, the writer writes it
	socket          int
	openedAt        time.Time
	loop            *loop
	writer          *writer
	windowBytes     int
	payloadBytesMax int
	welcomed        bool

	// its calls' ids mean nothing any more
	over atomic.Bool

	mu    sync.Mutex
	calls map[uint32]*call
	// calls whose last frame has not been handed to the writer: more than in `calls`, which a call leaves just before
	unsettled int
	// READY may be sent (after WELCOME), and has been
	mayBeReady, readySent bool
}

func newConnection(socket int, r *runner) *connection {
	n := &connection{
		runner:          r,
		socket:          socket,
		openedAt:        time.Now(),
		writer:          newWriter(socket, r.logs.drain),
		windowBytes:     windowBytes,
		payloadBytesMax: payloadBytesMax,
		calls:           make(map[uint32]*call),
	}
	n.loop = &loop{conn: n}
	return n
}

// dial connects to the agent.
func dial(path string) (int, error) {
	socket, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return none, err
	}
	if err = syscall.Connect(socket, &syscall.SockaddrUnix{Name: path}); err == nil {
		err = syscall.SetNonblock(socket, true)
	}
	if err != nil {
		closeFd(&socket)
	}
	return socket, err
}

// serve speaks until the connection ends. The error is undefined when the agent simply went.
func (n *connection) serve() (bool, error) {
	n.send(typeHello, n.runner.hello())
	err := n.loop.run()
	n.over.Store(true)
	n.runner.logs.attach(nil)
	n.writer.close(0)
	_ = syscall.Shutdown(n.socket, syscall.SHUT_RDWR)
	<-n.writer.done
	_ = syscall.Close(n.socket)
	if err == io.EOF {
		return n.welcomed, nil
	}
	return n.welcomed, err
}

func (n *connection) greetingOverdue() bool {
	return !n.welcomed && time.Since(n.openedAt) >= greetingTime
}

func (n *connection) send(kind byte, message any) {
	payload := marshal(message)
	n.writer.add(func(out []byte) []byte { return appendFrame(out, kind, 0, 0, payload) })
}

func (n *connection) onFrame(f *frame) error {
	if err := checkPayload(f); err != nil {
		return err
	}
	known := f.kind <= typeShutdown && f.kind >= typeHello || f.kind >= typeRequest && f.kind <= typeError ||
		f.kind == typeLog
	if !n.welcomed && known && f.kind != typeWelcome {
		return broken("FORBIDDEN", "a frame of type %d before WELCOME", f.kind)
	}
	switch f.kind {
	case typeRequest:
		return n.onRequest(f)
	case typeData:
		if c := n.find(f.id); c != nil {
			return c.receive(f.payload, f.end())
		}
	case typeWindow:
		if c := n.find(f.id); c != nil {
			c.grant(int(binary.BigEndian.Uint32(f.payload)))
		}
	case typeCancel:
		if c := n.find(f.id); c != nil {
			c.cancel()
		}
	case typePing:
		n.writer.add(func(out []byte) []byte { return appendFrame(out, typePong, 0, f.id, f.payload) })
	case typeWelcome:
		return n.onWelcome(f.payload)
	case typeInit:
		return n.onInit(f.payload)
	case typeShutdown:
		n.runner.shutdown()
	default:
		if known {
			return broken("FORBIDDEN", "a frame of type %d sent to a runner", f.kind)
		}
	}
	return nil
}

func (n *connection) onWelcome(payload []byte) error {
	var message struct {
		Protocol        int    `json:"protocol"`
		Error           string `json:"error"`
		WindowBytes     int    `json:"windowBytes"`
		PayloadBytesMax int    `json:"payloadBytesMax"`
	}
	if err := parse(payload, &message); err != nil {
		return err
	}
	if n.welcomed {
		return broken("FORBIDDEN", "a second WELCOME")
	}
	if message.Protocol != 1 {
		complain("the agent refuses this runner: " + message.Error)
		os.Exit(exitRefused)
	}
	n.welcomed = true
	n.windowBytes = bounded(message.WindowBytes, 65536, 1048576, windowBytes)
	n.payloadBytesMax = bounded(message.PayloadBytesMax, 131072, payloadBytesMax, payloadBytesMax)
	n.mu.Lock()
	n.mayBeReady = true
	n.mu.Unlock()
	n.sayReady()
	n.runner.logs.attach(n.writer)
	return nil
}

func (n *connection) onInit(payload []byte) error {
	message := &initMessage{}
	if err := parse(payload, message); err != nil {
		return err
	}
	if err := n.runner.init(message); err != nil {
		return err
	}
	n.sayReady()
	return nil
}

// sayReady sends READY when it is due, once.
func (n *connection) sayReady() {
	ready := n.runner.ready()
	n.mu.Lock()
	defer n.mu.Unlock()
	if ready != nil && n.mayBeReady && !n.readySent {
		n.readySent = true
		n.send(typeReady, ready)
	}
}

func (n *connection) onRequest(f *frame) error {
	request, err := parseRequest(f.payload)
	if err != nil {
		return err
	}
	if f.id == 0 || n.find(f.id) != nil {
		return broken("FORBIDDEN", "a request with the id %d, which is in use", f.id)
	}
	r := n.runner
	r.mu.Lock()
	state, draining, concurrency := r.state, r.draining, r.concurrency
	r.mu.Unlock()
	switch {
	case draining:
		n.refuse(f.id, kindNotReady, "the handler is shutting down")
		return nil
	case state != "ready":
		return broken("FORBIDDEN", "a request before READY")
	case n.inFlight() >= concurrency:
		n.refuse(f.id, kindLimit, fmt.Sprintf("the handler has %d calls in flight already", concurrency))
		return nil
	}
	c, err := newCall(f.id, request, f.end(), n)
	if err != nil {
		return err
	}
	n.add(c)
	if r.stay != nil {
		go r.stay.answer(c)
	} else {
		n.loop.waiting = append(n.loop.waiting, c)
	}
	return nil
}

func (n *connection) refuse(id uint32, kind byte, text string) {
	n.writer.add(func(out []byte) []byte { return appendText(out, typeError, id, kind, text, textBytesMax) })
}

func (n *connection) find(id uint32) *call {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[id]
}

func (n *connection) all() []*call {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*call, 0, len(n.calls))
	for _, each := range n.calls {
		out = append(out, each)
	}
	return out
}

func (n *connection) inFlight() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.calls)
}

func (n *connection) add(c *call) {
	n.mu.Lock()
	n.calls[c.id] = c
	n.unsettled++
	n.mu.Unlock()
}

// remove forgets a call that has ended.
func (n *connection) remove(c *call) {
	n.mu.Lock()
	delete(n.calls, c.id)
	n.mu.Unlock()
	n.runner.logs.disown(c.id, n.writer)
}

// settled is to be called when the last frame of a call has been handed to the writer.
func (n *connection) settled() {
	n.mu.Lock()
	n.unsettled--
	n.mu.Unlock()
	if n.allSettled() && n.runner.isDraining() {
		go n.runner.exit(0)
	}
}

func (n *connection) allSettled() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.unsettled == 0
}

func parse(payload []byte, into any) error {
	if len(payload) == 0 || payload[0] != '{' {
		return broken("JSON_MALFORMED", "a message that is no JSON object")
	}
	if err := json.Unmarshal(payload, into); err != nil {
		return broken("JSON_MALFORMED", "%v", err)
	}
	return nil
}

func bounded(value, least, most, otherwise int) int {
	if value < least || value > most {
		return otherwise
	}
	return value
}
