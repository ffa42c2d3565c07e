package stage

import "golang.org/x/sys/unix"

const (
	machine  = unix.AUDIT_ARCH_X86_64
	lastCall = unix.SYS_MSEAL // Those of the x32 form are far beyond.
)

// What only this machine has.
var (
	neverHere = []uint32{
		unix.SYS_USELIB, unix.SYS_USTAT, unix.SYS_SYSFS, unix.SYS__SYSCTL, unix.SYS_CREATE_MODULE, unix.SYS_GET_KERNEL_SYMS, unix.SYS_QUERY_MODULE,
	}
	guardedHere = []struct {
		capability string
		calls      []uint32
	}{{"SYS_RAWIO", []uint32{unix.SYS_IOPL, unix.SYS_IOPERM}}}
)
