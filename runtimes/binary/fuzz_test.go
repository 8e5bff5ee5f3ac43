package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand"
	"strings"
	"testing"
)

// What the other side of the socket, or a program, may send is anything. Seeds are the vectors that all runners share; with
// `go test` only these run, with `go test -fuzz` the machine looks for more (see CONTRIBUTING.md).

func seedStreams(f *testing.F, add func(stream []byte)) {
	var frames []frameVector
	readVectors(f, "frames.json", &frames)
	var streams []streamVector
	readVectors(f, "streams.json", &streams)
	for _, vector := range frames {
		add(unhex(f, vector.Hex))
	}
	for _, vector := range streams {
		add(unhex(f, vector.Hex))
	}
	if len(frames) < 20 || len(streams) < 20 {
		f.Fatalf("only %d and %d vectors", len(frames), len(streams))
	}
}

// readAllFrames reads until there is no whole frame any more, or one that is wrong.
func readAllFrames(from io.Reader) (frames []frame, wrong string) {
	in := newFrameBuffer()
	for {
		f, ok, err := in.next(payloadBytesMax)
		var broke *protocolError
		if errors.As(err, &broke) {
			return frames, broke.code
		}
		if ok {
			frames = append(frames, f)
			continue
		}
		n, err := from.Read(in.room())
		if err != nil {
			return frames, ""
		}
		in.add(n)
	}
}

func FuzzFrames(f *testing.F) {
	var all []byte
	seedStreams(f, func(stream []byte) {
		f.Add(stream, int64(len(all)))
		all = append(all, stream...)
	})
	f.Add(all, int64(1))
	f.Fuzz(func(t *testing.T, stream []byte, seed int64) {
		frames, wrong := readAllFrames(bytes.NewReader(stream))
		cut, wrongCut := readAllFrames(&slowReader{stream, rand.New(rand.NewSource(seed))})
		if wrong != wrongCut || len(frames) != len(cut) {
			t.Fatalf("%d frames and %q at once, %d and %q in pieces", len(frames), wrong, len(cut), wrongCut)
		}
		at := 0
		for i, one := range frames {
			again := appendFrame(nil, one.kind, one.flags, one.id, one.payload)
			// Two bytes of each prefix are kept for later.
			copy(again[6:8], stream[at+6:])
			if !bytes.Equal(again, stream[at:at+len(again)]) || !bytes.Equal(one.payload, cut[i].payload) {
				t.Fatalf("frame %d is not what was sent", i)
			}
			at += len(again)
			// Neither may panic, whatever it says.
			_ = checkPayload(&one)
			_, _ = parseRequest(one.payload)
		}
		if wrong == "" && len(stream)-at >= prefixBytes {
			if size := int(binary.BigEndian.Uint32(stream[at:])); len(stream)-at >= prefixBytes+size {
				t.Fatalf("a whole frame of %d bytes was left", size)
			}
		}
	})
}

func FuzzRequest(f *testing.F) {
	seedStreams(f, func(stream []byte) {
		if one, err := readFrame(bytes.NewReader(stream)); err == nil && one.kind == typeRequest {
			f.Add(one.payload)
		}
	})
	f.Fuzz(func(t *testing.T, payload []byte) {
		r, err := parseRequest(payload)
		var broke *protocolError
		if err != nil {
			if !errors.As(err, &broke) {
				t.Fatalf("%v is no error of the protocol", err)
			}
			return
		}
		lines := append([]string{r.method, r.path, r.query}, r.headers...)
		head := strings.Join(lines, "\n")
		again := binary.BigEndian.AppendUint32(nil, r.deadlineMs)
		again = binary.BigEndian.AppendUint16(again, uint16(len(head)))
		if again = append(append(again, head...), r.body...); !bytes.Equal(again, payload) {
			t.Fatalf("read as %+v", r)
		}
		// A header's name may be anything, a variable's may not.
		for _, entry := range callEnv(r) {
			name, _, found := strings.Cut(entry, "=")
			if !found || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
				t.Fatalf("%q in the environment", entry)
			}
		}
		if line := requestLine(1, r, len(r.body)); bytes.Count(line, []byte("\n")) != 1 {
			t.Fatalf("%q is not one line", line)
		}
	})
}

func FuzzHeadOfTheAnswer(f *testing.F) {
	for _, seed := range []string{
		"", "Status: 404 Not Found\nX-A:  b\n", "x-a: b\r\n\r\nx-late: c\n", "hello\n", ": b\n", "x-a: b\rc: d\n", "status: 99\n",
	} {
		f.Add([]byte(seed), 3)
	}
	f.Fuzz(func(t *testing.T, text []byte, at int) {
		if at < 0 || at > len(text) {
			at = len(text) / 2
		}
		whole, pieces := &meta{}, &meta{}
		whole.write(text)
		pieces.write(text[:at])
		pieces.write(text[at:])
		status, head, err := whole.head()
		statusCut, headCut, errCut := pieces.head()
		if status != statusCut || head != headCut || (err == nil) != (errCut == nil) {
			t.Fatalf("%d %q %v at once, %d %q %v in pieces", status, head, err, statusCut, headCut, errCut)
		}
		if err != nil {
			return
		}
		lines := strings.Count(head, "\n") + 1
		if status < 200 || status > 599 || len(head) > headBytesMax || strings.ContainsAny(head, "\r\x00") || head != "" && lines%2 != 0 {
			t.Fatalf("%d %q", status, head)
		}
	})
}

func FuzzAnswerOfAProgramThatStays(f *testing.F) {
	for _, seed := range []string{"1 5", "1 5 {}", "2 0 {\"status\":404,\"headers\":{\"x-a\":\"b\"}}", "3 0 {\"error\":\"no\"}", "4 0 {\"error\":\"\"}", "x", "1 -1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		a, err := parseAnswerLine(line)
		if err != nil {
			return
		}
		if a.bytes < 0 || a.bytes > stayBodyBytesMax {
			t.Fatalf("a body of %d bytes", a.bytes)
		}
		status, head, failure, err := parseAbout(a.about)
		if err == nil && failure == "" && (status < 200 || status > 599 || strings.ContainsAny(head, "\r\x00")) {
			t.Fatalf("%d %q", status, head)
		}
	})
}
