package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// End of stderr that an error carries.
const errorTailBytes = 4096

// stderrLog logs what a program writes to stderr line by line, and keeps its end for the text of an error.
type stderrLog struct {
	logs *logs
	tail bytes.Buffer
	line []byte
}

// add takes what came; id is the call that it belongs to, or 0.
func (s *stderrLog) add(id uint32, data []byte, last bool) {
	s.tail.Write(data)
	if s.tail.Len() > 2*errorTailBytes {
		s.tail.Next(s.tail.Len() - errorTailBytes)
	}
	for len(data) > 0 {
		at := bytes.IndexByte(data, '\n')
		if at < 0 {
			s.line = append(s.line, data...)
			break
		}
		s.line = append(s.line, data[:at]...)
		s.logs.line(id, levelError, strings.TrimSuffix(string(s.line), "\r"))
		s.line, data = s.line[:0], data[at+1:]
	}
	if len(s.line) > logLineBytesMax || (last && len(s.line) > 0) {
		s.logs.line(id, levelError, string(s.line))
		s.line = s.line[:0]
	}
}

// endText says how a program ended, and what it said last.
func (s *stderrLog) endText(status syscall.WaitStatus) string {
	text := "exit status " + strconv.Itoa(status.ExitStatus())
	if status.Signaled() {
		text = fmt.Sprintf("the program was ended by signal %d (%s)", int(status.Signal()), status.Signal())
	}
	tail := s.tail.Bytes()
	if len(tail) > errorTailBytes {
		tail = tail[len(tail)-errorTailBytes:]
	}
	if len(tail) > 0 {
		// The last line in front: callers see the first line of an error, and a program says last what was wrong.
		text += ": " + lastLine(tail) + "\n" + string(tail)
	}
	return strings.TrimRight(text, "\n")
}

func lastLine(text []byte) string {
	trimmed := bytes.TrimRight(text, "\r\n")
	return string(trimmed[bytes.LastIndexByte(trimmed, '\n')+1:])
}
