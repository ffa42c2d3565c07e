package service

import (
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Registers of 32 bits. Keys of several fields lie in consecutive ones.
const (
	reg0    = unix.NFT_REG32_00
	reg1    = unix.NFT_REG32_01
	reg2    = unix.NFT_REG32_02
	reg4    = unix.NFT_REG32_04
	reg8    = unix.NFT_REG32_08
	regSize = 4
)

// Where fields stand in headers of IPv4, TCP and UDP.
const (
	sourceOffset      = 12
	destinationOffset = 16
	portOffset        = 2
	portBytes         = 2
)

const ctDestinationIP = 20 // NFT_CT_DST_IP; NFT_CT_DST has no length that nft would know.

const statusDNAT = 1 << 5 // IPS_DST_NAT.

const rejectPortUnreachable = 3 // ICMP_PORT_UNREACH: programs see "connection refused".

// base is what the table has beside the ports.
type base struct {
	services  *set // Address, protocol and port, to the chain of a port.
	nodePorts *set // Protocol and port, of any address of the node.
	external  *set // The same keys, for who comes from outside.
	hairpins  *set // Pairs of a pod and itself.

	// The keys of services and nodePorts whose clients stick, to the chains that
	// remember them.
	sticky, stickyPorts *set
}

// isNew asks whether a connection begins with this packet.
func isNew() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: regSize, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW), Xor: make([]byte, regSize)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, regSize)},
	}
}

const (
	addressBytes  = 4
	protocolBytes = 1

	// Hooks and priorities, as nft calls them dstnat and srcnat.
	prerouting, output, postrouting = unix.NF_INET_PRE_ROUTING, unix.NF_INET_LOCAL_OUT, unix.NF_INET_POST_ROUTING
	priorityDestination             = -100
	prioritySource                  = 100
	// What was translated is remembered; what is left is refused before it is routed.
	priorityRemember = -95
	priorityRefuse   = -90
)

func (t *Table) makeBase() *base {
	toChain := uint32(unix.NFT_DATA_VERDICT)
	const frontType = typeProtocol<<typeBits | typePort
	b := &base{
		services: &set{
			name: "services", flags: unix.NFT_SET_MAP, keyType: typeAddress<<(2*typeBits) | frontType, fields: []uint32{addressBytes, protocolBytes, portBytes},
			dataType: toChain,
		},
		nodePorts: &set{name: "nodeports", flags: unix.NFT_SET_MAP, keyType: frontType, fields: []uint32{protocolBytes, portBytes}, dataType: toChain},
		external:  &set{name: "external", keyType: frontType, fields: []uint32{protocolBytes, portBytes}},
		sticky: &set{
			name: "sticky", flags: unix.NFT_SET_MAP, keyType: typeAddress<<(2*typeBits) | frontType, fields: []uint32{addressBytes, protocolBytes, portBytes},
			dataType: toChain,
		},
		stickyPorts: &set{name: "stickyports", flags: unix.NFT_SET_MAP, keyType: frontType, fields: []uint32{protocolBytes, portBytes}, dataType: toChain},
		hairpins:    &set{name: "hairpins", keyType: typeAddress<<typeBits | typeAddress, fields: []uint32{addressBytes, addressBytes}},
	}
	for _, s := range []*set{b.services, b.nodePorts, b.external, b.hairpins, b.sticky, b.stickyPorts} {
		t.next.addSet(s)
	}
	chain := func(name string, h *hook, rules ...[]expr.Any) {
		t.next.addChain(name, h)
		for _, r := range rules {
			t.next.addRule(name, r)
		}
	}
	chain("lookup", nil, b.serviceRule(), b.nodePortRule())
	jump := []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "lookup"}}
	chain("arriving", &hook{"nat", prerouting, priorityDestination}, jump)
	chain("own", &hook{"nat", output, priorityDestination}, jump)
	chain("leaving", &hook{"nat", postrouting, prioritySource}, b.hairpinRule(), b.externalRule(t.cfg.PodCIDR, t.cfg.PodRange.Masked()))
	chain("remember", nil, b.rememberRules(t.cfg.ServiceRange)...)
	remember := append(isNew(), &expr.Verdict{Kind: expr.VerdictGoto, Chain: "remember"})
	chain("arriving-remember", &hook{"filter", prerouting, priorityRemember}, remember)
	chain("own-remember", &hook{"filter", output, priorityRemember}, remember)
	if services := t.cfg.ServiceRange; services.IsValid() {
		chain("refuse", nil, lateRule(), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: rejectPortUnreachable}})
		rule := append(within(destinationOffset, services.Masked(), expr.CmpOpEq), &expr.Verdict{Kind: expr.VerdictGoto, Chain: "refuse"})
		chain("arriving-refuse", &hook{"filter", prerouting, priorityRefuse}, rule)
		chain("own-refuse", &hook{"filter", output, priorityRefuse}, rule)
	}
	return b
}

