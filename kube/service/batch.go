package service

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// batch is one transaction for nf_tables, written as it goes to the kernel. The
// library's own connection makes several objects of each element, of which there are
// 64 a port, and has each message acknowledged: a thousand services took it twice as
// long. Of expressions it knows more than is worth repeating.
//
// It is written into pieces, which the kernel gathers: a thousand services are three
// megabytes, and those of one whole that grows would be there three times.
type batch struct {
	table  string
	pieces [][]byte // Each of whole messages, as they are sent.
	last   int      // Where the last message begins in the last piece.
	count  uint32   // Of messages.
	err    error    // The first of writing.
}

const family = unix.NFPROTO_IPV4

// attributes are those of a message.
type attributes struct{ b []byte }

const attributeHeader = 4 // Length and type.

func (a *attributes) add(kind int, value []byte) {
	a.b = binary.NativeEndian.AppendUint16(a.b, uint16(attributeHeader+len(value)))
	a.b = binary.NativeEndian.AppendUint16(a.b, uint16(kind))
	a.b = append(a.b, value...)
	a.pad()
}

func (a *attributes) pad() {
	for len(a.b)%attributeHeader != 0 {
		a.b = append(a.b, 0)
	}
}

func (a *attributes) number(kind int, n uint32) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	a.add(kind, b[:])
}

func (a *attributes) text(kind int, s string) {
	a.b = binary.NativeEndian.AppendUint16(a.b, uint16(attributeHeader+len(s)+1))
	a.b = binary.NativeEndian.AppendUint16(a.b, uint16(kind))
	a.b = append(append(a.b, s...), 0)
	a.pad()
}

// begin begins an attribute of attributes; end writes its length.
func (a *attributes) begin(kind int) int {
	at := len(a.b)
	a.add(kind|unix.NLA_F_NESTED, nil)
	return at
}

func (a *attributes) end(at int) error {
	length := len(a.b) - at
	if length > math.MaxUint16 {
		return fmt.Errorf("an attribute of %d bytes, it can have %d", length, math.MaxUint16)
	}
	binary.NativeEndian.PutUint16(a.b[at:], uint16(length))
	return nil
}

// Of the header of a message.
const (
	lengthOffset = 0
	flagsOffset  = 6
)

// message adds a message about the table, whose name goes into the attribute tableKind.
func (b *batch) message(kind int, flags netlink.HeaderFlags, tableKind int, f func(*attributes) error) {
	if b.count == 0 {
		b.mark(unix.NFNL_MSG_BATCH_BEGIN)
	}
	b.write(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, []byte{family, unix.NFNETLINK_V0, 0, 0}, func(a *attributes) error {
		a.text(tableKind, b.table)
		if f == nil {
			return nil
		}
		return f(a)
	})
}

// mark begins the transaction, or ends it.
func (b *batch) mark(kind int) {
	// The subsystem in 16 bits, big-endian.
	b.write(kind, 0, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}, func(*attributes) error { return nil })
}

func (b *batch) write(kind int, flags netlink.HeaderFlags, head []byte, f func(*attributes) error) {
	switch n := len(b.pieces); {
	case n == 0: // It grows: mostly it is one change.
		b.pieces = [][]byte{make([]byte, 0, pieceRest)}
	case len(b.pieces[n-1]) > pieceBytes-pieceRest:
		b.pieces = append(b.pieces, make([]byte, 0, pieceBytes))
	}
	piece := &b.pieces[len(b.pieces)-1]
	b.last, b.count = len(*piece), b.count+1
	a := &attributes{b: *piece}
	a.b = binary.NativeEndian.AppendUint32(a.b, 0) // The length.
	a.b = binary.NativeEndian.AppendUint16(a.b, uint16(kind))
	a.b = binary.NativeEndian.AppendUint16(a.b, uint16(netlink.Request|flags))
	a.b = binary.NativeEndian.AppendUint32(a.b, b.count) // A number of its own.
	a.b = binary.NativeEndian.AppendUint32(a.b, 0)       // The socket's, which the kernel knows.
	a.b = append(a.b, head...)
	if err := f(a); err != nil && b.err == nil {
		b.err = err
	}
	*piece = a.b
	binary.NativeEndian.PutUint32(a.b[b.last+lengthOffset:], uint32(len(a.b)-b.last))
}

func (b *batch) addTable() {
	b.message(unix.NFT_MSG_NEWTABLE, netlink.Create, unix.NFTA_TABLE_NAME, nil)
}
func (b *batch) deleteTable() {
	b.message(unix.NFT_MSG_DELTABLE, 0, unix.NFTA_TABLE_NAME, nil)
}

