package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Tries to connect come in this part of the time that the agent has been away: one that was restarted serves again at once.
	reconnectPart = 50
	reconnectMin  = 20 * time.Millisecond
	// A try that finds no socket costs next to nothing.
	reconnectMax = 200 * time.Millisecond
	flushWait    = time.Second
	exitRefused  = 69
)

// runner keeps the function across connections, and a connection as long as there is an agent.
type runner struct {
	socketPath string
	handler    string
	processes  *processes
	logs       *logs
	// programs being started at once, at most
	startsMax int
	tokens    uint64

	mu          sync.Mutex
	state       string
	fn, release string
	problem     string
	concurrency int
	program     *program
	// nil: the program is started for every call
	stay     *stay
	draining bool
	conn     *connection
}

func newRunner(socketPath, handler string, processes *processes) *runner {
	return &runner{
		socketPath: socketPath,
		handler:    handler,
		processes:  processes,
		logs:       &logs{},
		startsMax:  startsAtOnce(),
		state:      "empty",
	}
}

// startsAtOnce is twice the number of cores unless SHOAL_STARTS_MAX says otherwise: more at once only wait for each other.
func startsAtOnce() int {
	if n, err := strconv.Atoi(os.Getenv("SHOAL_STARTS_MAX")); err == nil && n > 0 {
		return n
	}
	return 2 * runtime.GOMAXPROCS(0)
}

// run connects for ever.
func (r *runner) run() {
	awaySince := time.Now()
	for {
		socket, err := dial(r.socketPath)
		if err == nil {
			conn := newConnection(socket, r)
			r.setConnection(conn)
			welcomed, err := conn.serve()
			r.setConnection(nil)
			if welcomed {
				awaySince = time.Now()
				if err != nil {
					complain("connection closed: " + err.Error())
				}
			}
		}
		if r.isDraining() {
			r.exit(0)
		}
		time.Sleep(reconnectWait(time.Since(awaySince)))
	}
}

func reconnectWait(away time.Duration) time.Duration {
	switch wait := away / reconnectPart; {
	case wait < reconnectMin:
		return reconnectMin
	case wait > reconnectMax:
		return reconnectMax
	default:
		return wait
	}
}

func (r *runner) setConnection(conn *connection) {
	r.mu.Lock()
	r.conn = conn
	r.mu.Unlock()
}

func (r *runner) hello() map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	hello := map[string]any{
		"protocol": map[string]int{"min": 1, "max": 1},
		"handler":  r.handler,
		"runtime":  "binary",
		"runner":   version,
		"pid":      os.Getpid(),
		"state":    r.state,
	}
	if r.state != "empty" {
		hello["fn"] = r.fn
		hello["release"] = r.release
	}
	return hello
}

type initMessage struct {
	Fn          string            `json:"fn"`
	Release     string            `json:"release"`
	Dir         string            `json:"dir"`
	Entry       string            `json:"entry"`
	Env         map[string]string `json:"env"`
	Concurrency int               `json:"concurrency"`
}

// init finds the program. A second call is a protocol error.
func (r *runner) init(message *initMessage) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != "empty" {
		return broken("FORBIDDEN", "a second INIT")
	}
	r.fn, r.release = message.Fn, message.Release
	r.concurrency = message.Concurrency
	if r.concurrency < 1 {
		r.concurrency = 1
	}
	dir := message.Dir
	if dir == "" {
		dir = "/shoal/fn"
	}
	argv, err := findProgram(dir, message.Entry)
	var settings *staySettings
	if err == nil {
		settings, err = readStaySettings(dir)
	}
	if err != nil {
		r.state, r.problem = "failed", err.Error()
		return nil
	}
	r.program = newProgram(argv, dir, sharedEnv(message))
	if settings == nil {
		r.state = "ready"
		return nil
	}
	r.state = "loading"
	r.stay = startStay(r, *settings, r.loaded)
	return nil
}

// loaded: a program that stays alive is ready, or will not be.
func (r *runner) loaded(err error) {
	r.mu.Lock()
	r.state = "ready"
	if err != nil {
		r.state, r.problem = "failed", err.Error()
	}
	conn := r.conn
	r.mu.Unlock()
	if conn != nil {
		conn.sayReady()
	}
}

// sharedEnv is the runner's own environment without what is meant for it, and the function's.
func sharedEnv(message *initMessage) []string {
	own := []string{"SHOAL_FN=" + message.Fn, "SHOAL_RELEASE=" + message.Release}
	for name, value := range message.Env {
		own = append(own, name+"="+value)
	}
	var out []string
	for _, each := range os.Environ() {
		name, _, _ := strings.Cut(each, "=")
		_, replaced := message.Env[name]
		if !replaced && name != "SHOAL_SOCKET" && name != "SHOAL_HANDLER" && name != "SHOAL_STARTS_MAX" {
			out = append(out, each)
		}
	}
	return append(out, own...)
}

// ready is the READY that is due in this state; nil: none.
func (r *runner) ready() map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.state {
	case "ready":
		return map[string]any{"ok": true}
	case "failed":
		return map[string]any{"ok": false, "error": cut(r.problem, textBytesMax)}
	default:
		return nil
	}
}

func (r *runner) nextToken() string {
	return r.handler + "." + strconv.Itoa(os.Getpid()) + "." + strconv.FormatUint(atomic.AddUint64(&r.tokens, 1), 10)
}

func (r *runner) isDraining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining
}

// shutdown finishes the calls in flight, then exits 0.
func (r *runner) shutdown() {
	r.mu.Lock()
	r.draining = true
	conn := r.conn
	r.mu.Unlock()
	if conn == nil || conn.allSettled() {
		r.exit(0)
	}
}

func (r *runner) exit(code int) {
	r.mu.Lock()
	conn := r.conn
	r.mu.Unlock()
	if r.stay != nil {
		r.stay.close()
	}
	if conn != nil {
		conn.writer.close(flushWait)
	}
	os.Exit(code)
}

func complain(text string) {
	fmt.Fprintln(os.Stderr, "shoal runner: "+text)
}

func marshal(value any) []byte {
	out, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return out
}
