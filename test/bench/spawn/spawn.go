// How often the host can start a program from Go: `spawn <at once> <seconds> pipes <program> [argument...]`, as spawn.c does it.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const bodyBytes = 100

func main() {
	atOnce, _ := strconv.Atoi(os.Args[1])
	seconds, _ := strconv.ParseFloat(os.Args[2], 64)
	startedAt := time.Now()
	endAt := startedAt.Add(time.Duration(seconds * float64(time.Second)))
	var calls int64
	var workers sync.WaitGroup
	for at := 0; at < atOnce; at++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for ; time.Now().Before(endAt); atomic.AddInt64(&calls, 1) {
				call(os.Args[4:])
			}
		}()
	}
	workers.Wait()
	fmt.Printf("%.0f\n", float64(calls)/time.Since(startedAt).Seconds())
}

func call(command []string) {
	program := exec.Command(command[0], command[1:]...)
	program.Stdin = bytes.NewReader(make([]byte, bodyBytes))
	output, err := program.Output()
	if err != nil || len(output) != bodyBytes {
		fmt.Fprintln(os.Stderr, len(output), "bytes came back:", err)
		os.Exit(1)
	}
}
