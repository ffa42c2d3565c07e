package node

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Machine is what a node is measured from.
type Machine struct {
	// Root is where /proc, /sys and /etc are. Empty: the root folder.
	Root string
	// CPUs that this process may run on. 0: asks the system.
	CPUs int
}

func (m *Machine) read(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join("/", m.Root, name))
}

func (m *Machine) line(name string) string {
	data, err := m.read(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// PodsMax is how many pods a node takes if nothing is said.
const PodsMax = 110

// Capacity is what there is for pods: the processors, the memory and the disk of a
// folder, or less of them if this process is in a cgroup that has less.
func (m *Machine) Capacity(dir string) (corev1.ResourceList, error) {
	cpus := m.CPUs
	if cpus == 0 {
		cpus = goruntime.NumCPU()
	}
	memory, err := m.memory()
	if err != nil {
		return nil, err
	}
	milli := int64(cpus) * 1000
	groups := m.cgroups()
	milli = min(milli, groups.milliCPU)
	memory = min(memory, groups.memory)
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return nil, fmt.Errorf("disk of %s: %w", dir, err)
	}
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewMilliQuantity(milli, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(disk.Blocks)*disk.Bsize, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(PodsMax, resource.DecimalSI),
	}, nil
}

func (m *Machine) memory() (int64, error) {
	data, err := m.read("proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("memory of the machine: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(words[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("memory of the machine: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, errors.New("memory of the machine: /proc/meminfo has no MemTotal")
}

// limits of a cgroup and all those above it. None is the largest number.
type limits struct{ milliCPU, memory int64 }

// cgroups reads what this process may use, in version 1 or 2 or both of them.
func (m *Machine) cgroups() limits {
	l := limits{math.MaxInt64, math.MaxInt64}
	data, err := m.read("proc/self/cgroup")
	if err != nil {
		return l // A machine without cgroups has no limits.
	}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		for at := parts[2]; ; at = path.Dir(at) {
			m.group(&l, parts[1], at)
			if at == "/" || at == "." {
				break
			}
		}
	}
	return l
}

func (m *Machine) group(l *limits, controllers, at string) {
	for c := range strings.SplitSeq(controllers, ",") {
		base := path.Join("sys/fs/cgroup", c, at)
		switch c {
		case "":
			quota, period, _ := strings.Cut(m.line(path.Join(base, "cpu.max")), " ")
			l.cpu(quota, period)
			l.bytes(m.line(path.Join(base, "memory.max")))
		case "cpu":
			l.cpu(m.line(path.Join(base, "cpu.cfs_quota_us")), m.line(path.Join(base, "cpu.cfs_period_us")))
		case "memory":
			l.bytes(m.line(path.Join(base, "memory.limit_in_bytes")))
		}
	}
}

func (l *limits) cpu(quota, period string) {
	q, err := strconv.ParseInt(quota, 10, 64)
	p, errPeriod := strconv.ParseInt(period, 10, 64)
	if err == nil && errPeriod == nil && q > 0 && p > 0 {
		l.milliCPU = min(l.milliCPU, max(1, q*1000/p))
	}
}

func (l *limits) bytes(text string) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		l.memory = min(l.memory, n)
	}
}

// System is what is told of the machine. What it does not say is empty.
func (m *Machine) System(version string) corev1.NodeSystemInfo {
	s := corev1.NodeSystemInfo{
		KernelVersion: m.line("proc/sys/kernel/osrelease"), BootID: m.line("proc/sys/kernel/random/boot_id"), MachineID: m.line("etc/machine-id"),
		KubeletVersion: version, OSImage: goruntime.GOOS,
	}
	data, err := m.read("etc/os-release")
	if errors.Is(err, fs.ErrNotExist) {
		data, _ = m.read("usr/lib/os-release") // The system has no name then.
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			s.OSImage = strings.Trim(name, `"'`)
		}
	}
	return s
}

// Address is that of the machine by which it reaches a server; on one machine with the
// server, the first that others can reach it by. Nothing is sent.
func Address(server string) (string, error) {
	if conn, err := net.Dial("udp", server); err == nil {
		ip := conn.LocalAddr().(*net.UDPAddr).IP
		conn.Close()
		if usable(ip) {
			return ip.String(), nil
		}
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("addresses of the machine: %w: give --node-ip", err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && usable(n.IP) {
			return n.IP.String(), nil
		}
	}
	return "127.0.0.1", nil
}

func usable(ip net.IP) bool { return ip.To4() != nil && ip.IsGlobalUnicast() }

// bootTime is which start of the machine this is, and how long ago that was.
func bootTime() (string, time.Duration, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", 0, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return "", 0, fmt.Errorf("time since boot: %w", err)
	}
	return strings.TrimSpace(string(id)), time.Duration(now.Nano()), nil
}
