package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/kube/node"
)

// machine has these files.
func machine(t *testing.T, files map[string]string) *node.Machine {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &node.Machine{Root: root, CPUs: 4}
}

const meminfo = "MemTotal:       8388608 kB\nMemFree:         123 kB\n"

func TestANodeHasWhatItsMachineHasOrItsCgroupGives(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		cpu    int64
		memory int64
	}{
		"no cgroups": {map[string]string{}, 4000, 8 << 30},
		"version 2": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
			"sys/fs/cgroup/a/b/memory.max": "1073741824\n", "sys/fs/cgroup/a/memory.max": "max\n",
		}, 1500, 1 << 30},
		"version 1": {map[string]string{
			"proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n", "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "2147483648\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 500, 2 << 30},
		"no limits": {map[string]string{"proc/self/cgroup": "3:cpu,cpuacct:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 4000, 8 << 30},
	} {
		c.files["proc/meminfo"] = meminfo
		has, err := machine(t, c.files).Capacity(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if has.Cpu().MilliValue() != c.cpu || has.Memory().Value() != c.memory || has.StorageEphemeral().Value() <= 0 || has.Pods().Value() != node.PodsMax {
			t.Errorf("%s: %v", name, has)
		}
	}
	if _, err := machine(t, nil).Capacity(t.TempDir()); err == nil {
		t.Error("a machine whose memory is not known has a capacity")
	}
}

func TestANodeTellsOfItsSystem(t *testing.T) {
	s := machine(t, map[string]string{
		"proc/sys/kernel/osrelease": "6.1.0-test\n", "etc/os-release": "NAME=x\nPRETTY_NAME=\"Some System 1\"\n", "etc/machine-id": "abc\n", "proc/sys/kernel/random/boot_id": "def\n",
	}).System("v1")
	if s.KernelVersion != "6.1.0-test" || s.OSImage != "Some System 1" || s.MachineID != "abc" || s.BootID != "def" || s.KubeletVersion != "v1" {
		t.Errorf("%+v", s)
	}
}
