//go:build linux

package native

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

func TestHierarchiesOfAllKindsOfHostsAreFound(t *testing.T) {
	for name, c := range map[string]struct{ mounts, want string }{
		"version 2": {
			"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			"/sys/fs/cgroup unified",
		},
		"version 1, with controllers together": {
			"31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n" +
				"32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n33 30 0:29 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n",
			"/sys/fs/cgroup/cpu,cpuacct cpu,cpuacct\n/sys/fs/cgroup/memory memory",
		},
		"both": {
			"34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n35 30 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n" +
				"36 30 0:32 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n37 30 0:32 / /other rw - cgroup cgroup rw,pids\n38 1 0:1 / /proc rw - proc proc rw\n",
			"/sys/fs/cgroup/unified unified\n/sys/fs/cgroup/systemd name=systemd\n/sys/fs/cgroup/pids pids",
		},
	} {
		var got []string
		for _, h := range hierarchies([]byte(c.mounts)) {
			what := strings.Join(h.controllers, ",")
			if h.unified {
				what = "unified"
			}
			got = append(got, h.path+" "+what)
		}
		if strings.Join(got, "\n") != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// read is the content of a file of a group.
func read(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A plain folder shows what would be written to a hierarchy that this machine has not got.
func TestLimitsAreWrittenInTheFormOfEachVersion(t *testing.T) {
	l := limits{milliCPU: 250, milliCPUMax: 500, memoryMax: 64 << 20, processesMax: 50}
	all := []string{"cpu", "memory", "pids"}
	for _, c := range []struct {
		unified bool
		want    map[string]string
	}{
		{true, map[string]string{"cpu.weight": "10", "cpu.max": "50000 100000", "memory.max": "67108864", "memory.swap.max": "0", "pids.max": "50"}},
		{false, map[string]string{"cpu.shares": "256", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000", "memory.limit_in_bytes": "67108864", "pids.max": "50"}},
	} {
		top := t.TempDir()
		tr := &tree{parent: "holdfast-x", all: []hierarchy{{path: top, unified: c.unified, controllers: all}}, clock: clock.Real()}
		if err := tr.make("burstable/podu1", l); err != nil {
			t.Fatal(err)
		}
		for file, want := range c.want {
			if got := read(t, top, "holdfast-x/burstable/podu1", file); got != want {
				t.Errorf("version 2 %v: %s is %q, want %q", c.unified, file, got, want)
			}
		}
		if c.unified {
			for _, parent := range []string{"", "holdfast-x", "holdfast-x/burstable"} {
				if got := read(t, top, parent, "cgroup.subtree_control"); got != "+cpu +memory +pids" {
					t.Errorf("%q passes on %q", parent, got)
				}
			}
		}
	}
	for _, unified := range []bool{true, false} { // Less than the kernel takes is the least that it does.
		dir := t.TempDir()
		h := hierarchy{path: dir, unified: unified, controllers: all}
		if err := h.limit(dir, limits{milliCPUMax: 1}); err != nil {
			t.Fatal(err)
		}
		file, want := "cpu.cfs_quota_us", "1000"
		if unified {
			file, want = "cpu.max", "1000 100000"
		}
		if got := read(t, dir, "", file); got != want {
			t.Errorf("of a thousandth of a processor %s is %q, want %q", file, got, want)
		}
	}
	none := &tree{parent: "p", all: []hierarchy{{path: t.TempDir()}}, clock: clock.Real()}
	if err := none.make("g", l); !errors.Is(err, runtime.ErrUnsupported) {
		t.Errorf("limits without controllers: %v", err)
	}
	if err := none.make("g", limits{milliCPU: 100}); err != nil {
		t.Errorf("no limits without controllers: %v", err)
	}
}

func TestWeightsKeepTheirOrderFromTheLeastToTheMost(t *testing.T) {
	last := int64(-1)
	for _, milli := range []int64{0, 100, 1000, 8000, 256_000, 1 << 40} {
		w := weight(shares(milli))
		if w < last || w == last && milli <= 100_000 || w < 1 || w > 10_000 {
			t.Errorf("%d milli is %d after %d", milli, w, last)
		}
		last = w
	}
}

func TestUsageIsReadInTheFormOfEachVersion(t *testing.T) {
	for _, c := range []struct {
		h     hierarchy
		files map[string]string
		kills string
	}{
		{
			hierarchy{unified: true, controllers: []string{"cpu", "memory"}},
			map[string]string{"cpu.stat": "usage_usec 1500\nuser_usec 3\n", "memory.current": "5000\n", "memory.stat": "anon 1\ninactive_file 2000\n"}, "memory.events",
		},
		{
			hierarchy{controllers: []string{"cpuacct", "memory"}},
			map[string]string{"cpuacct.usage": "1500000\n", "memory.usage_in_bytes": "5000\n", "memory.stat": "inactive_file 7\ntotal_inactive_file 2000\n"}, "memory.oom_control",
		},
	} {
		c.h.path = t.TempDir()
		dir := filepath.Join(c.h.path, "p/g")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tr := &tree{parent: "p", all: []hierarchy{c.h}, clock: clock.Real()}
		if u := tr.use("g"); u.CPU.Microseconds() != 1500 || u.MemoryBytes != 3000 {
			t.Errorf("%+v", u)
		}
		if k := tr.kills("g"); k.File != filepath.Join(dir, c.kills) {
			t.Errorf("kills are counted in %s", k.File)
		}
	}
}
