package model

import (
	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Validate says what is wrong with a request whatever the state.
func Validate(req proto.Message) error {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return validRange(r)
	case *pb.PutRequest:
		return validPut(r)
	case *pb.DeleteRangeRequest:
		return validKey(r.GetKey())
	case *pb.TxnRequest:
		if err := validTxn(r, OpsMax); err != nil {
			return err
		}
		for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
			if _, _, ok := writes(ops); !ok {
				return ErrDuplicateKey
			}
		}
	}
	return nil
}

func validKey(key []byte) error {
	if len(key) == 0 {
		return ErrEmptyKey
	}
	return nil
}

func validRange(r *pb.RangeRequest) error {
	if err := validKey(r.GetKey()); err != nil {
		return err
	}
	if r.SortOrder < pb.RangeRequest_NONE || r.SortOrder > pb.RangeRequest_DESCEND ||
		r.SortTarget < pb.RangeRequest_KEY || r.SortTarget > pb.RangeRequest_VALUE {
		return ErrSortOption
	}
	return nil
}

func validPut(r *pb.PutRequest) error {
	if err := validKey(r.GetKey()); err != nil {
		return err
	}
	if r.IgnoreValue && len(r.Value) > 0 {
		return ErrValueProvided
	}
	if r.IgnoreLease && r.Lease != 0 {
		return ErrLeaseProvided
	}
	return nil
}

// validTxn spends a budget of operations: a transaction costs its longest list,
// and each of those nested in it may spend what is left.
func validTxn(r *pb.TxnRequest, budget int) error {
	left := budget - max(len(r.GetCompare()), len(r.GetSuccess()), len(r.GetFailure()))
	if left < 0 {
		return ErrTooManyOps
	}
	for _, c := range r.GetCompare() {
		if err := validKey(c.GetKey()); err != nil {
			return err
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range ops {
			if err := validOp(op, left); err != nil {
				return err
			}
		}
	}
	return nil
}

func validOp(op *pb.RequestOp, budget int) error {
	switch v := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return validRange(v.RequestRange)
	case *pb.RequestOp_RequestPut:
		return validPut(v.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return validKey(v.RequestDeleteRange.GetKey())
	case *pb.RequestOp_RequestTxn:
		return validTxn(v.RequestTxn, budget)
	}
	return ErrKeyNotFound
}

// writes lists the keys that a branch may put and the ranges that it may
// delete, at any depth. It is not ok when a key is put twice, or put and also
// deleted at any depth. The two sides of one nested transaction may overlap,
// since only one of them runs.
func writes(ops []*pb.RequestOp) (puts []string, deletes []*pb.DeleteRangeRequest, ok bool) {
	put := map[string]bool{}
	add := func(keys []string) bool {
		for _, k := range keys {
			for _, d := range deletes {
				if Within(k, d.Key, d.RangeEnd) {
					return false
				}
			}
			if put[k] {
				return false
			}
		}
		return true
	}
	for _, op := range ops {
		if d := op.GetRequestDeleteRange(); d != nil {
			deletes = append(deletes, d)
		}
	}
	for _, op := range ops {
		inner := op.GetRequestTxn()
		if inner == nil {
			continue
		}
		yesPuts, yesDeletes, yesOK := writes(inner.GetSuccess())
		noPuts, noDeletes, noOK := writes(inner.GetFailure())
		if !yesOK || !noOK || !add(yesPuts) || !add(noPuts) {
			return nil, nil, false
		}
		for k := range put {
			for _, d := range append(yesDeletes, noDeletes...) {
				if Within(k, d.Key, d.RangeEnd) {
					return nil, nil, false
				}
			}
		}
		for _, k := range append(yesPuts, noPuts...) {
			put[k] = true
		}
		deletes = append(append(deletes, yesDeletes...), noDeletes...)
	}
	for _, op := range ops {
		if p := op.GetRequestPut(); p != nil {
			if !add([]string{string(p.Key)}) {
				return nil, nil, false
			}
			put[string(p.Key)] = true
		}
	}
	for k := range put {
		puts = append(puts, k)
	}
	return puts, deletes, true
}
