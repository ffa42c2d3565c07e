package wire

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Methods that are measured.
const (
	Put      = "/etcdserverpb.KV/Put"
	Range    = "/etcdserverpb.KV/Range"
	Stream   = "/etcdserverpb.KV/RangeStream"
	Compact  = "/etcdserverpb.KV/Compact"
	Watch    = "/etcdserverpb.Watch/Watch"
	Status   = "/etcdserverpb.Maintenance/Status"
	Snapshot = "/etcdserverpb.Maintenance/Snapshot"
)

func bytesField(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

func intField(b []byte, n protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(v))
}

// AppendPut encodes a PutRequest.
func AppendPut(b, key, value []byte) []byte { return bytesField(bytesField(b, 1, key), 2, value) }

// RangeRequest is what is asked for.
type RangeRequest struct {
	Key, End     []byte
	Limit        int64
	Serializable bool
}

// AppendRange encodes a RangeRequest.
func AppendRange(b []byte, r *RangeRequest) []byte {
	b = bytesField(b, 1, r.Key)
	if r.End != nil {
		b = bytesField(b, 2, r.End)
	}
	if r.Limit != 0 {
		b = intField(b, 3, r.Limit)
	}
	if r.Serializable {
		b = intField(b, 7, 1)
	}
	return b
}

// AppendCompaction encodes a CompactionRequest. A physical one is answered when
// what it does in background is done.
func AppendCompaction(b []byte, revision int64, physical bool) []byte {
	b = intField(b, 1, revision)
	if physical {
		b = intField(b, 2, 1)
	}
	return b
}

// AppendWatch encodes a WatchRequest that creates a watch.
func AppendWatch(b, key, end []byte) []byte {
	return bytesField(b, 1, bytesField(bytesField(nil, 1, key), 2, end))
}

// Fields calls fn for each field of a message: bytes for those with a length,
// a number for the others.
func Fields(b []byte, fn func(n protowire.Number, v []byte, x uint64) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v []byte
		var x uint64
		switch typ {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			x, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := fn(num, v, x); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// KeyValues calls fn for each key and value of a RangeResponse.
func KeyValues(b []byte, fn func(key, value []byte) error) error {
	return Fields(b, func(n protowire.Number, v []byte, _ uint64) error {
		if n != 2 {
			return nil
		}
		var key, value []byte
		err := Fields(v, func(n protowire.Number, v []byte, _ uint64) error {
			switch n {
			case 1:
				key = v
			case 5:
				value = v
			}
			return nil
		})
		if err != nil {
			return err
		}
		return fn(key, value)
	})
}

// Revision is that of the header of an answer; the header is field 1 of all.
func Revision(b []byte) (revision int64, err error) {
	err = Fields(b, func(n protowire.Number, v []byte, _ uint64) error {
		if n != 1 {
			return nil
		}
		return Fields(v, func(n protowire.Number, _ []byte, x uint64) error {
			if n == 3 {
				revision = int64(x)
			}
			return nil
		})
	})
	return revision, err
}

// Watched tells what a WatchResponse says: whether it confirms a watch, and the
// number of its events.
func Watched(b []byte) (created bool, events int, err error) {
	err = Fields(b, func(n protowire.Number, _ []byte, x uint64) error {
		switch n {
		case 3:
			created = x != 0
		case 11:
			events++
		}
		return nil
	})
	return created, events, err
}
