package main

import (
	"io"
	"syscall"
	"testing"
)

// A process that the program has left behind may hold any of its pipes for a moment after it was killed.
func TestNothingIsLostOfPipesThatSomebodyStillHolds(t *testing.T) {
	p, err := openPipes(callOf(t, &request{}, true))
	if err != nil {
		t.Fatal(err)
	}
	output := []string{"answer", "complaint", "head"}
	for at, text := range output {
		if _, err := syscall.Write(p.children[1+at], []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	closeFd(&p.children[1])
	closeFd(&p.children[2])
	if _, _, _, whole := p.left(nil); whole {
		t.Error("the descriptor for the head is open, and nobody waits for more")
	}
	p.closeChildren()
	for at, fd := range []*int{&p.stdout, &p.stderr, &p.meta} {
		file := takeFile(fd)
		got, err := io.ReadAll(file)
		_ = file.Close()
		if err != nil || string(got) != output[at] {
			t.Errorf("%q is left of %q, error %v", got, output[at], err)
		}
	}
}
