package conformance

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Left is what there is of pods on this machine: processes whose program, arguments or
// variables have one of the words, mounts and cgroups whose names do.
func Left(t *testing.T, words ...string) []string {
	t.Helper()
	has := func(text string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	var found []string
	for _, pid := range processes() {
		if exe, args := program(pid), arguments(pid); has(exe) || has(args) || has(variables(pid)) {
			found = append(found, "process "+pid+": "+exe+" "+args)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && has(fields[4]) {
			found = append(found, "mount "+fields[4])
		}
	}
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && has(path) {
			found = append(found, "cgroup "+path)
		}
		return nil // What vanishes meanwhile is not left.
	})
	return found
}

func processes() []string {
	var pids []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") == "" && e.Name() != "" && e.Name() != self() {
			pids = append(pids, e.Name())
		}
	}
	return pids
}

func self() string {
	name, _ := os.Readlink("/proc/self")
	return name
}

// program is the path of what a process runs, as it was when it was started.
func program(pid string) string {
	exe, _ := os.Readlink("/proc/" + pid + "/exe") // Of a zombie there is none.
	return exe
}

// variables are the environment that a process was started with.
func variables(pid string) string {
	b, _ := os.ReadFile("/proc/" + pid + "/environ")
	return string(b)
}

func arguments(pid string) string {
	b, _ := os.ReadFile("/proc/" + pid + "/cmdline")
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
}