// hook is where packets enter a chain.
type hook struct {
	kind     string // "nat" or "filter".
	at       uint32
	priority int32
}

// addChain adds a chain. Without a hook others lead there.
func (b *batch) addChain(name string, h *hook) {
	b.message(unix.NFT_MSG_NEWCHAIN, netlink.Create, unix.NFTA_CHAIN_TABLE, func(a *attributes) error {
		a.text(unix.NFTA_CHAIN_NAME, name)
		if h == nil {
			return nil
		}
		at := a.begin(unix.NFTA_CHAIN_HOOK)
		a.number(unix.NFTA_HOOK_HOOKNUM, h.at)
		a.number(unix.NFTA_HOOK_PRIORITY, uint32(h.priority))
		err := a.end(at)
		a.text(unix.NFTA_CHAIN_TYPE, h.kind)
		return err
	})
}

// deleteChain deletes a chain with its rules.
func (b *batch) deleteChain(name string) {
	b.message(unix.NFT_MSG_DELRULE, 0, unix.NFTA_RULE_TABLE, func(a *attributes) error {
		a.text(unix.NFTA_RULE_CHAIN, name)
		return nil
	})
	b.message(unix.NFT_MSG_DELCHAIN, 0, unix.NFTA_CHAIN_TABLE, func(a *attributes) error {
		a.text(unix.NFTA_CHAIN_NAME, name)
		return nil
	})
}

func (b *batch) addRule(chain string, exprs []expr.Any) {
	b.message(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, unix.NFTA_RULE_TABLE, func(a *attributes) error {
		a.text(unix.NFTA_RULE_CHAIN, chain)
		at := a.begin(unix.NFTA_RULE_EXPRESSIONS)
		for _, e := range exprs {
			part, err := marshal(e)
			if err != nil {
				return err
			}
			a.add(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, part)
		}
		return a.end(at)
	})
}

// marshal writes an expression. The library leaves out the direction of one that it
// does not know.
func marshal(e expr.Any) ([]byte, error) {
	ct, ok := e.(*expr.Ct)
	if !ok || ct.Key != ctDestinationIP {
		return expr.Marshal(family, e)
	}
	var a attributes
	a.text(unix.NFTA_EXPR_NAME, "ct")
	at := a.begin(unix.NFTA_EXPR_DATA)
	a.number(unix.NFTA_CT_KEY, uint32(ct.Key))
	a.number(unix.NFTA_CT_DREG, ct.Register)
	a.add(unix.NFTA_CT_DIRECTION, []byte{byte(ct.Direction)})
	return a.b, a.end(at)
}

// Types as nft knows them, so that people can read the table with it. Those of several
// fields are six bits of each.
const (
	typeInteger  = 4
	typeAddress  = 7
	typeProtocol = 12
	typePort     = 13
	typeBits     = 6

	typeEndpoint = typeAddress<<typeBits | typePort
)

// set is a set or a map.
type set struct {
	name  string
	flags uint32

	keyType uint32
	fields  []uint32 // Bytes of the parts of a key.

	dataType, dataBytes uint32 // Of a map.
	timeoutMillis       uint64
	size                uint32 // 0: it grows.
	native              bool   // A key is a number of this machine.
}

// keyBytes is the length of a key: each field fills registers.
func (s *set) keyBytes() uint32 {
	sum := uint32(0)
	for _, f := range s.fields {
		sum += (f + regSize - 1) / regSize * regSize
	}
	return sum
}

const (
	setConcat      = 0x80 // NFT_SET_CONCAT,
	setDescConcat  = 2    // NFTA_SET_DESC_CONCAT,
	setFieldLength = 1    // NFTA_SET_FIELD_LEN: package unix lacks them.
	orderOfKeys    = 0    // NFTNL_UDATA_SET_KEYBYTEORDER: for nft alone.
	orderOfMachine = 1
)

func (b *batch) addSet(s *set) {
	b.message(unix.NFT_MSG_NEWSET, netlink.Create, unix.NFTA_SET_TABLE, func(a *attributes) error {
		flags := s.flags
		if len(s.fields) > 1 {
			flags |= setConcat
		}
		a.text(unix.NFTA_SET_NAME, s.name)
		a.number(unix.NFTA_SET_FLAGS, flags)
		a.number(unix.NFTA_SET_KEY_TYPE, s.keyType)
		a.number(unix.NFTA_SET_KEY_LEN, s.keyBytes())
		a.number(unix.NFTA_SET_ID, b.count) // Another for each of a transaction.
		if flags&unix.NFT_SET_MAP != 0 {
			a.number(unix.NFTA_SET_DATA_TYPE, s.dataType)
			a.number(unix.NFTA_SET_DATA_LEN, s.dataBytes)
		}
		if s.timeoutMillis > 0 {
			a.add(unix.NFTA_SET_TIMEOUT, binary.BigEndian.AppendUint64(nil, s.timeoutMillis))
		}
		if s.native {
			a.add(unix.NFTA_SET_USERDATA, binary.NativeEndian.AppendUint32([]byte{orderOfKeys, 4}, orderOfMachine))
		}
		return s.describe(a)
	})
}

