package controller

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/controller/nodelife"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

const (
	nodesLookAgain = 10 * time.Second // Without a change.
	watchRetry     = time.Second
)

// allNodes is the only key of the loop: the brake needs all of them.
var allNodes = key{name: "all"}

// nodes marks those that fell silent, and evicts.
type nodes struct {
	term  *term
	loop  *loop
	brake nodelife.Brake // Of the only worker.

	// silent is since when each node has been seen to be so, by the monotonic clock. Of the
	// only worker: who leads next waits anew.
	silent map[string]time.Duration

	mu struct {
		sync.Mutex
		alive map[string]bool // Nil: not known yet.
	}
}

func newNodes(t *term) {
	c := &nodes{term: t}
	c.loop = t.loop("nodes", c.sync)
	c.loop.workers = 1
	t.views.nodes.OnChange(func(old, n *corev1.Node) {
		if old == nil || n == nil || readiness(old) != readiness(n) || !equality.Semantic.DeepEqual(old.Spec.Taints, n.Spec.Taints) {
			c.loop.queue.Add(allNodes)
		}
	})
	t.views.pods.OnChange(func(_, pod *corev1.Pod) {
		if pod == nil {
			return
		}
		if n, ok := t.views.nodes.Get("", pod.Spec.NodeName); ok && len(n.Spec.Taints) > 0 {
			c.loop.queue.Add(allNodes)
		}
	})
	t.tasks = append(t.tasks, background{"heartbeats", c.follow})
}

// follow watches the heartbeat keys. A key that vanishes is a death.
func (c *nodes) follow(ctx context.Context) error {
	for {
		err := c.listen(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.term.log.Info("watch of heartbeats ended, beginning anew", "error", err)
		select {
		case <-c.term.clock.After(watchRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *nodes) listen(ctx context.Context) error {
	all := client.Prefix(state.HeartbeatPrefix)
	is, err := c.term.cfg.Store.Get(ctx, client.Get{Range: all, KeysOnly: true})
	if err != nil {
		return err
	}
	alive := map[string]bool{}
	for _, kv := range is.Kvs {
		alive[nodeOf(kv)] = true
	}
	c.mu.Lock()
	c.mu.alive = alive
	c.mu.Unlock()
	c.loop.queue.Add(allNodes)
	w := c.term.cfg.Store.Watch(ctx, client.Watch{Range: all, Revision: is.Header.Revision + 1})
	defer w.Cancel()
	for r := range w.Reports() {
		c.take(r)
	}
	return w.Err()
}

func nodeOf(kv *mvccpb.KeyValue) string {
	return strings.TrimPrefix(string(kv.Key), state.HeartbeatPrefix)
}

func (c *nodes) take(r *pb.WatchResponse) {
	c.mu.Lock()
	for _, e := range r.Events {
		if e.Type == mvccpb.Event_DELETE {
			delete(c.mu.alive, nodeOf(e.Kv))
		} else {
			c.mu.alive[nodeOf(e.Kv)] = true
		}
	}
	c.mu.Unlock()
	c.loop.queue.Add(allNodes)
}

func (c *nodes) sync(ctx context.Context, _ key) (time.Duration, error) {
	f := nodelife.Facts{Brake: c.brake, Trouble: c.term.quorum.last(), Limits: c.term.cfg.Nodes, Now: c.term.clock.Wall()}
	f.Held, f.Unreported = c.term.recovery.held(), c.term.recovery.unreported()
	v := c.term.views
	c.mu.Lock()
	known := c.mu.alive != nil
	silent, now := map[string]time.Duration{}, c.term.clock.Mono()
	for _, n := range v.nodes.List("") {
		alive := c.mu.alive[n.Name]
		node := nodelife.Node{Object: n, Alive: alive}
		if !alive {
			since, ok := c.silent[n.Name]
			if !ok {
				since = now
			}
			silent[n.Name], node.Silent = since, now-since
		}
		f.Nodes = append(f.Nodes, node)
		if !alive || len(n.Spec.Taints) > 0 {
			f.Pods = append(f.Pods, v.pods.ByIndex(byNode, n.Name)...)
		}
	}
	c.mu.Unlock()
	if !known {
		return 0, nil
	}
	p := nodelife.Make(f)
	c.brake, c.silent = p.Brake, silent
	c.term.brake.Store(&p.Brake)
	for _, n := range p.Notes {
		c.note(n)
	}
	err := c.act(ctx, p)
	again := nodesLookAgain
	if p.Again > 0 {
		again = min(again, p.Again)
	}
	return again, err
}

// note tells of a node; what concerns the whole cluster, of its first namespace.
func (c *nodes) note(n nodelife.Note) {
	warning := n.Reason == "NodeSilent" || n.Reason == "EvictionsStopped"
	if n.Node != "" {
		if node, ok := c.term.views.nodes.Get("", n.Node); ok {
			c.term.recorder.note(node, warning, n.Reason, n.Message)
		}
		return
	}
	c.term.log.Warn("evictions", "what", n.Reason, "why", n.Message)
	if ns, ok := c.term.views.namespaces.Get("", "default"); ok {
		c.term.recorder.note(ns, warning, n.Reason, n.Message)
	}
}

// act marks nodes first: from one that could not be marked nobody is evicted before the
// next plan. One pod that cannot be written keeps none of the others where it is.
func (c *nodes) act(ctx context.Context, p nodelife.Plan) error {
	var errs []error
	unmarked := map[string]bool{}
	for _, n := range p.Nodes {
		if err := c.mark(ctx, n); err != nil {
			unmarked[n.Name] = true
			errs = append(errs, wrap(err, "mark", n))
		}
	}
	for _, pod := range p.Unready {
		next := pod.DeepCopy()
		replica.SetReady(&next.Status, false, "NodeLost", c.term.clock.Wall())
		_, err := objects.UpdateStatus(ctx, c.term.client, next, c.term.fenced())
		errs = append(errs, wrap(err, "status of", pod))
	}
	for _, e := range p.Evict {
		if unmarked[e.Pod.Spec.NodeName] {
			continue
		}
		o := c.term.fenced()
		if e.Force {
			now := int64(0)
			o.Grace = &now
		}
		err := objects.Delete[*corev1.Pod](ctx, c.term.client, e.Pod.Namespace, e.Pod.Name, o, same(e.Pod))
		if err != nil && !errors.Is(err, objects.ErrNotFound) {
			errs = append(errs, wrap(err, "evict", e.Pod))
			continue
		}
		c.term.recorder.note(e.Pod, true, "Evicted", e.Why)
	}
	return errors.Join(errs...)
}

// mark writes a node's taints and conditions, which are two writes.
func (c *nodes) mark(ctx context.Context, n *corev1.Node) error {
	is, ok := c.term.views.nodes.Get("", n.Name)
	if !ok {
		return nil
	}
	written := n
	var err error
	if !equality.Semantic.DeepEqual(is.Spec, n.Spec) {
		if written, err = objects.Update(ctx, c.term.client, n, c.term.fenced()); err != nil {
			return err
		}
	}
	if equality.Semantic.DeepEqual(is.Status, n.Status) {
		return nil
	}
	next := written.DeepCopy()
	next.Status = n.Status
	_, err = objects.UpdateStatus(ctx, c.term.client, next, c.term.fenced())
	return err
}
