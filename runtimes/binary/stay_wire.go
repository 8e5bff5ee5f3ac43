package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// requestLine is what stands in front of a call's body: the runner's number for it, the body's bytes, and the rest as JSON.
func requestLine(id uint64, r *request, bytes int) []byte {
	about := marshal(map[string]any{
		"method": r.method, "path": r.path, "query": r.query, "deadlineMs": r.deadlineMs, "headers": folded(r.headers),
	})
	return []byte(fmt.Sprintf("%d %d %s\n", id, bytes, about))
}

// answerLine is what a program says in front of an answer's body.
type answerLine struct {
	id    uint64
	bytes int
	// JSON, or empty
	about string
}

func parseAnswerLine(line string) (answerLine, error) {
	var a answerLine
	words := strings.SplitN(strings.TrimRight(line, "\r\n"), " ", 3)
	if len(words) >= 2 {
		_, err := fmt.Sscanf(words[0]+" "+words[1]+"\n", "%d %d\n", &a.id, &a.bytes)
		if err == nil && a.bytes >= 0 && a.bytes <= stayBodyBytesMax {
			if len(words) == 3 {
				a.about = words[2]
			}
			return a, nil
		}
	}
	return a, fmt.Errorf("the program wrote %q, which is no line `id bytes` (at most %d bytes)", cut(line, 200), stayBodyBytesMax)
}

// parseAbout reads the JSON of an answer: status and head, or the error's text, which is never empty.
func parseAbout(about string) (status int, head string, failure string, err error) {
	said := struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Error   *string           `json:"error"`
	}{Status: 200}
	if about != "" {
		in := json.NewDecoder(strings.NewReader(about))
		in.DisallowUnknownFields()
		if err := in.Decode(&said); err != nil && err != io.EOF {
			return 0, "", "", fmt.Errorf("the program said %q of its answer: %v", cut(about, 200), err)
		}
	}
	if said.Error != nil {
		if *said.Error == "" {
			return 0, "", "the program failed and did not say why", nil
		}
		return 0, "", *said.Error, nil
	}
	m := &meta{}
	m.write([]byte(fmt.Sprintf("status: %d\n", said.Status)))
	for name, value := range said.Headers {
		if strings.ContainsAny(value, "\r\n") {
			return 0, "", "", fmt.Errorf("the program gave the header %q a line feed", name)
		}
		m.write([]byte(name + ": " + value + "\n"))
	}
	status, head, err = m.head()
	return status, head, "", err
}
