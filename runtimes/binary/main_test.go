package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unsafe"
)

type frameVector struct {
	Name   string
	Type   string
	End    bool
	ID     uint32
	Fields struct {
		DeadlineMs uint32
		Method     string
		Path       string
		Query      string
		Headers    []string
		Status     int
		BodyHex    string
		Bytes      int
		Kind       byte
		Level      byte
		Text       string
	}
	Hex string
}

type streamVector struct {
	Name     string
	Receiver string
	Local    bool
	Error    *string
	Hex      string
}

func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	out, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var typeNumbers = map[string]byte{
	"HELLO": typeHello, "WELCOME": typeWelcome, "INIT": typeInit, "READY": typeReady, "SHUTDOWN": typeShutdown,
	"REQUEST": typeRequest, "RESPONSE": typeResponse, "DATA": typeData, "WINDOW": typeWindow,
	"CANCEL": typeCancel, "ERROR": typeError, "LOG": typeLog, "PING": typePing, "PONG": typePong,
}

// slowReader gives a stream in parts of random size.
type slowReader struct {
	rest   []byte
	random *rand.Rand
}

func (r *slowReader) Read(into []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(into[:smaller(len(into), 1+r.random.Intn(20))], r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func readFrame(from io.Reader) (frame, error) {
	in := newFrameBuffer()
	for {
		if f, ok, err := in.next(payloadBytesMax); ok || err != nil {
			return f, err
		}
		n, err := from.Read(in.room())
		if err != nil {
			return frame{}, err
		}
		in.add(n)
	}
}

func TestFramesAreRead(t *testing.T) {
	var vectors []frameVector
	readVectors(t, "frames.json", &vectors)
	if len(vectors) < 20 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	random := rand.New(rand.NewSource(1))
	for _, vector := range vectors {
		stream := unhex(t, vector.Hex)
		f, err := readFrame(&slowReader{stream, random})
		if err != nil {
			t.Fatalf("%s: %v", vector.Name, err)
		}
		if f.kind != typeNumbers[vector.Type] || f.id != vector.ID || f.end() != vector.End {
			t.Errorf("%s: read as %+v", vector.Name, f)
		}
		if err := checkPayload(&f); err != nil {
			t.Errorf("%s: %v", vector.Name, err)
		}
		if vector.Type != "REQUEST" {
			continue
		}
		request, err := parseRequest(f.payload)
		if err != nil {
			t.Fatalf("%s: %v", vector.Name, err)
		}
		fields := vector.Fields
		if request.deadlineMs != fields.DeadlineMs || request.method != fields.Method ||
			request.path != fields.Path || request.query != fields.Query ||
			!bytes.Equal(request.body, unhex(t, fields.BodyHex)) ||
			strings.Join(request.headers, "|") != strings.Join(fields.Headers, "|") {
			t.Errorf("%s: request read as %+v", vector.Name, request)
		}
	}
}

func TestFramesAreWritten(t *testing.T) {
	var vectors []frameVector
	readVectors(t, "frames.json", &vectors)
	written := 0
	for _, vector := range vectors {
		fields := vector.Fields
		body := unhex(t, fields.BodyHex)
		var flags byte
		if vector.End {
			flags = flagEnd
		}
		var out []byte
		switch vector.Type {
		case "RESPONSE":
			out = appendResponse(nil, flags, vector.ID, fields.Status, strings.Join(fields.Headers, "\n"), body)
		case "DATA", "PONG":
			out = appendFrame(nil, typeNumbers[vector.Type], flags, vector.ID, body)
		case "WINDOW":
			out = appendWindow(nil, vector.ID, fields.Bytes)
		case "ERROR":
			out = appendText(nil, typeError, vector.ID, fields.Kind, fields.Text, textBytesMax)
		case "LOG":
			out = appendText(nil, typeLog, vector.ID, fields.Level, fields.Text, logLineBytesMax)
		default:
			continue
		}
		written++
		if hex.EncodeToString(out) != vector.Hex {
			t.Errorf("%s: written as %x", vector.Name, out)
		}
	}
	if written < 10 {
		t.Fatalf("only %d vectors", written)
	}
}

func TestLocalErrorsAreSeen(t *testing.T) {
	var vectors []streamVector
	readVectors(t, "streams.json", &vectors)
	seen := 0
	for _, vector := range vectors {
		if !vector.Local || vector.Receiver != "runner" || vector.Error == nil {
			continue
		}
		seen++
		f, err := readFrame(bytes.NewReader(unhex(t, vector.Hex)))
		if err == nil {
			err = checkPayload(&f)
		}
		if err == nil && f.kind == typeRequest {
			_, err = parseRequest(f.payload)
		}
		var wrong *protocolError
		if !errors.As(err, &wrong) || wrong.code != *vector.Error {
			t.Errorf("%s: %v", vector.Name, err)
		}
	}
	if seen < 5 {
		t.Fatalf("only %d vectors", seen)
	}
}

func TestTextIsCutBetweenCharacters(t *testing.T) {
	if got := cut("abc", 3); got != "abc" {
		t.Errorf("%q", got)
	}
	if got := cut("aüüü", 6); got != "aü..." {
		t.Errorf("%q", got)
	}
	if got := cut("a\xffb", 10); got != "a\uFFFDb" {
		t.Errorf("%q", got)
	}
}

func TestHeadOfTheAnswer(t *testing.T) {
	for _, row := range []struct {
		name   string
		writes []string
		status int
		head   string
		over   bool
		wrong  bool
	}{
		{"nothing", nil, 200, "", false, false},
		{"status and a header, split anywhere", []string{"Sta", "tus: 404 Not Found\nX-A:  b\n"}, 404, "x-a\nb", false, false},
		{"last line without its end", []string{"x-a: b"}, 200, "x-a\nb", false, false},
		{"an empty line begins the answer", []string{"x-a: b\r\n\r\nx-late: c\n"}, 200, "x-a\nb", true, false},
		{"no colon", []string{"hello\n"}, 200, "", false, true},
		{"no name", []string{": b\n"}, 200, "", false, true},
		{"a line end in a value", []string{"x-a: b\rc: d\n"}, 200, "", false, true},
		{"status out of range", []string{"status: 99\n"}, 200, "", false, true},
		{"too much", []string{strings.Repeat("x: "+strings.Repeat("y", 1000)+"\n", 70)}, 200, "", false, true},
	} {
		m := &meta{}
		over := false
		for _, each := range row.writes {
			over = m.write([]byte(each)) || over
		}
		status, head, err := m.head()
		if (err != nil) != row.wrong || over != row.over {
			t.Errorf("%s: over %v, error %v", row.name, over, err)
		}
		if err == nil && (status != row.status || head != row.head) {
			t.Errorf("%s: %d %q", row.name, status, head)
		}
	}
}

func TestEnvironmentOfACall(t *testing.T) {
	r := &request{method: "PUT", path: "/a", query: "b=1", deadlineMs: 5, headers: []string{
		"content-type", "text/plain", "shoal-request-id", "r1", "shoal-protocol", "coap",
	}}
	env := callEnv(r)
	for _, want := range []string{
		"SHOAL_METHOD=PUT", "SHOAL_PATH=/a", "SHOAL_QUERY=b=1", "SHOAL_REQUEST_ID=r1",
		"SHOAL_PROTOCOL=coap", "SHOAL_DEADLINE_MS=5", "SHOAL_CONTENT_TYPE=text/plain", "SHOAL_META_FD=3",
		"SHOAL_HEADER_CONTENT_TYPE=text/plain",
	} {
		if !contains(env, want) {
			t.Errorf("%s is missing in %q", want, env)
		}
	}
}

func contains(list []string, wanted string) bool {
	for _, each := range list {
		if each == wanted {
			return true
		}
	}
	return false
}

func TestWhatIsStarted(t *testing.T) {
	for _, row := range []struct {
		name  string
		files map[string]string
		modes map[string]os.FileMode
		entry string
		want  []string
		wrong string
	}{
		{"fn.sh", map[string]string{"fn.sh": "#!/bin/sh\n", "x": "#!/bin/sh\n"}, nil, "", []string{"fn.sh"}, ""},
		{"fn.sh that lost its executable bit", map[string]string{"fn.sh": "#!/bin/sh -e\n"},
			map[string]os.FileMode{"fn.sh": 0o644}, "", []string{"/bin/sh", "-e", "fn.sh"}, ""},
		{"a script without its first line", map[string]string{"a": "echo\n"}, nil, "", []string{"/bin/sh", "a"}, ""},
		{"the entry", map[string]string{"a": "#!/bin/sh\n", "b": "#!/bin/sh\n"}, nil, "b", []string{"b"}, ""},
		{"an entry that is missing", nil, nil, "b", nil, "is not a file"},
		{"nothing", nil, nil, "", nil, "no function found"},
		{"two", map[string]string{"a": "#!/bin/sh\n", "b": "#!/bin/sh\n"}, nil, "", nil, "a, b are executable"},
		{"an interpreter that is missing", map[string]string{"a": "#!/no/such\n"}, nil, "", nil, "/no/such is not there"},
		{"a program that lost its executable bit", map[string]string{"a": "\x7fELF"},
			map[string]os.FileMode{"a": 0o644}, "", nil, "chmod"},
	} {
		dir := t.TempDir()
		for name, text := range row.files {
			mode := os.FileMode(0o755)
			if own, ok := row.modes[name]; ok {
				mode = own
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
				t.Fatal(err)
			}
		}
		argv, err := findProgram(dir, row.entry)
		if row.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), row.wrong) {
				t.Errorf("%s: %v", row.name, err)
			}
			continue
		}
		if len(argv) > 0 {
			argv[len(argv)-1] = strings.TrimPrefix(argv[len(argv)-1], dir+"/")
		}
		if err != nil || !reflect.DeepEqual(argv, row.want) {
			t.Errorf("%s: %q %v", row.name, argv, err)
		}
	}
}

