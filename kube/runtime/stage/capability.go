//go:build linux

package stage

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// capabilities by their numbers.
var capabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE",
	"NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN",
	"SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE",
	"MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// usual are those of a container that asks for nothing.
var usual = []string{
	"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
}

const all = "ALL"

// Capabilities are the usual ones without some, and with others. ALL is each.
func Capabilities(add, drop []string) ([]string, error) {
	has := map[string]bool{}
	for _, c := range usual {
		has[c] = true
	}
	for i, list := range [][]string{drop, add} { // What is added by name stays, whatever is dropped.
		for _, c := range list {
			c = strings.TrimPrefix(strings.ToUpper(c), "CAP_")
			if c == all {
				for _, each := range capabilities {
					has[each] = i == 1
				}
				continue
			}
			if number := capability(c); number < 0 {
				return nil, invalid("%q is no capability", c)
			}
			has[c] = i == 1
		}
	}
	var out []string
	for _, c := range capabilities {
		if has[c] {
			out = append(out, c)
		}
	}
	return out, nil
}

func capability(name string) int {
	for i, c := range capabilities {
		if c == name {
			return i
		}
	}
	return -1
}

func capabilityBits(names []string) uint64 {
	var bits uint64
	for _, c := range names {
		if i := capability(c); i >= 0 {
			bits |= 1 << i
		}
	}
	return bits
}

// capabilitiesMax is how many the kernel's sets have room for.
const capabilitiesMax = 64

// limit takes all capabilities but some out of the bounding set: whatever is executed
// from here on cannot have them. The kernel itself is asked which there are: what is at
// /proc may be a volume, and say anything.
func limit(keep uint64) error {
	for i := range capabilitiesMax {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(i), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // There are no more.
		}
		if err != nil {
			return err
		}
		if has == 0 || keep&(1<<i) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(i), 0, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// become takes on a user and keeps of this thread's capabilities what the user may have.
func become(id *identity, keep uint64) error {
	groups := make([]uint32, 0, len(id.groups))
	for _, g := range id.groups {
		groups = append(groups, uint32(g))
	}
	if err := setgroups(groups); err != nil {
		return failed("set groups: %w", err)
	}
	// Of this thread alone, which is all that goes on.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(id.gid), uintptr(id.gid), uintptr(id.gid)); errno != 0 {
		return failed("become group %d: %w", id.gid, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(id.uid), uintptr(id.uid), uintptr(id.uid)); errno != 0 {
		return failed("become user %d: %w", id.uid, errno)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return failed("clear ambient capabilities: %w", err)
	}
	if id.uid != 0 {
		keep = 0 // The kernel took them away; what may be had again is in the bounding set.
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return failed("read capabilities: %w", err)
	}
	for i := range data {
		part := uint32(keep >> (32 * i))
		data[i].Permitted &= part
		data[i].Effective = data[i].Permitted
		data[i].Inheritable = 0
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return failed("give up capabilities: %w", err)
	}
	return nil
}
