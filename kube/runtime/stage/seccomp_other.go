//go:build linux && !amd64 && !arm64

package stage

// machine is 0 where no filter was tried.
const (
	machine  = 0
	lastCall = 0
)

var (
	neverHere   []uint32
	guardedHere []struct {
		capability string
		calls      []uint32
	}
)
