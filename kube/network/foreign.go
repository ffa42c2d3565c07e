package network

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// foreignGateways are the addresses that nodes have for pods whose range is not ours to
// take one from. They are of the wire, so no route of anybody covers them, and pods send
// there by way of the node, as to all the world. Clouds and other networks have theirs
// below and above of these.
var foreignGateways = netip.MustParsePrefix("169.254.64.0/18")

// foreignGateway follows from the node's name: pods keep it for as long as they run,
// whichever kubelet there is.
func foreignGateway(node string) netip.Addr {
	sum := sha256.Sum256([]byte(node))
	a := foreignGateways.Addr().As4()
	host := binary.BigEndian.Uint32(sum[:]) >> foreignGateways.Bits()
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(a[:])|host)))
}

const statusDNAT = 1 << 5 // IPS_DST_NAT.

// SetPods says which addresses the pods of a node have whose pods others connect. What one
// of them sends to another, or to itself, through a service comes from the node's address
// there: on a bridge they answer each other directly, past the translation. What the node
// sends to services has the address of the interface that it leaves by: its own one for
// them is nobody else's.
//
// The old table and the new are one transaction: no connection meets neither.
func (n *Network) SetPods(pods []netip.Addr) error {
	nft, err := n.nft()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: n.names.table, Family: nftables.TableFamilyIPv4}
	nft.AddTable(table) // So that there is one to delete.
	nft.DelTable(table)
	nft.AddTable(table)
	set := &nftables.Set{Table: table, Name: "pods", KeyType: nftables.TypeIPAddr}
	elements := make([]nftables.SetElement, len(pods))
	for i, a := range pods {
		elements[i].Key = a.AsSlice()
	}
	if err := nft.AddSet(set, elements); err != nil {
		return fmt.Errorf("table %s: %w", n.names.table, err)
	}
	policy := nftables.ChainPolicyAccept
	chain := nft.AddChain(&nftables.Chain{
		Table: table, Name: "leaving", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Policy: &policy,
	})
	own := append(within(sourceOffset, netip.PrefixFrom(n.gateway, 32), expr.CmpOpEq),
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	)
	for _, rule := range [][]expr.Any{append(of(sourceOffset, set), of(destinationOffset, set)...), own} {
		nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(append(translated(), rule...), &expr.Masq{})})
	}
	if err := nft.Flush(); err != nil {
		return fmt.Errorf("table %s (it takes nf_tables with NAT in the kernel): %w", n.names.table, err)
	}
	return n.reflect(pods)
}

// reflect has the bridges of pods send frames back by the port that they came in by. Where
// frames meet the rules of packets (bridge-nf-call-iptables) what a pod sends to itself
// through a service is translated within the bridge, and else would be dropped there.
func (n *Network) reflect(pods []netip.Addr) error {
	bridges := map[int]bool{}
	for _, a := range pods {
		routes, err := n.kernel.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 { // Without one it is not reached by anybody.
			bridges[routes[0].LinkIndex] = false
		}
	}
	links, err := n.kernel.LinkList()
	if err != nil {
		return fmt.Errorf("interfaces: %w", err)
	}
	for _, l := range links {
		at := l.Attrs()
		if _, leads := bridges[at.Index]; leads {
			// A promiscuous one hands the node whatever it forwards, for this very purpose.
			bridges[at.Index] = l.Type() == "bridge" && at.Promisc == 0
		}
	}
	for _, l := range links {
		if l.Type() != "veth" || !bridges[l.Attrs().MasterIndex] {
			continue
		}
		if err := n.kernel.LinkSetHairpin(l, true); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("port %s of the bridge of pods: %w", l.Attrs().Name, err)
		}
	}
	return nil
}

// translated asks whether a connection goes elsewhere than it was sent to.
func translated() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(statusDNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// of asks whether an address of the packet is in a set.
func of(offset uint32, set *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: addressBytes},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
	}
}
