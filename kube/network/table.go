package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Where source and destination stand in an IPv4 header.
const (
	sourceOffset      = 12
	destinationOffset = 16
	addressBytes      = 4
)

// makeTable makes the rule that gives what leaves the range of all pods the node's
// address. The old table and the new are one transaction: no packet meets neither.
func (n *Network) makeTable() error {
	nft, err := n.nft()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: n.names.table, Family: nftables.TableFamilyIPv4}
	nft.AddTable(table) // So that there is one to delete.
	nft.DelTable(table)
	nft.AddTable(table)
	policy := nftables.ChainPolicyAccept
	chain := nft.AddChain(&nftables.Chain{
		Table: table, Name: "leaving", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Policy: &policy,
	})
	rule := append(within(sourceOffset, n.cfg.PodCIDR, expr.CmpOpEq), within(destinationOffset, n.cfg.PodRange.Masked(), expr.CmpOpNeq)...)
	// Not what pods say to many.
	rule = append(rule, within(destinationOffset, netip.MustParsePrefix("224.0.0.0/4"), expr.CmpOpNeq)...)
	nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(rule, &expr.Masq{})})
	if err := nft.Flush(); err != nil {
		return fmt.Errorf("table %s (it takes nf_tables with NAT in the kernel): %w", n.names.table, err)
	}
	return nil
}

// Mend makes anew what others on the machine have removed of what Open makes: the table,
// by loading rules that begin with an empty ruleset, and routes of the node's own. One
// call at a time. With Foreign the table is SetPods'.
func (n *Network) Mend() error {
	if n.cfg.Foreign {
		return n.ownRoutes()
	}
	nft, err := n.nft()
	if err != nil {
		return err
	}
	_, err = nft.ListTableOfFamily(n.names.table, nftables.TableFamilyIPv4)
	if errors.Is(err, unix.ENOENT) {
		n.log.Warn("somebody has removed the table of what leaves the range of pods; it is made anew", "table", n.names.table)
		err = n.makeTable()
	}
	return errors.Join(err, n.ownRoutes())
}

func (n *Network) nft() (*nftables.Conn, error) {
	nft, err := nftables.New(nftables.WithNetNSFd(int(n.space)))
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return nft, nil
}

// within asks whether an address of the packet is in a range, or is not.
func within(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	mask := binaryutil.BigEndian.PutUint32(uint32(uint64(1)<<32 - uint64(1)<<(32-p.Bits())))
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: addressBytes},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: addressBytes, Mask: mask, Xor: make([]byte, addressBytes)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Addr().AsSlice()},
	}
}

// Purge removes all that was ever made for this node: interfaces, routes, the table
// and the addresses. Pods lose their network.
func (n *Network) Purge() error {
	var errs []error
	links, err := n.kernel.LinkList()
	errs = append(errs, err)
	for _, link := range links {
		name := link.Attrs().Name
		if n.names.ours(name) || name == n.names.own || name == n.names.vxlan {
			errs = append(errs, n.remove(link))
		}
	}
	if !n.cfg.Foreign {
		errs = append(errs, n.removeRoutes(nil))
		none := unreachable(n.cfg.PodCIDR, n.metric())
		if err := n.kernel.RouteDel(none); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
		for _, uid := range n.pool.uids() {
			errs = append(errs, n.pool.release(uid))
		}
	}
	if nft, err := n.nft(); err != nil {
		errs = append(errs, err)
	} else {
		table := &nftables.Table{Name: n.names.table, Family: nftables.TableFamilyIPv4}
		nft.AddTable(table)
		nft.DelTable(table)
		errs = append(errs, nft.Flush())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the network of node %s: %w", n.cfg.Node, err)
	}
	return nil
}
