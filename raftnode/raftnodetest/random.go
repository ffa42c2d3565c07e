package raftnodetest

import (
	"encoding/binary"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Random is a stream of numbers from a seed. It is also an io.Reader, to stand
// in for crypto/rand.Reader, from which Raft draws election timeouts.
type Random struct{ state uint64 }

// NewRandom starts a stream.
func NewRandom(seed uint64) *Random { return &Random{state: seed} }

// Next returns 64 bits.
func (r *Random) Next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Below returns a number from 0 to n-1.
func (r *Random) Below(n int) int { return int(r.Next() % uint64(n)) }

// Chance is true in percent of all cases.
func (r *Random) Chance(percent int) bool { return r.Below(100) < percent }

// Read implements io.Reader.
func (r *Random) Read(p []byte) (int, error) {
	var b [8]byte
	for n := 0; n < len(p); n += 8 {
		binary.LittleEndian.PutUint64(b[:], r.Next())
		copy(p[n:], b[:])
	}
	return len(p), nil
}

// mix folds numbers into a sum that depends on their order.
func mix(sum uint64, values ...uint64) uint64 {
	for _, v := range values {
		sum = (&Random{state: sum ^ v*0xff51afd7ed558ccd}).Next()
	}
	return sum
}

func sumOf(data []byte) uint64 {
	sum := uint64(len(data))
	for _, b := range data {
		sum = sum*1099511628211 ^ uint64(b)
	}
	return sum
}

func raftDescribe(conf *raftpb.ConfState) string { return raft.DescribeConfState(conf) }
