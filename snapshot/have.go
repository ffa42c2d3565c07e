package snapshot

import (
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
)

// have says where a state stands: 1, cluster, timeline, index, digest.
type have struct {
	cluster  ident.ClusterID
	timeline ident.Timeline
	index    ident.Index
	digest   ident.Digest
}

const (
	haveVersion = 1
	haveBytes   = 1 + 3*8 + 16
)

// EncodeHave says where a state stands, for the sender of a snapshot: it may
// leave out what is here.
func EncodeHave(s mvcc.State) []byte {
	b := append(make([]byte, 0, haveBytes), haveVersion)
	b = order.AppendUint64(b, uint64(s.Cluster))
	b = order.AppendUint64(b, uint64(s.Timeline))
	b = order.AppendUint64(b, uint64(s.Position.Index))
	return append(b, s.Digest[:]...)
}

// decodeHave returns false for what it does not understand: then everything is sent.
func decodeHave(b []byte) (have, bool) {
	if len(b) != haveBytes || b[0] != haveVersion {
		return have{}, false
	}
	return have{
		cluster:  ident.ClusterID(order.Uint64(b[1:])),
		timeline: ident.Timeline(order.Uint64(b[9:])),
		index:    ident.Index(order.Uint64(b[17:])),
		digest:   ident.Digest(b[25:41]),
	}, true
}
