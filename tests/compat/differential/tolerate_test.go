package differential

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// tolerated is a difference that is meant, a row of docs/differences.md.
type tolerated struct {
	row   string
	field protoreflect.FullName                             // Of a message, or empty.
	value func(ours, theirs protoreflect.Value) bool        // Whether these two values of the field may stand.
	fails func(req proto.Message, ours, theirs answer) bool // Whether these two answers may stand, where one is an error.
}

func bothPositive(ours, theirs protoreflect.Value) bool {
	return ours.Int() > 0 && theirs.Int() > 0
}

func bothPositiveUnsigned(ours, theirs protoreflect.Value) bool {
	return ours.Uint() > 0 && theirs.Uint() > 0
}

func bothThere(ours, theirs protoreflect.Value) bool { return true }

// meant has a matcher for each row of the page that a test can meet.
var meant = []tolerated{
	{row: "hash", field: "etcdserverpb.HashResponse.hash", value: bothThere},
	{row: "hash-kv", field: "etcdserverpb.HashKVResponse.hash", value: bothThere},
	{row: "hash-kv-compact-revision", field: "etcdserverpb.HashKVResponse.compact_revision", value: func(ours, theirs protoreflect.Value) bool {
		return ours.Int() > theirs.Int()
	}},
	{row: "hash-kv-revision", field: "etcdserverpb.HashKVResponse.hash_revision", value: func(ours, theirs protoreflect.Value) bool {
		return ours.Int() > 0 && theirs.Int() <= 0
	}},
	{row: "watch-compacted-cancel", field: "etcdserverpb.WatchResponse.canceled"}, // Matched where streams are read.
	{row: "raft-index", field: "etcdserverpb.StatusResponse.raftIndex", value: bothPositiveUnsigned},
	{row: "raft-applied-index", field: "etcdserverpb.StatusResponse.raftAppliedIndex", value: bothPositiveUnsigned},
	{row: "sort-ties", field: "etcdserverpb.RangeResponse.kvs"},               // Matched by sameButTies.
	{row: "role-grant-again", field: "etcdserverpb.AuthRoleGetResponse.perm"}, // Matched by sameButRepeated.
	{row: "txn-empty-nobody", fails: func(req proto.Message, ours, theirs answer) bool {
		t, ok := req.(*pb.TxnRequest)
		return ok && len(t.Compare)+len(t.Success)+len(t.Failure) == 0 && theirs.msg != nil && failed(ours, codes.InvalidArgument, "etcdserver: user name is empty")
	}},
	{row: "empty-range-permission", fails: func(req proto.Message, ours, theirs answer) bool {
		r, ok := req.(*pb.RangeRequest)
		return ok && len(r.RangeEnd) > 0 && bytes.Compare(r.Key, r.RangeEnd) >= 0 && ours.msg != nil && failed(theirs, codes.PermissionDenied, "etcdserver: permission denied")
	}},
	{row: "undecodable", fails: func(_ proto.Message, ours, theirs answer) bool {
		return failed(ours, codes.Internal, "grpc: failed to unmarshal the received message: ") &&
			failed(theirs, codes.Internal, "grpc: error unmarshalling request: ")
	}},
	{row: "hash-kv-compacted", fails: func(req proto.Message, ours, theirs answer) bool {
		r, isHash := req.(*pb.HashKVRequest)
		kept, isAnswer := theirs.msg.(*pb.HashKVResponse)
		return isHash && isAnswer && kept.HashRevision == r.Revision && kept.CompactRevision < r.Revision &&
			failed(ours, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
	}},
	{row: "txn-delete-from-key", fails: func(req proto.Message, ours, theirs answer) bool {
		r, ok := req.(*pb.TxnRequest)
		return ok && deletesFromKey(r) && // etcd goes on, and may refuse it for something else.
			failed(ours, codes.InvalidArgument, "etcdserver: duplicate key given in txn request")
	}},
	{row: "txn-nested-put-delete", fails: func(req proto.Message, ours, theirs answer) bool {
		r, ok := req.(*pb.TxnRequest)
		return ok && (nestsTwice(r.Success) || nestsTwice(r.Failure)) && // As above.
			failed(ours, codes.InvalidArgument, "etcdserver: duplicate key given in txn request")
	}},
	{row: "member-update-urls", fails: func(req proto.Message, ours, theirs answer) bool {
		r, ok := req.(*pb.MemberUpdateRequest)
		return ok && len(r.PeerURLs) == 0 && (theirs.msg != nil || failed(theirs, codes.NotFound, "etcdserver: member not found")) &&
			failed(ours, codes.InvalidArgument, "etcdserver: given member URLs are invalid")
	}},
	{row: "member-url-unix", fails: func(req proto.Message, ours, theirs answer) bool {
		r, ok := req.(*pb.MemberAddRequest)
		return ok && slices.ContainsFunc(r.PeerURLs, func(u string) bool { return strings.HasPrefix(u, "unix") }) && theirs.msg != nil &&
			failed(ours, codes.InvalidArgument, "etcdserver: given member URLs are invalid")
	}},
}

// deletesFromKey tells whether a branch of a transaction deletes from a key on.
func deletesFromKey(t *pb.TxnRequest) bool {
	return slices.ContainsFunc(slices.Concat(t.Success, t.Failure), func(op *pb.RequestOp) bool {
		end := op.GetRequestDeleteRange().GetRangeEnd()
		return len(end) == 1 && end[0] == 0 || op.GetRequestTxn() != nil && deletesFromKey(op.GetRequestTxn())
	})
}

// nestsTwice tells whether a branch, or one within it, nests two transactions.
func nestsTwice(branch []*pb.RequestOp) bool {
	nested := 0
	for _, op := range branch {
		if t := op.GetRequestTxn(); t != nil {
			nested++
			if nested > 1 || nestsTwice(t.Success) || nestsTwice(t.Failure) {
				return true
			}
		}
	}
	return false
}

func failed(a answer, code codes.Code, words string) bool {
	return a.msg == nil && a.st.Code() == code && strings.HasPrefix(a.st.Message(), words)
}

// unsteady are values that two etcds do not agree on either.
var unsteady = []tolerated{
	// Pages are given back when transactions end, in the background.
	{row: "size", field: "etcdserverpb.StatusResponse.dbSize", value: bothPositive},
	{row: "size in use", field: "etcdserverpb.StatusResponse.dbSizeInUse", value: bothPositive},
	// Whole seconds that remain: the sides are asked a moment apart, and a busy machine holds one up.
	{row: "time to live", field: "etcdserverpb.LeaseTimeToLiveResponse.TTL", value: func(ours, theirs protoreflect.Value) bool {
		return ours.Int() > 0 && theirs.Int() > 0 && max(ours.Int(), theirs.Int())-min(ours.Int(), theirs.Int()) <= 30
	}},
}

// steady puts what has no order into one.
func steady(m proto.Message) {
	if r, ok := m.(*pb.LeaseTimeToLiveResponse); ok {
		slices.SortFunc(r.Keys, bytes.Compare)
	}
	if r, ok := m.(*pb.StatusResponse); ok { // protobuf's text form has one space in some builds and two in others, by design.
		for i, words := range r.Errors {
			r.Errors[i] = spaces.ReplaceAllString(words, " ")
		}
	}
	if r, ok := m.(interface{ GetMembers() []*pb.Member }); ok { // By IDs that each side has drawn.
		slices.SortFunc(r.GetMembers(), func(a, b *pb.Member) int { return cmp.Compare(a.ID, b.ID) })
	}
}

// met counts how often each row was needed.
var met struct {
	sync.Mutex
	rows map[string]int
}

func meet(row string) {
	met.Lock()
	defer met.Unlock()
	if met.rows == nil {
		met.rows = map[string]int{}
	}
	met.rows[row]++
}

// settle makes a copy of one side's message equal to the other's where they may
// differ.
func settle(rows []tolerated, ours, theirs protoreflect.Message) {
	fields := ours.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Message() != nil && ours.Has(f) != theirs.Has(f) {
			continue
		}
		switch mine, other := ours.Get(f), theirs.Get(f); {
		case mine.Equal(other):
		case f.FullName() == "etcdserverpb.RangeResponse.kvs" && sameButTies(mine.List(), other.List()):
			meet("sort-ties")
			ours.Set(f, other)
		case f.FullName() == "etcdserverpb.AuthRoleGetResponse.perm" && sameButRepeated(mine.List(), other.List()):
			meet("role-grant-again")
			ours.Set(f, other)
		case f.Message() != nil && f.IsList():
			for j := 0; j < mine.List().Len() && j < other.List().Len(); j++ {
				settle(rows, mine.List().Get(j).Message(), other.List().Get(j).Message())
			}
		case f.Message() != nil:
			settle(rows, mine.Message(), other.Message())
		default:
			for _, row := range rows {
				if row.value != nil && row.field == f.FullName() && row.value(mine, other) {
					meet(row.row)
					ours.Set(f, other)
				}
			}
		}
	}
}

