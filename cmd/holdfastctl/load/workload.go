package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Kind is what requests do.
type Kind int

// The kinds of requests.
const (
	Put   Kind = iota // Writes one key.
	Get               // Reads one key.
	Range             // Reads Span adjacent keys.
	Txn               // Writes Span keys at once, if the first of them is in any state.
	Grant             // Makes a lease.
	Renew             // Renews a lease, which each client makes before; over one stream.
)

// Workload says what to ask for.
type Workload struct {
	Kind         Kind
	Prefix       string // Of all keys.
	KeyBytes     int    // Of a key, prefix included.
	ValueBytes   int
	KeySpace     int64 // Number of different keys.
	Sequential   bool  // Keys by their number; else at random.
	Span         int   // Keys of one request of kinds Range and Txn.
	Serializable bool  // Reads need no quorum.
	KeysOnly     bool
	TTL          int64 // Of leases, in seconds.
}

// Validate reports all that is wrong.
func (w *Workload) Validate() error {
	var wrong []error
	if !w.leases() {
		if w.KeySpace < 1 {
			wrong = append(wrong, fmt.Errorf("--key-space %d is below 1", w.KeySpace))
		}
		if least := len(w.Prefix) + digits(w.KeySpace-1); w.KeyBytes < least {
			wrong = append(wrong, fmt.Errorf("--key-size %d is too small for %d keys with prefix %q: it takes %d", w.KeyBytes, w.KeySpace, w.Prefix, least))
		}
		if w.ValueBytes < 0 {
			wrong = append(wrong, fmt.Errorf("--val-size %d is negative", w.ValueBytes))
		}
	}
	if (w.Kind == Range || w.Kind == Txn) && (w.Span < 1 || int64(w.Span) > w.KeySpace) {
		wrong = append(wrong, fmt.Errorf("%d keys in a request are not from 1 to the %d of --key-space", w.Span, w.KeySpace))
	}
	return errors.Join(wrong...)
}

func (w *Workload) leases() bool { return w.Kind == Grant || w.Kind == Renew }

func digits(n int64) int { return len(strconv.FormatInt(max(n, 0), 10)) }

// AppendKey appends the n-th key: prefix, then the number with leading zeroes.
func (w *Workload) AppendKey(dst []byte, n int64) []byte {
	dst = append(dst, w.Prefix...)
	for range w.KeyBytes - len(w.Prefix) - digits(n) {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, n, 10)
}

var paths = map[Kind]string{
	Put: "/etcdserverpb.KV/Put", Get: "/etcdserverpb.KV/Range", Range: "/etcdserverpb.KV/Range",
	Txn: "/etcdserverpb.KV/Txn", Grant: "/etcdserverpb.Lease/LeaseGrant", Renew: "/etcdserverpb.Lease/LeaseKeepAlive",
}

// request is a message to send.
type request interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

// source makes the requests of one connection, each in the memory of the one
// before.
type source struct {
	w      *Workload
	random *rand.Rand
	noise  []byte // Values are parts of it: not all equal, and nothing that compresses.

	keys  [][]byte
	put   pb.PutRequest
	get   pb.RangeRequest
	txn   pb.TxnRequest
	grant pb.LeaseGrantRequest
	renew pb.LeaseKeepAliveRequest

	// For watches: a value begins with the time since base, and audience counts
	// for how many watchers the keys written are.
	base     time.Time
	watchers []int64 // By number of key; nil: nobody counts.
	audience int64
}

func newSource(w *Workload, random *rand.Rand) *source {
	s := &source{w: w, random: random, noise: make([]byte, 2*w.ValueBytes+1024), keys: make([][]byte, max(w.Span, 2))}
	for i := range s.noise {
		s.noise[i] = byte(random.Uint32())
	}
	if w.Kind == Txn {
		for range w.Span {
			s.txn.Success = append(s.txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{}}})
		}
		s.txn.Compare = []*pb.Compare{{
			Result: pb.Compare_GREATER, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: -1},
		}}
	}
	return s
}

