package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// meta is what a program says about its answer on descriptor 3: lines `Status: 404` or `Name: value`. An empty line ends it:
// the answer begins at once, and the output is streamed.
type meta struct {
	rest   []byte
	status int
	lines  []string
	bytes  int
	over   bool
	err    error
}

// write takes what came; true: the empty line came.
func (m *meta) write(data []byte) bool {
	if m.over || m.err != nil {
		return m.over
	}
	m.rest = append(m.rest, data...)
	for !m.over && m.err == nil {
		at := bytes.IndexByte(m.rest, '\n')
		if at < 0 {
			if len(m.rest) > headBytesMax {
				m.err = fmt.Errorf("a line above %d bytes on descriptor %d", headBytesMax, metaFd)
			}
			break
		}
		m.line(strings.TrimSuffix(string(m.rest[:at]), "\r"))
		m.rest = m.rest[at+1:]
	}
	return m.over
}

func (m *meta) line(line string) {
	if line == "" {
		m.over = true
		return
	}
	name, value, found := strings.Cut(line, ":")
	name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
	if !found || !isToken(name) || strings.ContainsAny(value, "\r\x00") {
		m.err = fmt.Errorf("on descriptor %d the program wrote %q, which is no line `Name: value`", metaFd, line)
		return
	}
	if name == "status" {
		word, _, _ := strings.Cut(value, " ")
		status, err := strconv.Atoi(word)
		if err != nil || status < statusMin || status > statusMax {
			m.err = fmt.Errorf("the program answered with status %q; it must be %d to %d", value, statusMin, statusMax)
			return
		}
		m.status = status
		return
	}
	m.bytes += len(name) + len(value) + 2
	if m.bytes > headBytesMax {
		m.err = fmt.Errorf("the program's headers are above %d bytes", headBytesMax)
		return
	}
	m.lines = append(m.lines, name, value)
}

// head is status and head of the answer.
func (m *meta) head() (int, string, error) {
	if len(m.rest) > 0 && !m.over {
		m.write([]byte{'\n'})
	}
	if m.status == 0 {
		m.status = 200
	}
	return m.status, strings.Join(m.lines, "\n"), m.err
}

func isToken(name string) bool {
	for _, each := range []byte(name) {
		if !strings.ContainsRune("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz", rune(each)) {
			return false
		}
	}
	return name != ""
}

// callEnv is one call's own part of the environment.
func callEnv(r *request) []string {
	out := append(make([]string, 0, 10+len(r.headers)/2),
		"SHOAL_METHOD="+r.method,
		"SHOAL_PATH="+r.path,
		"SHOAL_QUERY="+r.query,
		"SHOAL_REQUEST_ID="+r.header("shoal-request-id"),
		"SHOAL_PROTOCOL="+r.header("shoal-protocol"),
		"SHOAL_DEADLINE_MS="+strconv.FormatUint(uint64(r.deadlineMs), 10),
		"SHOAL_CONTENT_TYPE="+r.header("content-type"),
		"SHOAL_META_FD="+strconv.Itoa(metaFd),
	)
	first := len(out)
	var owners []string
	places := make(map[string]int, len(r.headers)/2)
	for at := 0; at+1 < len(r.headers); at += 2 {
		header, value := r.headers[at], r.headers[at+1]
		name := envName(header)
		place, taken := places[name]
		switch {
		case !taken:
			places[name] = len(out)
			owners = append(owners, header)
			out = append(out, "SHOAL_HEADER_"+name+"="+value)
		case owners[place-first] == header:
			out[place] += separator(header) + value
		case isUsual(header):
			// Of x-a and x_a the former counts: no caller gets round a field that the agent, or a proxy before it, has set.
			owners[place-first] = header
			out[place] = "SHOAL_HEADER_" + name + "=" + value
		}
	}
	return out
}

// isUsual: no other usual name has the same variable.
func isUsual(header string) bool {
	return strings.Trim(header, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// folded is header fields by name; those that came more than once are joined.
func folded(headers []string) map[string]string {
	out := make(map[string]string, len(headers)/2)
	for at := 0; at+1 < len(headers); at += 2 {
		name, value := headers[at], headers[at+1]
		if before, twice := out[name]; twice {
			value = before + separator(name) + value
		}
		out[name] = value
	}
	return out
}

// separator joins fields of the same name: RFC 9110 section 5.3, of cookies RFC 9113 section 8.2.3.
func separator(header string) string {
	if header == "cookie" {
		return "; "
	}
	return ", "
}

func envName(header string) string {
	return strings.Map(func(each rune) rune {
		switch {
		case each >= 'a' && each <= 'z':
			return each - 'a' + 'A'
		case each >= 'A' && each <= 'Z', each >= '0' && each <= '9':
			return each
		default:
			return '_'
		}
	}, header)
}
