package statemachine

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// rowsOf is some keys, for conditions to be held against.
type rowsOf []*mvccpb.KeyValue

func (r rowsOf) Revision() ident.Revision  { return 9 }
func (r rowsOf) Compacted() ident.Revision { return 1 }

func (r rowsOf) Range(a mvcc.RangeArgs) (*mvcc.RangeResult, error) {
	res := &mvcc.RangeResult{}
	for _, kv := range r {
		if within(string(kv.Key), string(a.Key), string(a.End)) {
			row, err := kv.MarshalVT()
			if err != nil {
				return nil, err
			}
			res.KVs = append(res.KVs, row)
		}
	}
	return res, nil
}

func within(key, from, end string) bool {
	return end == "" && key == from || end == "\x00" && key >= from || end != "" && end != "\x00" && key >= from && key < end
}

// FuzzCompare holds any condition against a few keys, and against the words of
// the protocol written out the long way.
func FuzzCompare(f *testing.F) {
	rows := rowsOf{
		{Key: []byte("a"), Value: []byte("x"), CreateRevision: 2, ModRevision: 5, Version: 3},
		{Key: []byte("b"), CreateRevision: 3, ModRevision: 3, Version: 1, Lease: 7},
		{Key: []byte("c\x00"), Value: []byte("xy"), CreateRevision: 9, ModRevision: 9, Version: 1, Lease: -1},
	}
	for _, c := range []*pb.Compare{
		{Key: []byte("a"), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte("x")}},
		{Key: []byte("a"), RangeEnd: []byte{0}, Result: pb.Compare_GREATER, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 2}},
		{Key: []byte("b"), RangeEnd: []byte("c"), Result: pb.Compare_NOT_EQUAL, Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: 7}},
		{Key: []byte("z"), Result: pb.Compare_LESS, Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 1}},
		{Key: []byte("z"), Target: pb.Compare_VERSION}, {Key: []byte("z"), Result: pb.Compare_NOT_EQUAL, Target: pb.Compare_VALUE}, {Result: 9, Target: 9},
	} {
		data, err := c.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &pb.Compare{}
		if c.UnmarshalVT(data) != nil {
			return
		}
		got, err := holds(rows, c)
		if err != nil {
			t.Fatal(err)
		}
		if want := holdsSlowly(rows, c); got != want {
			t.Errorf("%v holds: %v, want %v", c, got, want)
		}
	})
}

func holdsSlowly(rows rowsOf, c *pb.Compare) bool {
	var found rowsOf
	for _, kv := range rows {
		if within(string(kv.Key), string(c.Key), string(c.RangeEnd)) {
			found = append(found, kv)
		}
	}
	if len(found) == 0 {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		found = rowsOf{{}}
	}
	// The orders in which a result is met: -1, 0, 1.
	met := map[pb.Compare_CompareResult][]int{
		pb.Compare_EQUAL: {0}, pb.Compare_NOT_EQUAL: {-1, 1}, pb.Compare_GREATER: {1}, pb.Compare_LESS: {-1},
	}
	for _, kv := range found {
		order := 0
		switch c.Target {
		case pb.Compare_VERSION:
			order = cmp.Compare(kv.Version, c.GetVersion())
		case pb.Compare_CREATE:
			order = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
		case pb.Compare_MOD:
			order = cmp.Compare(kv.ModRevision, c.GetModRevision())
		case pb.Compare_LEASE:
			order = cmp.Compare(kv.Lease, c.GetLease())
		case pb.Compare_VALUE:
			order = strings.Compare(string(kv.Value), string(c.GetValue()))
		}
		if orders, known := met[c.Result]; known && !slices.Contains(orders, order) {
			return false
		}
	}
	return true
}

// TestAConditionOnManyKeysLooksAtAllOfThem holds conditions against more than is read
// at a time.
func TestAConditionOnManyKeysLooksAtAllOfThem(t *testing.T) {
	f := newFixture(t)
	value := strings.Repeat("v", comparePartBytes*2/5)
	const last = 7 // Its key is made by the last of the puts.
	for i := range last {
		f.apply(put(string('a'+rune(i)), value))
	}
	for name, c := range map[string]struct {
		end  string
		is   pb.Compare_CompareResult
		mod  int64
		want bool
	}{
		"all are later than the first revision": {"\x00", pb.Compare_GREATER, 1, true},
		"the last one is not earlier":           {"\x00", pb.Compare_LESS, last + 1, false},
		"all but the last are":                  {"g", pb.Compare_LESS, last + 1, true},
		"the first one is not later":            {"\x00", pb.Compare_GREATER, 2, false},
	} {
		got, err := f.one(&holdfastpb.Command{Command: &holdfastpb.Command_Txn{Txn: &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte("a"), RangeEnd: []byte(c.end), Result: c.is, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: c.mod}}},
		}}})
		if err != nil || got.(*pb.TxnResponse).Succeeded != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