func (s *source) path() string { return paths[s.w.Kind] }

// key makes one key in the memory of an earlier one.
func (s *source) key(slot int, n int64) []byte {
	s.keys[slot] = s.w.AppendKey(s.keys[slot][:0], n)
	return s.keys[slot]
}

func (s *source) value() []byte {
	at := s.random.IntN(len(s.noise) - s.w.ValueBytes)
	v := s.noise[at : at+s.w.ValueBytes]
	if s.watchers != nil {
		binary.BigEndian.PutUint64(v, uint64(time.Since(s.base)))
	}
	return v
}

// first is the number of the first key of the n-th request.
func (s *source) first(n int64) int64 {
	span := int64(1)
	if s.w.Kind == Range || s.w.Kind == Txn {
		span = int64(s.w.Span)
	}
	if s.w.Sequential {
		return n % (s.w.KeySpace / span) * span
	}
	return s.random.Int64N(s.w.KeySpace - span + 1)
}

// newLease makes the request for a lease.
func (s *source) newLease() request {
	s.grant.TTL = s.w.TTL
	return &s.grant
}

// request makes the n-th request of the run, by the owner of a lease.
func (s *source) request(n, lease int64) request {
	switch s.w.Kind {
	case Put:
		first := s.first(n)
		if s.watchers != nil {
			s.audience += s.watchers[first]
		}
		s.put.Key, s.put.Value = s.key(0, first), s.value()
		return &s.put
	case Get, Range:
		first := s.first(n)
		s.get.Key, s.get.Serializable, s.get.KeysOnly = s.key(0, first), s.w.Serializable, s.w.KeysOnly
		if s.w.Kind == Range {
			s.get.RangeEnd, s.get.Limit = s.end(first+int64(s.w.Span)), int64(s.w.Span)
		}
		return &s.get
	case Txn:
		first := s.first(n)
		for i, op := range s.txn.Success {
			p := op.GetRequestPut()
			p.Key, p.Value = s.key(i, first+int64(i)), s.value()
		}
		s.txn.Compare[0].Key = s.txn.Success[0].GetRequestPut().Key
		return &s.txn
	case Renew:
		s.renew.ID = lease
		return &s.renew
	}
	return s.newLease()
}

// end is the key after the last one of a range.
func (s *source) end(n int64) []byte {
	if n < s.w.KeySpace {
		return s.key(1, n)
	}
	s.keys[1] = append(s.key(1, n-1), 0)
	return s.keys[1]
}

// Numbers of fields that are looked for in answers.
const (
	rangeCountField   = 4
	grantIDField      = 2
	watchCreatedField = 3
	watchCancelField  = 4
	watchEventField   = 11
	eventKVField      = 2
	kvValueField      = 5
)

// keysOf counts the keys in an answer.
func (s *source) keysOf(m []byte) int64 {
	switch s.w.Kind {
	case Get, Range:
		return number(m, rangeCountField)
	case Put:
		return 1
	case Txn:
		return int64(s.w.Span)
	}
	return 0
}

// number finds a field of a message without making anything of the rest. Zero
// if it is not there.
func number(m []byte, wanted protowire.Number) (found int64) {
	each(m, func(field protowire.Number, v uint64, _ []byte) {
		if field == wanted {
			found = int64(v)
		}
	})
	return found
}

// each calls fn for each field that is a number or has a length.
func each(m []byte, fn func(field protowire.Number, v uint64, b []byte)) {
	for len(m) > 0 {
		field, kind, n := protowire.ConsumeTag(m)
		if n < 0 {
			return
		}
		m = m[n:]
		var v uint64
		var b []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(m)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(m)
		default:
			n = protowire.ConsumeFieldValue(field, kind, m)
		}
		if n < 0 {
			return
		}
		fn(field, v, b)
		m = m[n:]
	}
}
