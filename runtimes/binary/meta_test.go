package main

import (
	"sort"
	"strings"
	"testing"
)

func TestEachVariableIsGivenOnce(t *testing.T) {
	for _, row := range []struct {
		name    string
		headers []string
		want    string
	}{
		{"a repeated field", []string{"x-a", "1", "x-b", "2", "x-a", "3"}, "X_A=1, 3|X_B=2"},
		{"repeated cookies", []string{"cookie", "a=1", "cookie", "b=2"}, "COOKIE=a=1; b=2"},
		{"another spelling, before", []string{"x_a", "other", "x-a", "1", "x-a", "2"}, "X_A=1, 2"},
		{"another spelling, behind", []string{"x-a", "1", "x_a", "other", "x.a", "more"}, "X_A=1"},
		{"other spellings only", []string{"x_a", "1", "x.a", "2", "x_a", "3"}, "X_A=1, 3"},
		{
			"one of the agent's own",
			[]string{"shoal_request_id", "forged", "shoal-request-id", "r1", "shoal-protocol", "http"},
			"SHOAL_PROTOCOL=http|SHOAL_REQUEST_ID=r1",
		},
	} {
		var got []string
		for _, entry := range callEnv(&request{headers: row.headers}) {
			if strings.HasPrefix(entry, "SHOAL_HEADER_") {
				got = append(got, strings.TrimPrefix(entry, "SHOAL_HEADER_"))
			}
		}
		sort.Strings(got)
		if text := strings.Join(got, "|"); text != row.want {
			t.Errorf("%s: %s, not %s", row.name, text, row.want)
		}
	}
}

func TestAProgramThatStaysIsGivenEachFieldOnce(t *testing.T) {
	line := string(requestLine(1, &request{headers: []string{"cookie", "a=1", "x-a", "1", "cookie", "b=2", "x-a", "2"}}, 0))
	if !strings.Contains(line, `"headers":{"cookie":"a=1; b=2","x-a":"1, 2"}`) {
		t.Error(line)
	}
}
