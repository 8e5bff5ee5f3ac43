// The runner for executables: connects to the agent, starts one program per call.
//
// Depends on the standard library only; used by the binary image and the process engine. The contract is in ../README.md, the
// protocol in ../PROTOCOL.md.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const version = "1.0.0"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println(version)
		return
	}
	processes := startProcesses()
	runner := newRunner(env("SHOAL_SOCKET", "/shoal/s"), env("SHOAL_HANDLER", ""), processes)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		runner.shutdown()
	}()
	runner.run()
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
