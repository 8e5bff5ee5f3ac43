package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func TestAProgramIsSignalledBeforeItHasItsGroup(t *testing.T) {
	command := exec.Command("sleep", "10")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{owner: &processes{}, pid: command.Process.Pid}
	c.claimed = true
	c.signal(syscall.SIGKILL)
	c.claimed = false
	c.signal(syscall.SIGTERM)
	_ = command.Wait()
	// The first would have come first.
	if status, _ := command.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
		t.Errorf("ended by %v", command.ProcessState)
	}
}

// Its environment reads as empty for a moment of each exec, and it is never at rest.
func TestSweepFindsAProgramThatKeepsReplacingItself(t *testing.T) {
	script := filepath.Join(t.TempDir(), "again")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec \"$0\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	missed := 0
	for round := 0; round < 200; round++ {
		entry := "SWEPT=" + strconv.Itoa(round)
		command := exec.Command(script)
		command.Env = append(os.Environ(), entry)
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- command.Wait() }()
		time.Sleep(time.Duration(round%7) * time.Millisecond)
		sweep(entry)
		select {
		case <-ended:
		case <-time.After(time.Second):
			missed++
			_ = command.Process.Kill()
			<-ended
		}
	}
	if missed > 0 {
		t.Errorf("%d of 200 lived on", missed)
	}
}