// sameButRepeated tells whether their permissions are ours, and more for ranges
// that ours has.
func sameButRepeated(ours, theirs protoreflect.List) bool {
	ranges := map[string]bool{}
	left := map[string]int{}
	for i := range theirs.Len() {
		left[theirs.Get(i).Message().Interface().(*authpb.Permission).String()]++
	}
	for i := range ours.Len() {
		p := ours.Get(i).Message().Interface().(*authpb.Permission)
		ranges[string(p.Key)+" "+string(p.RangeEnd)] = true
		if left[p.String()]--; left[p.String()] < 0 {
			return false
		}
	}
	for i := range theirs.Len() {
		p := theirs.Get(i).Message().Interface().(*authpb.Permission)
		if !ranges[string(p.Key)+" "+string(p.RangeEnd)] {
			return false
		}
	}
	return ours.Len() < theirs.Len()
}

// sameButTies tells whether two sorted answers hold other keys only where those
// are equal in what they are sorted by.
func sameButTies(ours, theirs protoreflect.List) bool {
	if ours.Len() != theirs.Len() {
		return false
	}
	kv := func(l protoreflect.List, i int) *mvccpb.KeyValue {
		return l.Get(i).Message().Interface().(*mvccpb.KeyValue)
	}
	different := false
	for i := range ours.Len() {
		different = different || !proto.Equal(kv(ours, i), kv(theirs, i))
	}
	if !different {
		return false
	}
	for _, by := range []func(a, b *mvccpb.KeyValue) int{
		func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.Version, b.Version) },
		func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) },
		func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) },
		func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) },
	} {
		equal, rising, falling := true, true, true
		for i := range ours.Len() {
			equal = equal && by(kv(ours, i), kv(theirs, i)) == 0
			rising = rising && (i == 0 || by(kv(ours, i-1), kv(ours, i)) <= 0)
			falling = falling && (i == 0 || by(kv(ours, i-1), kv(ours, i)) >= 0)
		}
		if equal && (rising || falling) {
			return true
		}
	}
	return false
}

