package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/checkpoint"
	"github.com/holdfast-db/holdfast/kube/image"
	"github.com/holdfast-db/holdfast/kube/network"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/service"
	"github.com/holdfast-db/holdfast/kube/volume"
)

// Remove ends all pods of a node whose kubelet does not run, and removes what it made of
// this machine: cgroups, networks, mounts, volumes. Images, its certificate and the
// store stay; a kubelet that starts again makes its pods anew. Name, Dir, Kind and
// Logger of the Config are looked at.
func Remove(ctx context.Context, cfg Config) (removed int, err error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return 0, err
	}
	n := &node{cfg: cfg, log: cfg.Logger, clock: cfg.Clock}
	if there, err := vfs.Exists(vfs.OS(), cfg.Dir); err != nil || !there {
		return 0, err
	}
	// Whoever has the images has the node: a kubelet that runs is found here.
	n.store, err = image.Open(image.Config{Dir: filepath.Join(cfg.Dir, "images"), Logger: n.log, Clock: n.clock, Rootless: cfg.Kind == Process, KeepBlobs: cfg.Kind == CRI})
	if err != nil {
		return 0, fmt.Errorf("%w: end the kubelet first", err)
	}
	defer func() { err = errors.Join(err, n.store.Close()) }()
	var net runtime.Network
	old, purge, err := n.oldNetwork()
	if err != nil {
		return 0, err
	}
	if old != nil && cfg.Kind == Native {
		net = old
	}
	e, err := n.engine(ctx, net, func(string) {})
	if err != nil {
		return 0, errors.Join(err, purge())
	}
	removed, err = n.removePods(ctx, e)
	err = errors.Join(err, e.Shutdown(), purge())
	if err == nil && cfg.Kind == Native {
		removeGroups("holdfast-" + cfg.Name)
	}
	return removed, err
}

// removeGroups removes the empty cgroups of a node, in all hierarchies. The kernel
// refuses to remove others.
func removeGroups(name string) {
	trees, _ := filepath.Glob("/sys/fs/cgroup/*/" + name) // The pattern is right.
	trees = append(trees, "/sys/fs/cgroup/"+name)
	for _, tree := range trees {
		var groups []string
		_ = filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, path)
			}
			return nil // What goes meanwhile is gone.
		})
		for _, g := range slices.Backward(groups) {
			_ = os.Remove(g)
		}
	}
}

func (n *node) removePods(ctx context.Context, e runtime.Engine) (int, error) {
	pods, err := e.List(ctx)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, p := range pods {
		errs = append(errs, e.Close(ctx, p.UID))
	}
	volumes, err := volume.New(volume.Config{
		Dir: filepath.Join(n.cfg.Dir, "pods"), Objects: named{}, Allocatable: func() corev1.ResourceList { return nil },
		Mounts: n.cfg.Kind != Process && volume.MayMount(), Clock: n.clock, Logger: n.log,
	})
	if err != nil {
		return len(pods), errors.Join(append(errs, err)...)
	}
	left, err := volumes.Leftovers()
	errs = append(errs, err)
	for _, uid := range left {
		errs = append(errs, volumes.Remove(ctx, uid))
		errs = append(errs, volumes.Purge(ctx, uid))
	}
	return len(pods), errors.Join(errs...)
}

// oldNetwork is that of a node as it was last, nil if there is none, and what removes it.
func (n *node) oldNetwork() (*network.Network, func() error, error) {
	nothing := func() error { return nil }
	cfg := network.Config{Node: n.cfg.Name, Foreign: n.cfg.Kind == CRI, Clock: n.clock, Logger: n.log}
	switch n.cfg.Kind {
	case Native:
		own, err := n.oldRange()
		if err != nil || !own.IsValid() {
			return nil, nothing, err
		}
		cfg.PodCIDR, cfg.Dir = own, filepath.Join(n.cfg.Dir, "network")
	case Process:
		return nil, nothing, nil
	}
	net, err := network.Open(cfg)
	if err != nil {
		return nil, nil, err
	}
	return net, func() error {
		errs := []error{net.Purge(), net.Close()}
		table, err := service.OpenTable(service.TableConfig{Node: n.cfg.Name, PodCIDR: cfg.PodCIDR, Clock: n.clock, Logger: n.log})
		if err == nil {
			err = errors.Join(table.Purge(), table.Close())
		}
		return errors.Join(append(errs, err)...)
	}, nil
}

// oldRange is that of the pods of a node as it was last.
func (n *node) oldRange() (netip.Prefix, error) {
	folder, err := checkpoint.Open(vfs.OS(), filepath.Join(n.cfg.Dir, "checkpoints"))
	if err != nil {
		return netip.Prefix{}, err
	}
	saved, err := folder.Load()
	if err != nil || saved.Node == nil {
		return netip.Prefix{}, err // It was never registered: there is no network.
	}
	own, _ := netip.ParsePrefix(saved.Node.Spec.PodCIDR) // Invalid: it never had one.
	return own, nil
}
