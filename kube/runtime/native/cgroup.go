//go:build linux

package native

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/cgroup"
)

// hierarchy is a tree of cgroups: one of version 1, with its controllers, or the one of version 2.
type hierarchy struct {
	path        string // Where it is mounted.
	unified     bool
	controllers []string
}

// used are what a container is put into. systemd is not a controller, but ends what
// is in a service's group with the service.
var used = []string{"cpu", "cpuacct", "memory", "pids", "name=systemd"}

// hierarchies reads the mounts of this process.
func hierarchies(mountinfo []byte) []hierarchy {
	var all []hierarchy
	seen := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(mountinfo))
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if !ok || len(b) < 5 || len(a) < 3 || a[0] != "cgroup" && a[0] != "cgroup2" {
			continue
		}
		h := hierarchy{path: b[4], unified: a[0] == "cgroup2"}
		for option := range strings.SplitSeq(a[2], ",") {
			if slices.Contains(used, option) {
				h.controllers = append(h.controllers, option)
			}
		}
		key := strings.Join(h.controllers, ",")
		if !h.unified && key == "" || seen[key] {
			continue // Of no use here, or mounted twice.
		}
		seen[key] = true
		all = append(all, h)
	}
	return all
}

// tree is the part of all hierarchies below one parent.
type tree struct {
	parent string // Below each mount.
	all    []hierarchy
	clock  clock.Clock
}

func newTree(parent string, c clock.Clock) (*tree, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	t := &tree{parent: strings.Trim(filepath.Clean("/"+parent), "/"), all: hierarchies(text), clock: c}
	if t.parent == "" {
		return nil, errors.New("the parent of cgroups cannot be the root")
	}
	if len(t.all) == 0 {
		return nil, errors.New("no cgroups are mounted on this node: mount cgroup2 at /sys/fs/cgroup")
	}
	for i := range t.all {
		h := &t.all[i]
		if !h.unified {
			continue
		}
		text, err := os.ReadFile(filepath.Join(h.path, "cgroup.controllers"))
		if err != nil {
			return nil, err
		}
		for c := range strings.FieldsSeq(string(text)) {
			if slices.Contains(used, c) {
				h.controllers = append(h.controllers, c)
			}
		}
	}
	return t, nil
}

// limits of a group; zero: none.
type limits struct {
	milliCPU     int64 // Its weight, and what of the time it may have at most.
	milliCPUMax  int64
	memoryMax    int64
	processesMax int64
}

// mode of groups: what is in them is no secret.
const groupMode = 0o755

// make makes a group in all hierarchies, with its limits.
func (t *tree) make(group string, l limits) error {
	missing := map[string]bool{"memory": l.memoryMax > 0, "cpu": l.milliCPUMax > 0, "pids": l.processesMax > 0}
	for _, h := range t.all {
		if err := h.make(filepath.Join(t.parent, group)); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		if err := h.limit(filepath.Join(h.path, t.parent, group), l); err != nil {
			return fmt.Errorf("limit cgroup: %w", err)
		}
		for _, c := range h.controllers {
			delete(missing, c)
		}
	}
	for c, wanted := range missing {
		if wanted {
			return fmt.Errorf("%w: a limit needs the cgroup controller %s, which this node has not got", runtime.ErrUnsupported, c)
		}
	}
	return nil
}