// describe says how large the set is and what its keys consist of.
func (s *set) describe(a *attributes) error {
	at := a.begin(unix.NFTA_SET_DESC)
	if s.size > 0 {
		a.number(unix.NFTA_SET_DESC_SIZE, s.size)
	}
	var errs []error
	if len(s.fields) > 1 {
		all := a.begin(setDescConcat)
		for _, f := range s.fields {
			one := a.begin(unix.NFTA_LIST_ELEM)
			a.number(setFieldLength, f)
			errs = append(errs, a.end(one))
		}
		errs = append(errs, a.end(all))
	}
	return errors.Join(append(errs, a.end(at))...)
}

func (b *batch) deleteSet(name string) {
	b.message(unix.NFT_MSG_DELSET, 0, unix.NFTA_SET_TABLE, func(a *attributes) error {
		a.text(unix.NFTA_SET_NAME, name)
		return nil
	})
}

// element is one of a set, or of a map: with a value, or with the chain to go to.
type element struct {
	key, value []byte
	chain      string

	leftMillis uint64 // Until it ends. 0: as the set says.
}

func (b *batch) addElements(s *set, all []element) {
	b.elements(unix.NFT_MSG_NEWSETELEM, netlink.Create, s, len(all), func(i int) element { return all[i] })
}

func (b *batch) deleteElements(s *set, all []element) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, s, len(all), func(i int) element { return all[i] })
}

// elements adds messages about n elements, of which at makes one when it is written.
func (b *batch) elements(kind int, flags netlink.HeaderFlags, s *set, n int, at func(int) element) {
	for from := 0; from < n; from += elementsMax {
		b.message(kind, flags, unix.NFTA_SET_ELEM_LIST_TABLE, func(a *attributes) error {
			a.text(unix.NFTA_SET_ELEM_LIST_SET, s.name)
			list := a.begin(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			for i := from; i < min(n, from+elementsMax); i++ {
				e := at(i)
				if err := a.element(&e); err != nil {
					return err
				}
			}
			return a.end(list)
		})
	}
}

func (a *attributes) element(e *element) error {
	whole := a.begin(unix.NFTA_LIST_ELEM)
	at := a.begin(unix.NFTA_SET_ELEM_KEY)
	a.add(unix.NFTA_DATA_VALUE, e.key)
	errs := a.end(at)
	switch {
	case e.chain != "":
		at := a.begin(unix.NFTA_SET_ELEM_DATA)
		verdict := a.begin(unix.NFTA_DATA_VERDICT)
		a.number(unix.NFTA_VERDICT_CODE, verdictGoto)
		a.text(unix.NFTA_VERDICT_CHAIN, e.chain)
		errs = errors.Join(errs, a.end(verdict), a.end(at))
	case e.value != nil:
		at := a.begin(unix.NFTA_SET_ELEM_DATA)
		a.add(unix.NFTA_DATA_VALUE, e.value)
		errs = errors.Join(errs, a.end(at))
	}
	if e.leftMillis > 0 {
		a.add(unix.NFTA_SET_ELEM_EXPIRATION, binary.BigEndian.AppendUint64(nil, e.leftMillis))
	}
	return errors.Join(errs, a.end(whole))
}

const verdictGoto = ^uint32(0) - 3 // NFT_GOTO, -4.

// send sends the transaction and waits for the kernel's word: one for all.
func (b *batch) send(c *netlink.Conn) error {
	if b.err != nil {
		return b.err
	}
	if b.count == 0 {
		return nil
	}
	flags := b.pieces[len(b.pieces)-1][b.last+flagsOffset:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|uint16(netlink.Acknowledge))
	b.mark(unix.NFNL_MSG_BATCH_END)
	if err := b.gather(c); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	b.pieces = nil // The kernel has them.
	_, err := c.Receive()
	return err
}

// gather sends all pieces as one. The library would make one of them first.
func (b *batch) gather(c *netlink.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for failed = unix.EINTR; errors.Is(failed, unix.EINTR); {
			_, failed = unix.SendmsgBuffers(int(fd), b.pieces, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
		}
		return !errors.Is(failed, unix.EAGAIN)
	})
	return errors.Join(err, failed)
}
