package main

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Frame types of the runner protocol.
const (
	typeHello    = 0x01
	typeWelcome  = 0x02
	typeInit     = 0x03
	typeReady    = 0x04
	typeShutdown = 0x05
	typeRequest  = 0x10
	typeResponse = 0x11
	typeData     = 0x12
	typeWindow   = 0x13
	typeCancel   = 0x14
	typeError    = 0x15
	typeLog      = 0x20
	typePing     = 0x30
	typePong     = 0x31
)

const (
	flagEnd = 0x01

	kindFunction  = 0
	kindNotReady  = 1
	kindBadAnswer = 2
	kindCancelled = 3
	kindLimit     = 4
	kindExited    = 5

	levelInfo  = 1
	levelWarn  = 2
	levelError = 3

	prefixBytes       = 12
	payloadBytesMax   = 1114112
	statusMin         = 200
	statusMax         = 599
	headBytesMax      = 65535
	windowBytes       = 262144
	frameBodyBytesMax = 1048576
	textBytesMax      = 16384
	logLineBytesMax   = 16384
	logLinesMax       = 1000
	logBytesMax       = 1048576
	pingBytesMax      = 64
	readBufferBytes   = 262144
)

// protocolError says that the other side broke the protocol: the connection is closed. Its code is a word of
// ../vectors/streams.json.
type protocolError struct {
	code string
	text string
}

func (e *protocolError) Error() string { return e.code + ": " + e.text }

func broken(code, format string, values ...any) error {
	return &protocolError{code, fmt.Sprintf(format, values...)}
}

type frame struct {
	kind    byte
	flags   byte
	id      uint32
	payload []byte
}

func (f *frame) end() bool { return f.flags&flagEnd != 0 }

// frameBuffer cuts what is read into frames.
type frameBuffer struct {
	bytes    []byte
	from, to int
}

func newFrameBuffer() *frameBuffer { return &frameBuffer{bytes: make([]byte, readBufferBytes)} }

// room is where more can be read to; `add` says how much was. To be called when `next` has no frame any more.
func (b *frameBuffer) room() []byte {
	if b.from == b.to {
		b.from, b.to = 0, 0
	}
	if len(b.bytes)-b.to < readBufferBytes/4 {
		held := b.bytes[b.from:b.to]
		if len(held) > len(b.bytes)/2 {
			b.bytes = make([]byte, 2*len(b.bytes))
		}
		b.from, b.to = 0, copy(b.bytes, held)
	}
	return b.bytes[b.to:]
}

func (b *frameBuffer) add(bytes int) { b.to += bytes }

// next is the next frame that is there completely; its payload is the caller's.
func (b *frameBuffer) next(bytesMax uint32) (frame, bool, error) {
	held := b.bytes[b.from:b.to]
	if len(held) < prefixBytes {
		return frame{}, false, nil
	}
	size := binary.BigEndian.Uint32(held)
	if size > bytesMax {
		return frame{}, false, broken("FRAME_TOO_LARGE", "a frame of %d bytes", size)
	}
	end := prefixBytes + int(size)
	if len(held) < end {
		return frame{}, false, nil
	}
	b.from += end
	payload := append([]byte(nil), held[prefixBytes:end]...)
	return frame{held[4], held[5], binary.BigEndian.Uint32(held[8:]), payload}, true, nil
}

func appendPrefix(out []byte, kind, flags byte, id uint32, size int) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(size))
	out = append(out, kind, flags, 0, 0)
	return binary.BigEndian.AppendUint32(out, id)
}

func appendFrame(out []byte, kind, flags byte, id uint32, payload []byte) []byte {
	return append(appendPrefix(out, kind, flags, id, len(payload)), payload...)
}

func appendWindow(out []byte, id uint32, bytes int) []byte {
	return binary.BigEndian.AppendUint32(appendPrefix(out, typeWindow, 0, id, 4), uint32(bytes))
}

func appendResponse(out []byte, flags byte, id uint32, status int, head string, body []byte) []byte {
	out = appendPrefix(out, typeResponse, flags, id, 4+len(head)+len(body))
	out = binary.BigEndian.AppendUint16(out, uint16(status))
	out = binary.BigEndian.AppendUint16(out, uint16(len(head)))
	return append(append(out, head...), body...)
}

// appendText appends an ERROR or a LOG: one byte, then text.
func appendText(out []byte, kind byte, id uint32, first byte, text string, bytesMax int) []byte {
	text = cut(text, bytesMax)
	out = append(appendPrefix(out, kind, 0, id, 1+len(text)), first)
	return append(out, text...)
}

// cut returns text as valid UTF-8 of at most bytesMax bytes, cut at the end with "...".
func cut(text string, bytesMax int) string {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	if len(text) <= bytesMax {
		return text
	}
	end := bytesMax - 3
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "..."
}

// request is a REQUEST, its head split into fields.
type request struct {
	deadlineMs uint32
	method     string
	path       string
	query      string
	headers    []string
	body       []byte
}

func parseRequest(payload []byte) (*request, error) {
	if len(payload) < 6 {
		return nil, broken("PAYLOAD_TOO_SHORT", "REQUEST")
	}
	end := 6 + int(binary.BigEndian.Uint16(payload[4:]))
	if end > len(payload) {
		return nil, broken("PAYLOAD_TOO_SHORT", "REQUEST")
	}
	lines := strings.Split(string(payload[6:end]), "\n")
	if len(lines) < 3 || len(lines)%2 == 0 {
		return nil, broken("HEAD_MALFORMED", "a request head of %d lines", len(lines))
	}
	return &request{
		deadlineMs: binary.BigEndian.Uint32(payload),
		method:     lines[0],
		path:       lines[1],
		query:      lines[2],
		headers:    lines[3:],
		body:       payload[end:],
	}, nil
}

func (r *request) header(name string) string {
	for at := 0; at+1 < len(r.headers); at += 2 {
		if r.headers[at] == name {
			return r.headers[at+1]
		}
	}
	return ""
}

// checkPayload refuses what the payload of a single frame shows to be wrong.
func checkPayload(f *frame) error {
	switch f.kind {
	case typeWindow:
		if len(f.payload) < 4 {
			return broken("PAYLOAD_TOO_SHORT", "WINDOW")
		}
	case typeCancel:
		if len(f.payload) < 1 {
			return broken("PAYLOAD_TOO_SHORT", "CANCEL")
		}
	case typePing:
		if len(f.payload) > pingBytesMax {
			return broken("PAYLOAD_TOO_LONG", "a ping of %d bytes", len(f.payload))
		}
	}
	return nil
}
