package server

import (
	"bytes"
	"slices"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func checkRange(r *pb.RangeRequest) error {
	if len(r.GetKey()) == 0 {
		return errEmptyKey
	}
	if _, ok := pb.RangeRequest_SortOrder_name[int32(r.SortOrder)]; !ok {
		return errSortOption
	}
	if _, ok := pb.RangeRequest_SortTarget_name[int32(r.SortTarget)]; !ok {
		return errSortOption
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.GetKey()) == 0:
		return errEmptyKey
	case r.IgnoreValue && len(r.Value) != 0:
		return errValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return errLeaseProvided
	}
	return nil
}

func checkDelete(r *pb.DeleteRangeRequest) error {
	if len(r.GetKey()) == 0 {
		return errEmptyKey
	}
	return nil
}

// checkTxn refuses a transaction that is malformed, too large, or writes a key
// twice in one branch.
func checkTxn(r *pb.TxnRequest, opsMax int) error {
	if err := checkTxnOps(r, opsMax); err != nil {
		return err
	}
	// After the budget, so that nobody can make this costly.
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		if _, err := writesOf(branch); err != nil {
			return err
		}
	}
	return nil
}

// checkTxnOps spends the budget of operations: the largest of the three lists
// counts, and what is left is shared by each nested transaction.
func checkTxnOps(r *pb.TxnRequest, budget int) error {
	ops := max(len(r.GetCompare()), len(r.GetSuccess()), len(r.GetFailure()))
	if ops > budget {
		return errTooManyOps
	}
	for _, c := range r.GetCompare() {
		if len(c.GetKey()) == 0 {
			return errEmptyKey
		}
	}
	for _, branch := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			if err := checkOp(op, budget-ops); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, budget int) error {
	switch v := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return checkRange(v.RequestRange)
	case *pb.RequestOp_RequestPut:
		return checkPut(v.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return checkDelete(v.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxnOps(v.RequestTxn, budget)
	}
	return errKeyNotFound
}

// writes is what a branch may write.
type writes struct {
	puts    map[string]bool
	deletes []keyRange
}

type keyRange struct{ key, end []byte } // As on the wire: no end is one key, a zero byte is from key on.

func (k keyRange) has(key string) bool {
	switch {
	case len(k.end) == 0:
		return string(k.key) == key
	case len(k.end) == 1 && k.end[0] == 0:
		return bytes.Compare([]byte(key), k.key) >= 0
	}
	return bytes.Compare([]byte(key), k.key) >= 0 && bytes.Compare([]byte(key), k.end) < 0
}

func (w *writes) deleted(key string) bool {
	return slices.ContainsFunc(w.deletes, func(k keyRange) bool { return k.has(key) })
}

// writesOf gathers what a branch writes, or fails when a key is put twice, or
// put and deleted. Only one branch of a nested transaction runs, so its two
// branches may overlap each other.
func writesOf(branch []*pb.RequestOp) (*writes, error) {
	w := &writes{puts: map[string]bool{}}
	for _, op := range branch {
		if d := op.GetRequestDeleteRange(); d != nil {
			w.deletes = append(w.deletes, keyRange{d.Key, d.RangeEnd})
		}
	}
	for _, op := range branch {
		if t := op.GetRequestTxn(); t != nil {
			if err := w.addNested(t); err != nil {
				return nil, err
			}
		}
	}
	for _, op := range branch {
		if p := op.GetRequestPut(); p != nil {
			key := string(p.Key)
			if w.puts[key] || w.deleted(key) {
				return nil, errDuplicateKey
			}
			w.puts[key] = true
		}
	}
	return w, nil
}

func (w *writes) addNested(t *pb.TxnRequest) error {
	yes, err := writesOf(t.Success)
	if err != nil {
		return err
	}
	no, err := writesOf(t.Failure)
	if err != nil {
		return err
	}
	for _, side := range []*writes{yes, no} {
		for key := range side.puts { //tidy:ordered only whether there is an overlap matters
			if w.puts[key] || w.deleted(key) {
				return errDuplicateKey
			}
		}
		for key := range w.puts { //tidy:ordered as above
			if side.deleted(key) {
				return errDuplicateKey
			}
		}
	}
	for _, side := range []*writes{yes, no} {
		for key := range side.puts { //tidy:ordered a set
			w.puts[key] = true
		}
		w.deletes = append(w.deletes, side.deletes...)
	}
	return nil
}
