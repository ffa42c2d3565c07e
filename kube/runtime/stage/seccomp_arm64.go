package stage

import "golang.org/x/sys/unix"

const (
	machine  = unix.AUDIT_ARCH_AARCH64
	lastCall = unix.SYS_MSEAL
)

// What only this machine has: nothing.
var (
	neverHere   []uint32
	guardedHere []struct {
		capability string
		calls      []uint32
	}
)