// serviceRule: what is sent to an address and port of a service goes to its chain.
func (b *base) serviceRule() []expr.Any {
	return []expr.Any{
		payload(reg0, destinationOffset),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Payload{DestRegister: reg2, Base: expr.PayloadBaseTransportHeader, Offset: portOffset, Len: portBytes},
		&expr.Lookup{SourceRegister: reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: b.services.name},
	}
}

// nodePortRule: so does what is sent to a port of the node, but through its loopback:
// an answer to 127.0.0.1 cannot come from elsewhere.
func (b *base) nodePortRule() []expr.Any {
	rule := within(destinationOffset, netip.MustParsePrefix("127.0.0.0/8"), expr.CmpOpNeq)
	rule = append(rule, isLocal(expr.CmpOpEq)...)
	return append(rule,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: portOffset, Len: portBytes},
		&expr.Lookup{SourceRegister: reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: b.nodePorts.name},
	)
}

// hairpinRule: a pod that met itself through a service sees the node instead. Else it
// would answer to itself, past the translation. Two fields of a packet cannot be
// compared, so the pairs are listed.
func (b *base) hairpinRule() []expr.Any {
	return []expr.Any{
		payload(reg0, sourceOffset), payload(reg1, destinationOffset),
		&expr.Lookup{SourceRegister: reg0, SetName: b.hairpins.name},
		&expr.Masq{},
	}
}

// externalRule: what came from outside to a port of the node, and goes on to another
// machine, has the node's address: the answer must come back through here. Pods of this
// node answer through here anyway, and see who it was, if it is known who they are.
func (b *base) externalRule(podCIDR, podRange netip.Prefix) []expr.Any {
	rule := []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: regSize, Mask: binaryutil.NativeEndian.PutUint32(statusDNAT), Xor: make([]byte, regSize)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, regSize)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
		&expr.Ct{Key: expr.CtKeyPROTODST, Direction: 0, Register: reg1}, // Of the original direction.
		&expr.Lookup{SourceRegister: reg0, SetName: b.external.name},
	}
	if podCIDR.IsValid() {
		rule = append(rule, within(sourceOffset, podRange, expr.CmpOpNeq)...)
		rule = append(rule, within(destinationOffset, podCIDR, expr.CmpOpNeq)...)
	}
	rule = append(rule, isLocal(expr.CmpOpNeq)...)
	return append(rule, &expr.Masq{})
}

// rememberRules: a connection that was translated is known by where it was sent to; if
// its clients stick, where it goes is remembered. This is done after the translation
// and not with it: nft, which others list their own tables with, cannot read a rule that
// puts what one map says into another, and ends.
func (b *base) rememberRules(services netip.Prefix) [][]expr.Any {
	sentTo := &expr.Ct{Key: ctDestinationIP, Register: reg0, Direction: 0}
	ports := []expr.Any{}
	if services.IsValid() { // A port of a service may have the number of one of the node.
		ports = append(ports, sentTo)
		ports = append(ports, inRange(services.Masked(), expr.CmpOpNeq)...)
	}
	return [][]expr.Any{
		{
			sentTo,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
			&expr.Ct{Key: expr.CtKeyPROTODST, Direction: 0, Register: reg2},
			&expr.Lookup{SourceRegister: reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: b.sticky.name},
		},
		append(ports,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
			&expr.Ct{Key: expr.CtKeyPROTODST, Direction: 0, Register: reg1},
			&expr.Lookup{SourceRegister: reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: b.stickyPorts.name},
		),
	}
}

// lateRule: what is still sent to an address of services after the translation is
// refused, since no port has it, or none of its endpoints is ready. But a packet that
// belongs to no connection is dropped: it may be a late one of one that is well.
func lateRule() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: regSize, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitINVALID), Xor: make([]byte, regSize)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, regSize)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// chains and sets of a port. A service's name may begin with a digit, which nft cannot
// read.
func chainName(p *Port) string  { return "s/" + p.Name }
func slotsName(p *Port) string  { return "s/" + p.Name + "/slots" }
func stickyName(p *Port) string { return "s/" + p.Name + "/sticky" } // A map, and the chain that fills it.

const endpointBytes = 2 * regSize // Address and port, each in a register.

func slotsSet(p *program) *set {
	return &set{
		name: slotsName(p.port), flags: unix.NFT_SET_MAP, keyType: typeInteger, fields: []uint32{regSize}, native: true,
		dataType: typeEndpoint, dataBytes: endpointBytes, size: uint32(len(p.slots)),
	}
}

func stickySet(p *Port) *set {
	return &set{
		name: stickyName(p), flags: unix.NFT_SET_MAP | unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT, keyType: typeAddress, fields: []uint32{addressBytes},
		dataType: typeEndpoint, dataBytes: endpointBytes, timeoutMillis: uint64(p.Sticky.Milliseconds()), size: stickyMax,
	}
}

