package network

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Names is a file that lists what a run has made outside of its own process:
// namespaces and mounts. It is written before they are made. A run begins with
// Sweep, which takes down what runs that died have left.
type Names struct {
	file string
	id   string

	mu    sync.Mutex
	lines []string // KIND NAME
	used  int
}

const namesPattern = "holdfast-names-*"

// NewNames starts a list in the temporary folder.
func NewNames() (*Names, error) {
	n := &Names{id: fmt.Sprintf("hf%04x", rand.N(1<<16))}
	n.file = filepath.Join(os.TempDir(), strings.Replace(namesPattern, "*", n.id, 1))
	f, err := os.OpenFile(n.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return NewNames()
	}
	if err != nil {
		return nil, err
	}
	return n, errors.Join(f.Close(), n.save())
}

// prefix for the names of one mesh.
func (n *Names) prefix() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.used++
	return fmt.Sprintf("%s-%d", n.id, n.used)
}

// Mount notes a mount that is about to be made.
func (n *Names) Mount(path string) error { return n.add("mount", path) }

// Unmount takes down all mounts.
func (n *Names) Unmount() error { return n.remove("mount") }

func (n *Names) add(kind, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, kind+" "+name)
	return n.save()
}

func (n *Names) save() error {
	pid := os.Getpid()
	text := fmt.Sprintf("%d %s\n%s\n", pid, started(pid), strings.Join(n.lines, "\n"))
	return os.WriteFile(n.file, []byte(text), 0o600)
}

// remove takes down all of a kind.
func (n *Names) remove(kind string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	var kept []string
	for _, line := range n.lines {
		if !strings.HasPrefix(line, kind+" ") {
			kept = append(kept, line)
			continue
		}
		errs = append(errs, takeDown(line))
	}
	n.lines = kept
	return errors.Join(append(errs, n.save())...)
}

// Close takes down all that is left, and ends the list.
func (n *Names) Close() error {
	return errors.Join(n.remove("mount"), n.remove("netns"), os.Remove(n.file))
}

// takeDown undoes one line. What is gone already is fine.
func takeDown(line string) error {
	kind, name, _ := strings.Cut(line, " ")
	switch kind {
	case "netns":
		if _, err := os.Stat(filepath.Join(spacesDir, name)); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		out, err := exec.Command("ip", "netns", "del", name).CombinedOutput()
		if err != nil {
			return fmt.Errorf("delete namespace %s: %w: %s", name, err, out)
		}
	case "mount":
		err := unix.Unmount(name, unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", name, err)
		}
	}
	return nil
}

// Sweep takes down what runs that died have left, and returns how many such
// runs there were.
func Sweep() (int, error) {
	files, err := filepath.Glob(filepath.Join(os.TempDir(), namesPattern))
	if err != nil {
		return 0, err
	}
	swept := 0
	var errs []error
	for _, file := range files {
		data, err := os.ReadFile(file)
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if err != nil || alive(lines[0]) {
			continue
		}
		swept++
		for _, line := range lines[1:] {
			errs = append(errs, takeDown(line))
		}
		errs = append(errs, os.Remove(file))
	}
	return swept, errors.Join(errs...)
}

// alive tells whether the run that wrote the first line of a list goes on. An
// empty list is just being made.
func alive(line string) bool {
	pid, start, ok := strings.Cut(line, " ")
	n, err := strconv.Atoi(pid)
	if !ok || err != nil {
		return true
	}
	return started(n) == start
}

// started is when a process began, in ticks since the machine did: a number
// alone may have been given to another process since.
func started(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	if fields := strings.Fields(rest); len(fields) > 19 {
		return fields[19]
	}
	return ""
}
