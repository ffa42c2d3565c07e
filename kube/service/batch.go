package service

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// batch is one transaction for nf_tables, written as it goes to the kernel. The
// library's own connection makes several objects of each element, of which there are
// 64 a port, and has each message acknowledged: a thousand services took it twice as
// long. Of expressions it knows more than is worth repeating.
type batch struct {
	table    string
	messages []netlink.Message
	err      error // The first of writing.
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

// message adds a message about the table, whose name goes into the attribute tableKind.
func (b *batch) message(kind int, flags netlink.HeaderFlags, tableKind int, f func(*attributes) error) {
	a := &attributes{b: []byte{family, unix.NFNETLINK_V0, 0, 0}}
	a.text(tableKind, b.table)
	if f != nil {
		if err := f(a); err != nil && b.err == nil {
			b.err = err
		}
	}
	b.messages = append(b.messages, netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | flags},
		Data:   a.b,
	})
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
		a.number(unix.NFTA_SET_ID, uint32(len(b.messages))) // Another for each of a transaction.
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

// elementBytes is what an element of a map of slots takes, about.
const elementBytes = 48

// element is one of a set, or of a map: with a value, or with the chain to go to.
type element struct {
	key, value []byte
	chain      string

	leftMillis uint64 // Until it ends. 0: as the set says.
}

func (b *batch) addElements(s *set, all []element) {
	b.elements(unix.NFT_MSG_NEWSETELEM, netlink.Create, s, all)
}

func (b *batch) deleteElements(s *set, all []element) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, s, all)
}

func (b *batch) elements(kind int, flags netlink.HeaderFlags, s *set, all []element) {
	for len(all) > 0 {
		part := all[:min(len(all), elementsMax)]
		all = all[len(part):]
		b.message(kind, flags, unix.NFTA_SET_ELEM_LIST_TABLE, func(a *attributes) error {
			a.b = slices.Grow(a.b, len(s.name)+len(part)*elementBytes)
			a.text(unix.NFTA_SET_ELEM_LIST_SET, s.name)
			at := a.begin(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			for i := range part {
				if err := a.element(&part[i]); err != nil {
					return err
				}
			}
			return a.end(at)
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
	if len(b.messages) == 0 {
		return nil
	}
	mark := func(kind int) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
			Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}, // The subsystem in 16 bits, big-endian.
		}
	}
	last := &b.messages[len(b.messages)-1]
	last.Header.Flags |= netlink.Acknowledge
	all := make([]netlink.Message, 0, len(b.messages)+2)
	all = append(append(append(all, mark(unix.NFNL_MSG_BATCH_BEGIN)), b.messages...), mark(unix.NFNL_MSG_BATCH_END))
	if _, err := c.SendMessages(all); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	_, err := c.Receive()
	return err
}
