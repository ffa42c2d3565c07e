package server

import (
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
