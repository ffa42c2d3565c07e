package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Network is that of one node, in the network namespace in which it was opened.
// It is safe for use by many goroutines; calls about one pod come one after the other.
type Network struct {
	cfg     Config
	log     hclog.Logger
	names   names
	gateway netip.Addr
	space   netns.NsHandle
	kernel  *netlink.Handle
	uplink  netlink.Link // Nil: there is none.
	tunnel  netlink.Link // Nil: the backend is another.
	own     netlink.Link
	mtu     int
	pool    *pool // Nil: pods are connected by others.
}

var _ runtime.Network = (*Network)(nil)

// Open makes what a node needs before its first pod, and adopts what an earlier
// kubelet of it made. Close ends it; the network stays.
func Open(cfg Config) (*Network, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, fmt.Errorf("network of node %q: %w", cfg.Node, err)
	}
	n := &Network{cfg: cfg, log: cfg.Logger.Named("network"), names: namesOf(cfg.Node), space: netns.None()}
	if cfg.Foreign {
		n.gateway = foreignGateway(cfg.Node)
	} else {
		n.gateway = gatewayOf(cfg.PodCIDR)
	}
	if err := n.open(); err != nil {
		n.Close()
		return nil, fmt.Errorf("network of node %q: %w", cfg.Node, err)
	}
	return n, nil
}

func (n *Network) open() (err error) {
	if n.space, err = netns.Get(); err != nil {
		return fmt.Errorf("its namespace: %w", err)
	}
	// The route family alone: the default opens all, and fails where one is not there.
	if n.kernel, err = netlink.NewHandleAt(n.space, unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	if n.cfg.Foreign {
		return errors.Join(n.findUplink(), n.makeOwn())
	}
	if err := vfs.MakeFolder(n.cfg.FS, n.cfg.Dir); err != nil {
		return err
	}
	var damage error
	if n.pool, damage, err = openPool(n.cfg.FS, filepath.Join(n.cfg.Dir, "addresses"), n.cfg.PodCIDR); err != nil {
		return err
	}
	if damage != nil {
		n.log.Warn("the file of addresses cannot be read, asking the interfaces", "error", damage)
	}
	for _, step := range []func() error{n.findUplink, n.makeOwn, n.makeTunnel, n.makeTable, n.adopt} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Gateway is the node's address for its pods: where its DNS answers, and from where it
// talks to services.
func (n *Network) Gateway() netip.Addr { return n.gateway }

// Connect implements runtime.Network.
func (n *Network) Connect(ctx context.Context, uid, namespace string) (netip.Addr, error) {
	a, err := n.connect(ctx, uid, namespace)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("network of pod %s: %w", uid, err)
	}
	return a, nil
}

func (n *Network) connect(ctx context.Context, uid, namespace string) (netip.Addr, error) {
	if uid == "" {
		return netip.Addr{}, errors.New("no UID")
	}
	if err := ctx.Err(); err != nil {
		return netip.Addr{}, err
	}
	space, err := netns.GetFromPath(namespace)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("namespace %s: %w", namespace, err)
	}
	defer space.Close()
	a, err := n.pool.take(uid)
	if err != nil {
		return netip.Addr{}, err
	}
	inside, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("namespace %s: %w", namespace, err)
	}
	defer inside.Close()
	// The address stays taken if this fails: it is the pod's when it is tried again.
	return a, n.wire(uid, a, space, inside)
}

// Disconnect implements runtime.Network.
func (n *Network) Disconnect(_ context.Context, uid string) error {
	if err := n.unwire(uid); err != nil {
		return fmt.Errorf("network of pod %s: %w", uid, err)
	}
	return n.pool.release(uid)
}

// Retain removes what belongs to none of the pods that there are.
func (n *Network) Retain(ctx context.Context, uids []string) error {
	var errs []error
	for _, uid := range n.pool.uids() {
		if !slices.Contains(uids, uid) {
			n.log.Info("removing the network of a pod that is gone", "uid", uid)
			errs = append(errs, n.Disconnect(ctx, uid))
		}
	}
	return errors.Join(errs...)
}

// Close ends the work of this kubelet. Interfaces, routes and addresses stay.
func (n *Network) Close() error {
	if n.kernel != nil {
		n.kernel.Close()
		n.kernel = nil
	}
	if n.space.IsOpen() {
		return n.space.Close()
	}
	return nil
}
