package network

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Backend is how packets come to pods of other nodes.
type Backend string

// Backends.
const (
	HostGateway Backend = "host-gw" // Nodes are on one wire.
	VXLAN       Backend = "vxlan"   // Nodes reach each other by UDP.
	None        Backend = "none"    // There is one node, or somebody else routes.
)

// Config says which node this is. Node and Logger are required, PodCIDR and Dir unless
// Foreign.
type Config struct {
	Node string

	// PodCIDR is the node's own part of the addresses, as in its object; PodRange those
	// of all nodes: what goes there is not disguised as the node's. Default: PodCIDR.
	PodCIDR, PodRange netip.Prefix

	// Foreign says that others connect pods, and route to those of other nodes: a CNI
	// configuration. PodCIDR, PodRange, Dir and Backend are left out then, and SetPods is
	// told which pods there are.
	Foreign bool

	// ServiceRange is where services have their addresses. Without it the node itself
	// reaches none of them.
	ServiceRange netip.Prefix

	// Backend defaults to None. The others need Address.
	Backend Backend
	// Address is the node's, as others reach it. The interface that has it is the
	// uplink.
	Address netip.Addr

	// MTU of the pods' interfaces. Default: the uplink's, less what VXLAN takes.
	MTU int
	// Port and VNI of VXLAN, the same on all nodes. Default: 8472 and 1, as flannel's.
	Port, VNI int

	Dir    string      // Where the addresses are kept; made if it is not there.
	FS     vfs.FS      // Default: the machine's.
	Clock  clock.Clock // Default: the machine's.
	Logger hclog.Logger
}

const (
	mtuDefault    = 1500 // Of Ethernet, where there is no uplink to ask.
	vxlanOverhead = 50   // Ethernet, IP, UDP and VXLAN headers.
	vxlanPort     = 8472
	vxlanVNI      = 1

	carrierTries  = 200
	carrierPause  = time.Millisecond
	subnetBitsMax = 29 // A smaller one has no room for pods beside its own addresses.
)

func (c *Config) setDefaults() error {
	if !c.PodRange.IsValid() {
		c.PodRange = c.PodCIDR
	}
	if c.Backend == "" {
		c.Backend = None
	}
	if c.Port == 0 {
		c.Port = vxlanPort
	}
	if c.VNI == 0 {
		c.VNI = vxlanVNI
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	return c.validate()
}

func (c *Config) validate() error {
	var errs []error
	complain := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	complain(c.Node == "", "no Node")
	complain(c.Logger == nil, "no Logger")
	if c.Foreign {
		complain(c.PodCIDR.IsValid() || c.PodRange.IsValid() || c.Backend != None, "Foreign: others have the addresses of pods, and the routes to them")
		return errors.Join(errs...)
	}
	complain(c.Dir == "", "no Dir")
	complain(!c.PodCIDR.Addr().Is4() || c.PodCIDR.Bits() > subnetBitsMax || c.PodCIDR != c.PodCIDR.Masked(),
		"PodCIDR: %v is no IPv4 range of at most /%d", c.PodCIDR, subnetBitsMax)
	complain(c.PodCIDR.IsValid() && !c.PodRange.Contains(c.PodCIDR.Addr()), "PodRange: %v does not contain %v", c.PodRange, c.PodCIDR)
	complain(c.ServiceRange.IsValid() && c.ServiceRange.Overlaps(c.PodRange), "ServiceRange: %v and %v overlap", c.ServiceRange, c.PodRange)
	switch c.Backend {
	case HostGateway, VXLAN:
		complain(!c.Address.Is4(), "Address: backend %s needs the node's IPv4 address", c.Backend)
	case None:
	default:
		complain(true, "Backend: there is no %q; there are %s, %s and %s", c.Backend, HostGateway, VXLAN, None)
	}
	return errors.Join(errs...)
}