// make makes a group and its parents, each of which passes the controllers on.
func (h *hierarchy) make(group string) error {
	at := h.path
	for part := range strings.SplitSeq(group, "/") {
		if h.unified && len(h.controllers) > 0 {
			pass := []byte("+" + strings.Join(h.controllers, " +"))
			if err := os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), pass, 0); err != nil {
				return err
			}
		}
		at = filepath.Join(at, part)
		if err := os.Mkdir(at, groupMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// period of processor limits, in microseconds, and quotaMin of it: the kernel takes no
// less.
const (
	period   = 100_000
	quotaMin = 1000
)

// shares are the weight of version 1: 1,024 a core.
func shares(milliCPU int64) int64 { return min(max(milliCPU*1024/1000, 2), 262_144) }

// weight is that of version 2 in the same order.
func weight(shares int64) int64 { return 1 + (shares-2)*9999/262_142 }

// limit writes the limits that the hierarchy has controllers for.
func (h *hierarchy) limit(dir string, l limits) error {
	type setting struct{ controller, file, text string }
	var all []setting
	number := func(controller, file string, n int64) {
		all = append(all, setting{controller, file, strconv.FormatInt(n, 10)})
	}
	s := shares(l.milliCPU)
	quota := max(l.milliCPUMax*period/1000, quotaMin)
	if h.unified {
		number("cpu", "cpu.weight", weight(s))
		if l.milliCPUMax > 0 {
			all = append(all, setting{"cpu", "cpu.max", fmt.Sprintf("%d %d", quota, period)})
		}
		if l.memoryMax > 0 {
			number("memory", "memory.max", l.memoryMax)
		}
	} else {
		number("cpu", "cpu.shares", s)
		if l.milliCPUMax > 0 {
			number("cpu", "cpu.cfs_period_us", period)
			number("cpu", "cpu.cfs_quota_us", quota)
		}
		if l.memoryMax > 0 {
			number("memory", "memory.limit_in_bytes", l.memoryMax)
		}
	}
	if l.processesMax > 0 {
		number("pids", "pids.max", l.processesMax)
	}
	for _, x := range all {
		if !slices.Contains(h.controllers, x.controller) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, x.file), []byte(x.text), 0); err != nil {
			return err
		}
	}
	// No swap beyond the memory, where the node counts it.
	if l.memoryMax > 0 && slices.Contains(h.controllers, "memory") {
		_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0)
		_ = os.WriteFile(filepath.Join(dir, "memory.memsw.limit_in_bytes"), []byte(strconv.FormatInt(l.memoryMax, 10)), 0)
	}
	return nil
}

// procs are the files that take a process into a group.
func (t *tree) procs(group string) []string {
	var all []string
	for _, h := range t.all {
		all = append(all, filepath.Join(h.path, t.parent, group, "cgroup.procs"))
	}
	return all
}

// with is the hierarchy that has a controller, nil if none does.
func (t *tree) with(controller string) *hierarchy {
	for i := range t.all {
		if slices.Contains(t.all[i].controllers, controller) {
			return &t.all[i]
		}
	}
	return nil
}

// children are the names of the groups in a group, in whatever hierarchy.
func (t *tree) children(group string) []string {
	var all []string
	for _, h := range t.all {
		entries, err := os.ReadDir(filepath.Join(h.path, t.parent, group))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && !slices.Contains(all, e.Name()) {
				all = append(all, e.Name())
			}
		}
	}
	return all
}

// processes are those of a group and of all below it, in one hierarchy.
func processes(dir string) []int {
	var all []int
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // Gone meanwhile, or a file.
		}
		text, err := os.ReadFile(filepath.Join(name, "cgroup.procs"))
		if err != nil {
			return nil
		}
		for f := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				all = append(all, pid)
			}
		}
		return nil
	})
	return all
}

const (
	// killMax is how long processes may take to end that were killed: their memory and
	// files are let go first.
	killMax = 10 * time.Second
	// removeMax is how long a group may be busy after its last process ended.
	removeMax = 2 * time.Second
	groupWait = 2 * time.Millisecond
)

// kill kills all processes of a group, and waits until they are gone.
func (t *tree) kill(group string) error {
	for range killMax / groupWait {
		left := 0
		for _, h := range t.all {
			for _, pid := range processes(filepath.Join(h.path, t.parent, group)) {
				left++
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if left == 0 {
			return nil
		}
		<-t.clock.After(groupWait)
	}
	return fmt.Errorf("processes in cgroup %s/%s do not end though they were killed", t.parent, group)
}

// remove removes a group with all below it from all hierarchies. One that is not there
// is removed.
func (t *tree) remove(group string, wait time.Duration) error {
	var all []string
	for _, h := range t.all {
		all = append(all, filepath.Join(h.path, t.parent, group))
	}
	return cgroup.Remove(all, func() bool {
		if wait -= groupWait; wait < 0 {
			return false
		}
		<-t.clock.After(groupWait)
		return true
	})
}