func TestLogLinesAreBounded(t *testing.T) {
	l := &logs{}
	for at := 0; at < logLinesMax+50; at++ {
		l.line(0, levelInfo, "x")
	}
	if len(l.kept) != logLinesMax || l.dropped != 50 {
		t.Errorf("%d kept, %d dropped", len(l.kept), l.dropped)
	}
	for at := 0; at < 200; at++ {
		l.line(0, levelInfo, strings.Repeat("y", 2*logLineBytesMax))
	}
	if l.bytes > logBytesMax {
		t.Errorf("%d bytes kept", l.bytes)
	}
}

func TestAnswersOfProgramsThatStay(t *testing.T) {
	for _, row := range []struct {
		line  string
		want  answerLine
		wrong bool
	}{
		{"7 100\n", answerLine{7, 100, ""}, false},
		{"7 0 {\"status\": 201}\r\n", answerLine{7, 0, "{\"status\": 201}"}, false},
		{"7\n", answerLine{}, true},
		{"hello world\n", answerLine{}, true},
		{"7 -1\n", answerLine{}, true},
		{"-7 1\n", answerLine{}, true},
		{"7 1x\n", answerLine{}, true},
		{"7 99999999\n", answerLine{}, true},
		{"99999999999999999999999 1\n", answerLine{}, true},
	} {
		got, err := parseAnswerLine(row.line)
		if (err != nil) != row.wrong || (err == nil && got != row.want) {
			t.Errorf("%q: %+v %v", row.line, got, err)
		}
	}
	for _, row := range []struct {
		about   string
		status  int
		head    string
		failure string
		wrong   bool
	}{
		{"", 200, "", "", false},
		{`{"status": 404, "headers": {"X-A": "b"}}`, 404, "x-a\nb", "", false},
		{`{"error": "no"}`, 0, "", "no", false},
		{`{"error": ""}`, 0, "", "the program failed and did not say why", false},
		{`{"status": 99}`, 0, "", "", true},
		{`{"stauts": 200}`, 0, "", "", true},
		{`{"headers": {"x y": "b"}}`, 0, "", "", true},
		{`{"headers": {"x-a": "b\nstatus: 500"}}`, 0, "", "", true},
		{`hello`, 0, "", "", true},
	} {
		status, head, failure, err := parseAbout(row.about)
		if (err != nil) != row.wrong {
			t.Errorf("%s: %v", row.about, err)
		}
		if err == nil && (status != row.status || head != row.head || failure != row.failure) {
			t.Errorf("%s: %d %q %q", row.about, status, head, failure)
		}
	}
}

func TestStringsForTheKernel(t *testing.T) {
	got := cStrings([]string{"a=1", "", "x=a\x00b"})
	if len(got) != 4 || got[3] != nil {
		t.Fatalf("%d pointers", len(got))
	}
	for at, want := range []string{"a=1", "", "x=ab"} {
		if text := cString(got[at]); text != want {
			t.Errorf("%q, not %q", text, want)
		}
	}
}

func cString(start *byte) string {
	var text []byte
	for at := unsafe.Pointer(start); *(*byte)(at) != 0; at = unsafe.Add(at, 1) {
		text = append(text, *(*byte)(at))
	}
	return string(text)
}
