package server

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// written is one operation and where it stands: at each depth which nested
// transaction, and which of its branches.
type written struct {
	at  [][2]int
	put []byte
	del *pb.DeleteRangeRequest
}

func flat(branch []*pb.RequestOp, at [][2]int) (all []written) {
	for i, op := range branch {
		switch v := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			all = append(all, written{at: at, put: v.RequestPut.Key})
		case *pb.RequestOp_RequestDeleteRange:
			all = append(all, written{at: at, del: v.RequestDeleteRange})
		case *pb.RequestOp_RequestTxn:
			all = append(all, flat(v.RequestTxn.Success, append(at[:len(at):len(at)], [2]int{i, 0}))...)
			all = append(all, flat(v.RequestTxn.Failure, append(at[:len(at):len(at)], [2]int{i, 1}))...)
		}
	}
	return all
}

// bothRun reports whether there is a run of the transaction that executes both.
func bothRun(a, b written) bool {
	for d := 0; d < len(a.at) && d < len(b.at); d++ {
		if a.at[d] != b.at[d] {
			return a.at[d][0] != b.at[d][0]
		}
	}
	return true
}

func collide(a, b written) bool {
	switch {
	case a.put != nil && b.put != nil:
		return bytes.Equal(a.put, b.put)
	case a.put != nil:
		return collide(b, a)
	case b.put == nil:
		return false
	case len(a.del.RangeEnd) == 0:
		return bytes.Equal(a.del.Key, b.put)
	}
	return bytes.Compare(b.put, a.del.Key) >= 0 && (string(a.del.RangeEnd) == "\x00" || bytes.Compare(b.put, a.del.RangeEnd) < 0)
}

func randomBranch(r *rand.Rand, depth int) (list []*pb.RequestOp) {
	key := func() string { return string('a' + rune(r.IntN(12))) }
	for range r.IntN(4) {
		switch n := r.IntN(6); {
		case n < 2:
			list = append(list, opPut(key()))
		case n < 4:
			list = append(list, opDelete(key(), []string{"", key(), key(), "\x00", "a\x00"}[r.IntN(5)]))
		case depth > 0:
			list = append(list, opTxn(randomBranch(r, depth-1), randomBranch(r, depth-1)))
		}
	}
	return list
}

func TestABranchIsRefusedIfTwoOfItsOperationsCollide(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	refused := 0
	const runs = 20_000
	for range runs {
		branch := randomBranch(r, 3)
		var want error
		all := flat(branch, nil)
		for i := range all {
			for j := range i {
				if bothRun(all[i], all[j]) && collide(all[i], all[j]) {
					want = errDuplicateKey
				}
			}
		}
		w, err := writesOf(branch)
		if err != want {
			t.Fatalf("%v: %v, want %v", branch, err, want)
		}
		for i := 1; err == nil && i < len(w.deletes); i++ { // What the search relies on.
			if a, b := w.deletes[i-1], w.deletes[i]; a.end == nil || bytes.Compare(a.end, b.from) >= 0 {
				t.Fatalf("%v: deletes %q and %q", branch, a, b)
			}
		}
		if want != nil {
			refused++
		}
	}
	if refused < runs/10 || refused > runs*9/10 {
		t.Errorf("%d of %d were refused: that shows little", refused, runs)
	}
}

// BenchmarkCheckOfManyOperations asks what a request as large as one may be costs before
// anybody knows who sent it. Were each put compared with each deletion, it would be
// seconds.
func BenchmarkCheckOfManyOperations(b *testing.B) {
	n := 0
	var branch func(depth int) []*pb.RequestOp
	branch = func(depth int) (list []*pb.RequestOp) {
		for range 42 {
			switch n++; {
			case depth > 0:
				list = append(list, opTxn(branch(depth-1), nil))
			case n%2 == 0:
				list = append(list, opPut(fmt.Sprintf("a%d", n)))
			default:
				list = append(list, opDelete(fmt.Sprintf("b%d", n), ""))
			}
		}
		return list
	}
	txn := &pb.TxnRequest{Success: branch(2)}
	b.SetBytes(int64(txn.SizeVT()))
	b.ReportAllocs()
	for b.Loop() {
		if err := checkTxn(txn, TxnOpsMaxDefault); err != nil {
			b.Fatal(err)
		}
	}
}