// addProgram makes the chain and the maps of a port.
func (t *Table) addProgram(p *program) {
	b, chain, slots := t.next, chainName(p.port), slotsSet(p)
	b.addChain(chain, nil)
	b.addSet(slots)
	b.elements(unix.NFT_MSG_NEWSETELEM, netlink.Create, slots, len(p.slots), t.slotsOf(p))
	if p.port.Sticky > 0 {
		sticky := stickySet(p.port)
		b.addSet(sticky)
		b.addElements(sticky, t.takeOver(p.port))
		b.addRule(chain, []expr.Any{payload(reg4, sourceOffset), look(reg4, sticky), translate()})
		b.addChain(sticky.name, nil)
		b.addRule(sticky.name, rememberRule(sticky, p.port.Sticky))
	}
	b.addRule(chain, []expr.Any{&expr.Numgen{Register: reg8, Modulus: uint32(len(p.slots)), Type: unix.NFT_NG_RANDOM}, look(reg8, slots), translate()})
}

// look puts the endpoint that a map says into registers 0 and 1.
func look(key uint32, in *set) expr.Any {
	return &expr.Lookup{SourceRegister: key, DestRegister: reg0, IsDestRegSet: true, SetName: in.name}
}

func translate() expr.Any {
	return &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg0, RegProtoMin: reg1, Specified: true}
}

// rememberRule: the client gets the same endpoint again, from now on for a while. If so
// many are remembered that there is no place for one more, it gets any.
func rememberRule(sticky *set, timeout time.Duration) []expr.Any {
	return []expr.Any{
		payload(reg4, sourceOffset), payload(reg0, destinationOffset),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: portOffset, Len: portBytes},
		&expr.Dynset{SrcRegKey: reg4, SrcRegData: reg0, SetName: sticky.name, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Timeout: timeout},
	}
}

// removeProgram removes the chain and the maps of a port, to which nothing leads any
// more.
func (t *Table) removeProgram(p *program) {
	t.next.deleteChain(chainName(p.port))
	t.next.deleteSet(slotsName(p.port))
	if p.port.Sticky > 0 {
		t.next.deleteChain(stickyName(p.port))
		t.next.deleteSet(stickyName(p.port))
	}
}

// moveSlots makes a port that keeps its shape another.
func (t *Table) moveSlots(had, now *program) {
	var gone, come []element
	before, after := had.assigned(), now.assigned()
	for i := range after {
		if before[i] != after[i] {
			gone, come = append(gone, slotElement(i, before[i])), append(come, slotElement(i, after[i]))
		}
	}
	slots := slotsSet(now)
	t.next.deleteElements(slots, gone)
	t.next.addElements(slots, come)
}

// Elements.

// slotsOf makes the element of each slot of a port. There are many: keys and values are
// made once.
func (t *Table) slotsOf(p *program) func(int) element {
	for len(t.slotKeys) < len(p.slots) {
		t.slotKeys = append(t.slotKeys, binaryutil.NativeEndian.PutUint32(uint32(len(t.slotKeys))))
	}
	values := make([][]byte, len(p.port.Endpoints))
	for i, e := range p.port.Endpoints {
		values[i] = endpointKey(e)
	}
	return func(i int) element { return element{key: t.slotKeys[i], value: values[p.slots[i]]} }
}

func slotElement(slot int, e netip.AddrPort) element {
	return element{key: binaryutil.NativeEndian.PutUint32(uint32(slot)), value: endpointKey(e)}
}

func endpointKey(e netip.AddrPort) []byte {
	a := e.Addr().As4()
	return []byte{a[0], a[1], a[2], a[3], byte(e.Port() >> 8), byte(e.Port()), 0, 0}
}

// portKey fills each field up to a register.
func portKey(p Protocol, port uint16) []byte {
	return []byte{byte(p), 0, 0, 0, byte(port >> 8), byte(port), 0, 0}
}

func frontElement(p *Port, f Front, chain string) element {
	e := element{key: portKey(p.Protocol, f.Port), chain: chain}
	if f.Address.IsValid() {
		e.key = slices.Concat(f.Address.AsSlice(), e.key)
	}
	return e
}

// Parts of rules.

func payload(register uint32, offset uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: regSize}
}

// within asks whether an address of the packet is in a range, or is not.
func within(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	return append([]expr.Any{payload(reg0, offset)}, inRange(p, op)...)
}

// inRange asks that of register 0.
func inRange(p netip.Prefix, op expr.CmpOp) []expr.Any {
	mask := binaryutil.BigEndian.PutUint32(uint32(uint64(1)<<32 - uint64(1)<<(32-p.Bits())))
	return []expr.Any{
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: regSize, Mask: mask, Xor: make([]byte, regSize)},
		&expr.Cmp{Op: op, Register: reg0, Data: p.Addr().AsSlice()},
	}
}

// isLocal asks whether the packet goes to an address of the node, or does not.
func isLocal(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: op, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}
