package server

import (
	"testing"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// FuzzRequestChecks gives every check of a request whatever decodes as one. A
// request is refused or passed on, whatever it holds.
func FuzzRequestChecks(f *testing.F) {
	for _, r := range []*pb.TxnRequest{
		{},
		{Compare: []*pb.Compare{{Key: []byte("a")}}, Success: ops(opPut("a"), opDelete("b", "\x00"), opTxn(ops(opPut("c")), nil))},
		{Failure: ops(&pb.RequestOp{}, opTxn(nil, ops(opTxn(nil, nil))))},
	} {
		data, err := r.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		txn := &pb.TxnRequest{}
		if txn.UnmarshalVT(data) == nil {
			err := checkTxn(txn, TxnOpsMaxDefault)
			if err == nil && max(len(txn.Compare), len(txn.Success), len(txn.Failure)) > TxnOpsMaxDefault {
				t.Fatal("a transaction over the limit was passed on")
			}
			costOfTxn(txn)
		}
		r := &pb.RangeRequest{}
		if r.UnmarshalVT(data) == nil && checkRange(r) == nil && len(r.Key) == 0 {
			t.Fatal("a range without a key was passed on")
		}
		p := &pb.PutRequest{}
		if p.UnmarshalVT(data) == nil && checkPut(p) == nil && (len(p.Key) == 0 || p.IgnoreValue && len(p.Value) > 0 || p.IgnoreLease && p.Lease != 0) {
			t.Fatalf("a put was passed on that contradicts itself: %v", p)
		}
		d := &pb.DeleteRangeRequest{}
		if d.UnmarshalVT(data) == nil && checkDelete(d) == nil && len(d.Key) == 0 {
			t.Fatal("a delete without a key was passed on")
		}
		m := &pb.MemberAddRequest{}
		if m.UnmarshalVT(data) == nil && checkMemberURLs(m.PeerURLs) == nil && len(m.PeerURLs) == 0 {
			t.Fatal("a member without URLs was passed on")
		}
	})
}
