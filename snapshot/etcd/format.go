package etcd

// What stands in etcd's buckets, and how the rows are encoded. docs/format/etcd.md.

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Buckets of etcd 3.4 to 3.7.
const (
	bucketKey            = "key"
	bucketMeta           = "meta"
	bucketLease          = "lease"
	bucketAlarm          = "alarm"
	bucketCluster        = "cluster"
	bucketMembers        = "members"
	bucketMembersRemoved = "members_removed"
	bucketAuth           = "auth"
	bucketUsers          = "authUsers"
	bucketRoles          = "authRoles"
)

// Keys in bucket meta, and of bucket auth.
const (
	metaIndex          = "consistent_index"    // 8 bytes, big-endian.
	metaTerm           = "term"                // The same. Since 3.5.
	metaConfState      = "confState"           // JSON of raftpb.ConfState. Since 3.5.
	metaStorageVersion = "storageVersion"      // Major, minor and patch as text. Since 3.6.
	metaScheduled      = "scheduledCompactRev" // A revision as it is a key of bucket key.
	metaFinished       = "finishedCompactRev"

	authEnabled  = "authEnabled"  // 1 byte.
	authRevision = "authRevision" // 8 bytes, big-endian.
)

const (
	revisionBytes  = 8 + 1 + 8 // Main, '_', sub; numbers are big-endian.
	tombstoneBytes = revisionBytes + 1
	tombstoneMark  = 't'

	padBytes  = 512 // A database ends at a multiple of this,
	hashBytes = 32  // so a file that has as much more ends in a SHA-256.
)

// revision is a key of bucket key.
type revision struct {
	main, sub int64
	tombstone bool
}

func (r revision) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.main))
	b = append(b, '_')
	b = binary.BigEndian.AppendUint64(b, uint64(r.sub))
	if r.tombstone {
		b = append(b, tombstoneMark)
	}
	return b
}

func decodeRevision(b []byte) (r revision, ok bool) {
	if len(b) != revisionBytes && len(b) != tombstoneBytes || b[8] != '_' {
		return r, false
	}
	r = revision{main: int64(binary.BigEndian.Uint64(b)), sub: int64(binary.BigEndian.Uint64(b[9:])), tombstone: len(b) == tombstoneBytes}
	if r.tombstone && b[revisionBytes] != tombstoneMark {
		return r, false
	}
	return r, r.main >= 0 && r.sub >= 0
}

// fields takes a protobuf message apart: numbers by field, and bytes by field.
// Of a field that comes twice the last counts, as in protobuf; repeated fields
// are not read this way.
type fields struct {
	numbers map[protowire.Number]uint64
	bytes   map[protowire.Number][]byte
}

func decodeFields(b []byte) (f fields, err error) {
	f = fields{numbers: map[protowire.Number]uint64{}, bytes: map[protowire.Number][]byte{}}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return f, fmt.Errorf("not a message: %w", protowire.ParseError(n))
		}
		b = b[n:]
		switch kind {
		case protowire.VarintType:
			f.numbers[number], n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes[number], n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return f, fmt.Errorf("field %d: %w", number, protowire.ParseError(n))
		}
		b = b[n:]
	}
	return f, nil
}

// Fields of leasepb.Lease: ID 1, TTL 2, remaining TTL 3.
func encodeLease(id, ttl int64) []byte {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(id))
	return protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(ttl))
}
