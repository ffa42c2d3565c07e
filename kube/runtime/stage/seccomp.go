//go:build linux

package stage

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter of system calls: all that this program knows by name are allowed but
// those below, which reach the node's kernel where it has been broken most, or do
// what a container has no business with. Numbers beyond those known are answered as if
// the kernel were older, so that libraries fall back.

// guarded are calls that need a capability: with it they are allowed.
var guarded = []struct {
	capability string
	calls      []uint32
}{
	{"SYS_ADMIN", []uint32{
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT,
		unix.SYS_FSPICK, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_FANOTIFY_INIT,
		unix.SYS_SWAPON, unix.SYS_SWAPOFF,
	}},
	{"BPF", []uint32{unix.SYS_BPF}},
	{"PERFMON", []uint32{unix.SYS_PERF_EVENT_OPEN}},
	{"SYS_BOOT", []uint32{unix.SYS_REBOOT, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD}},
	{"SYS_MODULE", []uint32{unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE}},
	{"SYS_PACCT", []uint32{unix.SYS_ACCT}},
	{"SYS_TIME", []uint32{unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME}},
	{"SYS_TTY_CONFIG", []uint32{unix.SYS_VHANGUP}},
	{"SYS_NICE", []uint32{unix.SYS_MBIND, unix.SYS_SET_MEMPOLICY, unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES}},
	{"SYSLOG", []uint32{unix.SYS_SYSLOG}},
	{"DAC_READ_SEARCH", []uint32{unix.SYS_OPEN_BY_HANDLE_AT}},
}

// never are calls that no capability opens: keys are not divided among containers,
// and the others are attacked often and have substitutes.
var never = []uint32{
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_USERFAULTFD, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_NFSSERVCTL,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
}

// namespaces are the flags of clone that make some.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// personalities are those that only change how a program is laid out or named.
var personalities = []uint32{0, 0x8, 0x20000, 0x20008, 0xffffffff}

// Offsets in struct seccomp_data, on machines whose low half comes first.
const (
	offsetCall = 0
	offsetArch = 4
	offsetArg0 = 16
)

// assembler builds a program of the kernel's small filter machine. Jumps reach over 255
// instructions at most, so each test is followed by what it leads to.
type assembler struct{ code []unix.SockFilter }

func (a *assembler) load(offset uint32) {
	a.code = append(a.code, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset})
}

func (a *assembler) answer(value uint32) {
	a.code = append(a.code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value})
}

// when does what then appends if the loaded value compares so.
func (a *assembler) when(test uint16, value uint32, then func()) {
	at := len(a.code)
	a.code = append(a.code, unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: value})
	then()
	a.code[at].Jf = uint8(len(a.code) - at - 1)
}

const (
	allowCall = unix.SECCOMP_RET_ALLOW
	denyCall  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	noCall    = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// program is the filter of a container with these capabilities.
func program(caps uint64) []unix.SockFilter {
	has := func(name string) bool { return caps&capabilityBits([]string{name}) != 0 }
	a := &assembler{}
	a.load(offsetArch)
	// Programs of another machine (32 bits) have other numbers: none is let through.
	a.code = append(a.code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: machine, Jt: 1})
	a.answer(noCall)
	a.load(offsetCall)
	a.when(unix.BPF_JGT, lastCall, func() { a.answer(noCall) })
	for _, call := range append(never, neverHere...) {
		a.when(unix.BPF_JEQ, call, func() { a.answer(denyCall) })
	}
	for _, g := range append(guarded, guardedHere...) {
		if has(g.capability) || g.capability == "BPF" && has("SYS_ADMIN") || g.capability == "PERFMON" && has("SYS_ADMIN") {
			continue
		}
		for _, call := range g.calls {
			a.when(unix.BPF_JEQ, call, func() { a.answer(denyCall) })
		}
	}
	if !has("SYS_ADMIN") {
		a.when(unix.BPF_JEQ, unix.SYS_CLONE, func() {
			a.load(offsetArg0)
			a.when(unix.BPF_JSET, namespaces, func() { a.answer(denyCall) })
			a.answer(allowCall)
		})
		// Its flags are in memory, where a filter cannot look: libraries use clone then.
		a.when(unix.BPF_JEQ, unix.SYS_CLONE3, func() { a.answer(noCall) })
	}
	a.when(unix.BPF_JEQ, unix.SYS_PERSONALITY, func() {
		a.load(offsetArg0)
		for _, p := range personalities {
			a.when(unix.BPF_JEQ, p, func() { a.answer(allowCall) })
		}
		a.answer(denyCall)
	})
	a.when(unix.BPF_JEQ, unix.SYS_SOCKET, func() {
		a.load(offsetArg0)
		// Leads to the machine that this one is a guest of, past all its networks.
		a.when(unix.BPF_JEQ, unix.AF_VSOCK, func() { a.answer(denyCall) })
		a.answer(allowCall)
	})
	a.answer(allowCall)
	return a.code
}

// filter lays the filter on this thread, and all that comes of it.
func filter(caps uint64) error {
	if machine == 0 {
		return fmt.Errorf("no filter is known for %s: use the seccomp profile Unconfined", runtime.GOARCH)
	}
	code := program(caps)
	p := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(code)
	if errno != 0 {
		return errno
	}
	return nil
}
