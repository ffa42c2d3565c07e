//go:build linux

package native

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

// kills is where the kernel counts kills for want of memory; nil where it does not.
func (t *tree) kills(group string) *supervisor.Counter {
	h := t.with("memory")
	if h == nil {
		return nil
	}
	file := "memory.oom_control"
	if h.unified {
		file = "memory.events"
	}
	return &supervisor.Counter{File: filepath.Join(h.path, t.parent, group, file), Key: "oom_kill"}
}

// use is what a group uses. Memory that the kernel takes back without trouble does not count.
func (t *tree) use(group string) runtime.Use {
	var u runtime.Use
	if h := t.with("cpuacct"); h != nil {
		u.CPU = time.Duration(readNumber(filepath.Join(h.path, t.parent, group, "cpuacct.usage")))
	} else if h := t.unified(); h != nil { // Counted with or without the controller.
		u.CPU = time.Duration(readKey(filepath.Join(h.path, t.parent, group, "cpu.stat"), "usage_usec")) * time.Microsecond
	}
	h := t.with("memory")
	if h == nil {
		return u
	}
	current, key := "memory.usage_in_bytes", "total_inactive_file"
	if h.unified {
		current, key = "memory.current", "inactive_file"
	}
	dir := filepath.Join(h.path, t.parent, group)
	u.MemoryBytes = max(readNumber(filepath.Join(dir, current))-readKey(filepath.Join(dir, "memory.stat"), key), 0)
	return u
}

func (t *tree) unified() *hierarchy {
	for i := range t.all {
		if t.all[i].unified {
			return &t.all[i]
		}
	}
	return nil
}

func readNumber(name string) int64 {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n
}

func readKey(name, key string) int64 {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+" "); ok {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}

// busy tells whether a group has processes.
func (t *tree) busy(group string) bool {
	return len(processes(filepath.Join(t.all[0].path, t.parent, group))) > 0
}
