package main

import (
	"os/exec"
	"syscall"
	"testing"
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
