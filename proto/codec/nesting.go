package codec

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Numbers of the fields through which transactions nest.
const (
	txnSuccess protowire.Number = 2
	txnFailure protowire.Number = 3
	opTxn      protowire.Number = 4
)

// checkNesting refuses a request that nests too deep to be decoded. It looks at
// no more than the tags; other faults are the decoder's to find.
func checkNesting(m proto.Message, b []byte) error {
	switch m.(type) {
	case *etcdserverpb.TxnRequest:
		return checkTxn(b, 1)
	}
	return nil
}

func checkTxn(b []byte, depth int) error {
	if depth > nestingMax {
		return ErrNestedTooDeep
	}
	return eachMessage(b, func(field protowire.Number, op []byte) error {
		if field != txnSuccess && field != txnFailure {
			return nil
		}
		return eachMessage(op, func(field protowire.Number, txn []byte) error {
			if field != opTxn {
				return nil
			}
			return checkTxn(txn, depth+1)
		})
	})
}

// eachMessage calls f for the length-delimited fields of b, as far as b is sound.
func eachMessage(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return nil
			}
			b = b[n:]
			continue
		}
		content, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return nil
		}
		if err := f(num, content); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