// same tells whether two messages are equal, but for what may differ.
func same(ours, theirs proto.Message) bool {
	if proto.Equal(ours, theirs) {
		return true
	}
	if ours.ProtoReflect().Descriptor() != theirs.ProtoReflect().Descriptor() {
		return false // An event, and the end of a watch.
	}
	ours, theirs = proto.Clone(ours), proto.Clone(theirs)
	steady(ours)
	steady(theirs)
	settle(append(slices.Clone(unsteady), meant...), ours.ProtoReflect(), theirs.ProtoReflect())
	return proto.Equal(ours, theirs)
}

// compare fails the test if two answers are not the same.
func (p *pair) compare(name string, req proto.Message, ours, theirs answer) {
	p.t.Helper()
	if ours.msg != nil && theirs.msg != nil {
		if !same(ours.msg, theirs.msg) {
			p.differ(name, req, ours, theirs)
		}
		return
	}
	if ours.msg == nil && theirs.msg == nil && ours.st.Code() == theirs.st.Code() && ours.st.Message() == theirs.st.Message() {
		return
	}
	for _, row := range meant {
		if row.fails != nil && row.fails(req, ours, theirs) {
			meet(row.row)
			return
		}
	}
	p.differ(name, req, ours, theirs)
}

func (p *pair) differ(name string, req proto.Message, ours, theirs answer) {
	p.t.Helper()
	p.differences.Add(1)
	p.t.Errorf("%s%s%s\n  %-8s %v\n  %-8s %v", p.place(), name, text(req), p.ours.side, ours, p.theirs.side, theirs)
}

var (
	spaces   = regexp.MustCompile(`  +`)
	repeated = regexp.MustCompile(`((?:long){4})(?:long)+`)
)

// text is a message on one line, cut where it gets long.
func text(m proto.Message) string {
	s := "{" + spaces.ReplaceAllString(prototext.MarshalOptions{EmitUnknown: true}.Format(m), " ") + "}"
	s = repeated.ReplaceAllString(s, "$1…")
	const shown = 2000
	if len(s) > shown {
		s = fmt.Sprintf("%s… (%d characters)", s[:shown], len(s))
	}
	return s
}

var tableRow = regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| `([^`]+)` \\|")

func TestEachToleratedDifferenceIsARowOfThePage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(member.Root(), "docs", "differences.md"))
	if err != nil {
		t.Fatal(err)
	}
	var written, matched []string
	for _, m := range tableRow.FindAllStringSubmatch(string(page), -1) {
		written = append(written, m[1]+" "+m[2])
	}
	for _, row := range meant {
		field := string(row.field)
		if row.fails != nil {
			field = "error"
		}
		matched = append(matched, row.row+" "+field)
	}
	sort.Strings(written)
	sort.Strings(matched)
	if !slices.Equal(written, matched) {
		t.Errorf("docs/differences.md has the rows\n  %s\nand the test matches\n  %s", strings.Join(written, "\n  "), strings.Join(matched, "\n  "))
	}
}
