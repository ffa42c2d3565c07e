// Package network gives pods their addresses and brings packets to them.
//
// Each pod has a pair of veth interfaces: eth0 in its namespace, with its address as
// a /32, and an end on the node that carries the node's gateway address. There is no
// bridge: the node routes, so pods of one node, of others and the node itself are all
// reached in one way, and a pod reaches itself through a service too. Ranges of other
// nodes are routed to their addresses on the same wire (host-gw) or through VXLAN,
// whose neighbours are all known beforehand: the hardware address of a node's end
// follows from its range. What leaves the range of all pods gets the node's address, by
// a rule in a table of nftables that is the node's own.
//
// It needs root, veth and nf_tables, vxlan for that backend, and nothing else: no
// default route, no bridge filter, no programs. Forwarding is switched on for its own
// interfaces and the uplink alone.
//
// Where others connect pods (Config.Foreign: a CNI configuration has the bridge and the
// addresses) it makes for them what they need to reach services: an address of the node
// that is theirs to ask, the route of the node to services, and the rules by which pods of
// one node meet through them.
//
// Which pod has which address stands in a file, written before the address is used; the
// interfaces carry the pod's UID too. After a crash Open adopts what agrees, and
// removes interfaces that were only half made. Retain removes what belongs to no pod.
//
// Invariant: an address belongs to one pod until Disconnect.
// Everything is named after a hash of the node's name, so that two nodes on one
// machine do not meet.
package network
