package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Drift is a ledger that is not the sum of what its node's pods ask for.
type Drift struct {
	Node            string
	Ledger, Sum     *kubepb.Ledger
	ResourceVersion int64
}

func (d Drift) String() string {
	return fmt.Sprintf("node %s at %d: ledger {%v}, pods {%v}", d.Node, d.ResourceVersion, d.Ledger, d.Sum)
}

// Audit computes all ledgers from the pods, and from those that nodes told of after a
// restore and that are not recorded, as of one revision, and returns those
// that are wrong. There are none, unless somebody wrote to the store by hand.
func (s *Service) Audit(ctx context.Context) ([]Drift, error) {
	if _, err := s.fresh(ctx); err != nil {
		return nil, err
	}
	pods, reserved, ledgers, revision := s.cache.charges()
	var drifts []Drift
	nodes := slices.Collect(maps.Keys(pods))
	for node := range ledgers { //tidy:ordered sorted below
		nodes = append(nodes, node)
	}
	for node := range reserved { //tidy:ordered sorted below
		nodes = append(nodes, node)
	}
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	for _, node := range nodes {
		is, sum := &kubepb.Ledger{}, &kubepb.Ledger{}
		if kv := ledgers[node]; kv != nil {
			if err := is.UnmarshalVT(kv.Value); err != nil {
				return nil, fmt.Errorf("ledger of node %s: %w: %w", node, api.ErrEncoding, err)
			}
		}
		for _, e := range pods[node] {
			o, err := api.Decode(api.Pod, e.stored.Value, e.revision)
			if err != nil {
				return nil, err
			}
			if p := o.(*corev1.Pod); charged(p) {
				r := api.PodRequests(&p.Spec)
				add(sum, &r)
			}
		}
		for _, t := range reserved[node] {
			r := api.PodRequests(&t.pod.Spec)
			add(sum, &r)
		}
		if !proto.Equal(is, sum) {
			drifts = append(drifts, Drift{node, is, sum, revision})
		}
	}
	return drifts, nil
}

// charges are the pods of each node, what is reserved beside them, and the ledgers, as
// of one revision.
func (c *cache) charges() (pods map[string][]*entry, reserved map[string][]*told, ledgers map[string]*mvccpb.KeyValue, revision int64) {
	pods, reserved, ledgers = map[string][]*entry{}, map[string][]*told{}, map[string]*mvccpb.KeyValue{}
	c.mu.RLock()
	defer c.mu.RUnlock()
	for node, entries := range c.mu.shelves[api.Pod].byNode { //tidy:ordered into a map
		pods[node] = slices.Collect(maps.Values(entries))
	}
	for key, kv := range c.keys.Load().plain.all() {
		if node, ok := strings.CutPrefix(key, LedgerPrefix); ok {
			ledgers[node] = kv
		}
	}
	for node, all := range c.mu.inventories.entries { //tidy:ordered into a map
		for _, t := range all { //tidy:ordered sums
			if t.entry.Reserved {
				reserved[node] = append(reserved[node], t)
			}
		}
	}
	return pods, reserved, ledgers, c.revision()
}

// firstNamespaces are made when a cluster begins, and stay.
var firstNamespaces = []string{"default", "kube-system"}

// begin makes the namespaces that are always there, and reports drift.
func (s *Service) begin(ctx context.Context) error {
	if err := s.filled(ctx); err != nil {
		return nil // It ends before it began.
	}
	if err := s.beginHistory(ctx); err != nil {
		return nil
	}
	for _, name := range firstNamespaces {
		if err := s.ensureNamespace(ctx, name); err != nil {
			s.log.Warn("a namespace could not be made", "namespace", name, "error", err)
		}
	}
	drifts, err := s.Audit(ctx)
	if err != nil {
		s.log.Warn("ledgers could not be audited", "error", err)
		return nil
	}
	for _, d := range drifts {
		s.log.Error("a ledger differs from the pods of its node: somebody wrote to the store by hand", "drift", d.String())
	}
	s.log.Info("ledgers audited", "drifts", len(drifts))
	return nil
}

func (s *Service) ensureNamespace(ctx context.Context, name string) error {
	if s.cache.entry(api.Namespace.Key("", name)) != nil {
		return nil
	}
	ns := &corev1.Namespace{}
	ns.Name = name
	raw, err := api.Encode(ns)
	if err != nil {
		return err
	}
	ctx = auth.With(ctx, auth.Admin("system:apiserver"))
	_, err = s.create(ctx, &kubepb.CreateRequest{Object: &kubepb.Object{Kind: api.Namespace.Name, Name: name, Raw: raw}})
	if errors.Is(err, errExists) {
		return nil // Another server was faster.
	}
	return err
}
