package server

import (
	"testing"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func opPut(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func opDelete(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func opTxn(success, failure []*pb.RequestOp) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: success, Failure: failure}}}
}

func ops(list ...*pb.RequestOp) []*pb.RequestOp { return list }

func TestWhatATransactionMayWrite(t *testing.T) {
	for name, c := range map[string]struct {
		txn  *pb.TxnRequest
		want error
	}{
		"empty":                                {&pb.TxnRequest{}, nil},
		"one key in both branches":             {&pb.TxnRequest{Success: ops(opPut("a")), Failure: ops(opPut("a"))}, nil},
		"a key twice":                          {&pb.TxnRequest{Success: ops(opPut("a"), opPut("a"))}, errDuplicateKey},
		"a key put and deleted":                {&pb.TxnRequest{Failure: ops(opPut("b"), opDelete("a", "c"))}, errDuplicateKey},
		"a key beside a deleted range":         {&pb.TxnRequest{Success: ops(opPut("c"), opDelete("a", "c"))}, nil},
		"overlapping deletes":                  {&pb.TxnRequest{Success: ops(opDelete("a", "d"), opDelete("b", ""))}, nil},
		"both branches of one nested":          {&pb.TxnRequest{Success: ops(opTxn(ops(opPut("a")), ops(opPut("a"))))}, nil},
		"a nested one and its outer":           {&pb.TxnRequest{Success: ops(opTxn(ops(opPut("a")), nil), opPut("a"))}, errDuplicateKey},
		"two nested ones":                      {&pb.TxnRequest{Success: ops(opTxn(ops(opPut("a")), nil), opTxn(nil, ops(opPut("a"))))}, errDuplicateKey},
		"a nested delete over an outer put":    {&pb.TxnRequest{Success: ops(opTxn(ops(opDelete("a", "b")), nil), opPut("a"))}, errDuplicateKey},
		"an outer delete over a nested put":    {&pb.TxnRequest{Success: ops(opDelete("a", "\x00"), opTxn(nil, ops(opPut("z"))))}, errDuplicateKey},
		"a nested delete after a nested put":   {&pb.TxnRequest{Success: ops(opTxn(ops(opPut("a")), nil), opTxn(nil, ops(opDelete("a", "c"))))}, errDuplicateKey},
		"a nested delete beside a nested put":  {&pb.TxnRequest{Success: ops(opTxn(ops(opPut("c")), nil), opTxn(nil, ops(opDelete("a", "c"))))}, nil},
		"an operation that is none":            {&pb.TxnRequest{Success: ops(&pb.RequestOp{})}, errKeyNotFound},
		"no key in a put":                      {&pb.TxnRequest{Success: ops(opPut(""))}, errEmptyKey},
		"no key in a compare":                  {&pb.TxnRequest{Compare: []*pb.Compare{{}}}, errEmptyKey},
		"a nil compare":                        {&pb.TxnRequest{Compare: []*pb.Compare{nil}}, errEmptyKey},
		"more operations than allowed":         {&pb.TxnRequest{Success: ops(opPut("a"), opPut("b"), opPut("c"), opPut("d"))}, errTooManyOps},
		"more in the nested than what is left": {&pb.TxnRequest{Success: ops(opTxn(ops(opPut("a"), opPut("b"), opPut("c")), nil))}, errTooManyOps},
	} {
		if err := checkTxn(c.txn, 3); err != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestMalformedRequestsAreRefusedInTheWordsOfTheProtocol(t *testing.T) {
	for name, c := range map[string]struct{ got, want error }{
		"range without key":        {checkRange(&pb.RangeRequest{}), errEmptyKey},
		"range with bad order":     {checkRange(&pb.RangeRequest{Key: []byte("a"), SortOrder: 9}), errSortOption},
		"range with bad target":    {checkRange(&pb.RangeRequest{Key: []byte("a"), SortTarget: -1}), errSortOption},
		"put without key":          {checkPut(&pb.PutRequest{Value: []byte("v")}), errEmptyKey},
		"ignore_value and value":   {checkPut(&pb.PutRequest{Key: []byte("a"), Value: []byte("v"), IgnoreValue: true}), errValueProvided},
		"ignore_lease and lease":   {checkPut(&pb.PutRequest{Key: []byte("a"), Lease: 1, IgnoreLease: true}), errLeaseProvided},
		"delete without key":       {checkDelete(&pb.DeleteRangeRequest{RangeEnd: []byte("z")}), errEmptyKey},
		"no member URL":            {checkMemberURLs(nil), errMemberURLs},
		"a member URL of no use":   {checkMemberURLs([]string{"localhost"}), errMemberURLs},
		"a member URL and no port": {checkMemberURLs([]string{"http://localhost"}), errMemberURLs},
		"a good member URL":        {checkMemberURLs([]string{"https://localhost:1"}), nil},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}
