package main

import (
	"fmt"
	"net"
	"sync"
	"time"
)

type logLine struct {
	id    uint32
	level byte
	text  string
}

// logs keeps log lines that cannot be sent yet, across connections: bounded, the oldest dropped.
type logs struct {
	mu      sync.Mutex
	writer  *writer
	kept    []logLine
	bytes   int
	dropped int
}

// line sends a log line, or keeps it while the agent takes none.
func (l *logs) line(id uint32, level byte, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) == 0 && l.writer != nil && l.writer.appendLog(id, level, text) {
		return
	}
	if len(text) > logLineBytesMax {
		text = cut(text, logLineBytesMax)
	}
	l.kept = append(l.kept, logLine{id, level, text})
	l.bytes += len(text)
	for len(l.kept) > logLinesMax || l.bytes > logBytesMax {
		l.bytes -= len(l.kept[0].text)
		l.kept = l.kept[1:]
		l.dropped++
	}
}

// attach sends lines to a writer from now on; nil: they wait.
func (l *logs) attach(w *writer) {
	l.mu.Lock()
	l.writer = w
	l.mu.Unlock()
	if w != nil {
		l.drain()
	}
}

// drain sends what was kept, as far as the agent takes it.
func (l *logs) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writer == nil || len(l.kept) == 0 {
		return
	}
	if l.dropped > 0 {
		note := fmt.Sprintf("[%d log lines dropped]", l.dropped)
		if !l.writer.appendLog(0, levelWarn, note) {
			return
		}
		l.dropped = 0
	}
	sent := 0
	for _, line := range l.kept {
		if !l.writer.appendLog(line.id, line.level, line.text) {
			break
		}
		l.bytes -= len(line.text)
		sent++
	}
	l.kept = append([]logLine(nil), l.kept[sent:]...)
}

// writer gathers frames, which a goroutine of its own writes: what comes while one write runs goes out with the next.
type writer struct {
	mu      sync.Mutex
	wake    *sync.Cond
	conn    net.Conn
	buffer  []byte
	spare   []byte
	writing int
	closed  bool
	done    chan struct{}
	// called after every write
	cleared func()
}

func newWriter(conn net.Conn, cleared func()) *writer {
	w := &writer{conn: conn, done: make(chan struct{}), cleared: cleared}
	w.wake = sync.NewCond(&w.mu)
	go w.run()
	return w
}

// add lets `encode` append frames.
func (w *writer) add(encode func(out []byte) []byte) {
	w.mu.Lock()
	if !w.closed {
		w.buffer = encode(w.buffer)
		w.wake.Signal()
	}
	w.mu.Unlock()
}

// appendLog adds a log line; false: too much waits already.
func (w *writer) appendLog(id uint32, level byte, text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.buffer)+w.writing > logBytesMax {
		return false
	}
	w.buffer = appendText(w.buffer, typeLog, id, level, text, logLineBytesMax)
	w.wake.Signal()
	return true
}

func (w *writer) run() {
	defer close(w.done)
	for {
		w.mu.Lock()
		for len(w.buffer) == 0 && !w.closed {
			w.wake.Wait()
		}
		if len(w.buffer) == 0 {
			w.mu.Unlock()
			return
		}
		out := w.buffer
		w.buffer, w.spare = w.spare[:0], nil
		w.writing = len(out)
		w.mu.Unlock()
		_, err := w.conn.Write(out)
		w.mu.Lock()
		w.writing = 0
		if cap(out) <= logBytesMax {
			w.spare = out
		}
		if err != nil {
			w.closed = true
			w.buffer = nil
		}
		w.mu.Unlock()
		w.cleared()
	}
}

// close ends the writer; what has been added is still written when the connection takes it within the time.
func (w *writer) close(wait time.Duration) {
	w.mu.Lock()
	w.closed = true
	w.wake.Signal()
	w.mu.Unlock()
	if wait > 0 {
		select {
		case <-w.done:
		case <-time.After(wait):
		}
	}
}
