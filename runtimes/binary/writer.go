package main

import (
	"fmt"
	"sync"
	"syscall"
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

// disown is for a call that has ended, whose id may be another's: of its lines that still wait nobody knows whose they are. The
// writer is that of its connection: if there is another one now, so are the calls with these ids.
func (l *logs) disown(id uint32, writer *writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writer != nil && l.writer != writer {
		return
	}
	for at := range l.kept {
		if l.kept[at].id == id {
			l.kept[at].id = 0
		}
	}
}

// attach sends lines to a writer from now on; nil: they wait.
func (l *logs) attach(w *writer) {
	l.mu.Lock()
	l.writer = w
	if w == nil {
		for at := range l.kept {
			l.kept[at].id = 0
		}
	}
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

// writer sends frames: whoever adds one also writes it when the agent takes it at once, else a goroutine of its own does, when
// there is room again.
type writer struct {
	mu     sync.Mutex
	wake   *sync.Cond
	socket int
	buffer []byte
	closed bool
	done   chan struct{}
	// called when the agent has taken what had to wait
	cleared func()
}

func newWriter(socket int, cleared func()) *writer {
	w := &writer{socket: socket, done: make(chan struct{}), cleared: cleared}
	w.wake = sync.NewCond(&w.mu)
	go w.run()
	return w
}

// add lets `encode` append frames.
func (w *writer) add(encode func(out []byte) []byte) {
	w.mu.Lock()
	if !w.closed {
		waits := len(w.buffer) > 0
		w.buffer = encode(w.buffer)
		if !waits {
			w.flush()
		}
	}
	w.mu.Unlock()
}

// appendLog adds a log line; false: too much waits already.
func (w *writer) appendLog(id uint32, level byte, text string) bool {
	w.mu.Lock()
	full := w.closed || len(w.buffer) > logBytesMax
	w.mu.Unlock()
	if full {
		return false
	}
	w.add(func(out []byte) []byte { return appendText(out, typeLog, id, level, text, logLineBytesMax) })
	return true
}

// flush writes what the agent takes at once, and wakes the goroutine for the rest. The lock must be held.
func (w *writer) flush() {
	sent := 0
	for sent < len(w.buffer) {
		n, err := syscall.Write(w.socket, w.buffer[sent:])
		if n > 0 {
			sent += n
		} else if err == syscall.EAGAIN {
			break
		} else if err != syscall.EINTR {
			w.closed = true
			sent = len(w.buffer)
		}
	}
	rest := copy(w.buffer, w.buffer[sent:])
	w.buffer = w.buffer[:rest]
	if rest == 0 && cap(w.buffer) > logBytesMax {
		w.buffer = nil
	}
	if rest > 0 || w.closed {
		w.wake.Signal()
	}
}

// run waits for room when there was none.
func (w *writer) run() {
	defer close(w.done)
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.buffer) == 0 && !w.closed {
			w.wake.Wait()
		}
		if len(w.buffer) == 0 {
			return
		}
		w.mu.Unlock()
		polled := []pollFd{{fd: int32(w.socket), events: pollOut}}
		_, _ = poll(polled, -1)
		w.mu.Lock()
		w.flush()
		if len(w.buffer) == 0 && !w.closed {
			w.mu.Unlock()
			w.cleared()
			w.mu.Lock()
		}
	}
}

// close ends the writer; what has been added is still written when the agent takes it within the time.
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
