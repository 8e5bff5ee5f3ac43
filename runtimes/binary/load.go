package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
)

// program is what is started for every call.
type program struct {
	// as the kernel takes it, with nil at its end
	argv []*byte
	dir  *byte
	// environment that all calls share
	env []*byte
}

func newProgram(argv []string, dir string, env []string) *program {
	shared := cStrings(env)
	return &program{argv: cStrings(argv), dir: cStrings([]string{dir})[0], env: shared[:len(shared)-1]}
}

// findProgram decides what to start: the entry, else fn.sh, else the one executable in the bundle's root.
func findProgram(dir, entry string) ([]string, error) {
	if entry != "" {
		path := filepath.Join(dir, entry)
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil, fmt.Errorf("the entry %s is not a file of the function", entry)
		}
		return commandFor(path)
	}
	if path := filepath.Join(dir, "fn.sh"); isFile(path) {
		return commandFor(path)
	}
	path, err := onlyExecutable(dir)
	if err != nil {
		return nil, err
	}
	return commandFor(path)
}

func onlyExecutable(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var files, executables []string
	for _, entry := range entries {
		info, err := os.Stat(filepath.Join(dir, entry.Name()))
		if err != nil || !info.Mode().IsRegular() || strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		files = append(files, entry.Name())
		if info.Mode()&0o111 != 0 {
			executables = append(executables, entry.Name())
		}
	}
	if len(executables) == 1 {
		return filepath.Join(dir, executables[0]), nil
	}
	if len(executables) == 0 && len(files) == 1 {
		return filepath.Join(dir, files[0]), nil
	}
	if len(executables) == 0 {
		return "", fmt.Errorf("no function found: neither fn.sh nor an executable file is there")
	}
	sort.Strings(executables)
	return "", fmt.Errorf("which one is the function? %s are executable: name one as the entry, or fn.sh",
		strings.Join(executables, ", "))
}

// commandFor is the command line for a file: itself, or its interpreter when it is a script that the kernel would not start
// (uploads by zip lose the executable bit).
func commandFor(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	start := make([]byte, 256)
	n, _ := file.Read(start)
	start = start[:n]
	executable := syscall.Access(path, 1) == nil
	switch {
	case bytes.HasPrefix(start, []byte("\x7fELF")):
		if !executable {
			return nil, fmt.Errorf("%s is not executable: chmod +x before it is uploaded", filepath.Base(path))
		}
		return []string{path}, nil
	case bytes.HasPrefix(start, []byte("#!")):
		line, _, _ := strings.Cut(string(start[2:]), "\n")
		words := strings.SplitN(strings.TrimSpace(line), " ", 2)
		if !isFile(words[0]) {
			return nil, fmt.Errorf("%s: its interpreter %s is not there", filepath.Base(path), words[0])
		}
		if executable {
			return []string{path}, nil
		}
		return append(words, path), nil
	default:
		return []string{"/bin/sh", path}, nil
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
