package state

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// After a restore the objects are older than what runs. The store's timeline, which
// each restore makes another, is compared with the one that recoveryKey was written
// on: if they differ, a history is begun and a recovery opened. Within a history its
// state only goes from open to settled, so a cache that is behind refuses too much
// and never too little: no transaction has to compare it.
const (
	recoveryKey = "/holdfast/recovery"

	// InventoryPrefix is that of what nodes have told: NODE, a head, and NODE/UID.
	InventoryPrefix = "/holdfast/inventory/"
)

// firstTimeline is that of a store that was never restored.
const firstTimeline = 1

// standing is where the cluster is after a restore.
type standing struct {
	state    *kubepb.RecoveryState // Nil: the store tells no timeline, and nothing is known of restores.
	hold     kubepb.Hold
	revision int64
}

func (s standing) history() uint64 { return s.state.GetHistory() }

// open reports whether nobody may start or end anything but the nodes themselves.
func (s standing) open() bool { return s.hold == kubepb.Hold_HOLD_ALL }

// givenUp reports whether a node is not waited for.
func (s standing) givenUp(node string) bool {
	_, found := slices.BinarySearch(s.state.GetGivenUp(), node)
	return found
}

// distrusted reports whether what a node tells is not heard.
func (s standing) distrusted(node string) bool {
	_, found := slices.BinarySearch(s.state.GetDistrusted(), node)
	return found
}

// timeline remembers the store's: a member that starts again tells none meanwhile.
type timeline struct{ last atomic.Uint64 }

func (s *Service) storeTimeline() uint64 {
	if s.cfg.Timeline == nil {
		return 0
	}
	if n := s.cfg.Timeline(); n != 0 {
		s.timeline.last.Store(n)
	}
	return s.timeline.last.Load()
}

// stands is where the cluster is now, as far as the cache knows.
func (s *Service) stands() (standing, error) {
	if s.cfg.Timeline == nil {
		return standing{}, nil
	}
	kv, singletons := s.cache.recovery()
	if kv == nil {
		return standing{}, fmt.Errorf("of the store's history: %w", errBehind)
	}
	st := &kubepb.RecoveryState{}
	if err := st.UnmarshalVT(kv.Value); err != nil {
		return standing{}, fmt.Errorf("%s: %w: %w", recoveryKey, api.ErrEncoding, err)
	}
	if st.Timeline != s.storeTimeline() {
		return standing{}, fmt.Errorf("of the store's history: %w", errBehind)
	}
	is := standing{state: st, revision: kv.ModRevision}
	switch st.State {
	case kubepb.RecoveryResponse_OPEN:
		is.hold = kubepb.Hold_HOLD_ALL
	case kubepb.RecoveryResponse_PROCEEDING:
		is.hold = kubepb.Hold_HOLD_UNLISTED
	default:
		if singletons > 0 {
			is.hold = kubepb.Hold_HOLD_SINGLETONS
		}
	}
	return is, nil
}

// standsBy waits until that is known.
func (s *Service) standsBy(ctx context.Context) (standing, error) {
	for start := s.clock.Mono(); ; {
		is, err := s.stands()
		if !errors.Is(err, errBehind) || s.clock.Mono()-start > patienceMax {
			return is, err
		}
		select {
		case <-s.clock.After(progressRetry):
		case <-ctx.Done():
			return is, ctx.Err()
		}
	}
}

// beginHistory writes that the store was restored, if it was, until it stands.
func (s *Service) beginHistory(ctx context.Context) error {
	for s.cfg.Timeline != nil {
		_, err := s.stands()
		if errors.Is(err, errBehind) && s.storeTimeline() != 0 {
			err = s.writeHistory(ctx)
		}
		if err == nil {
			return nil
		}
		s.log.Debug("the store's history is not settled yet", "error", err)
		select {
		case <-s.clock.After(relistDelay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *Service) writeHistory(ctx context.Context) error {
	if _, err := s.fresh(ctx); err != nil {
		return err
	}
	kv := s.cache.lookup(recoveryKey)
	var b [8]byte
	if err := s.draw(b[:]); err != nil {
		return err
	}
	st := &kubepb.RecoveryState{
		Timeline: s.storeTimeline(), History: binary.LittleEndian.Uint64(b[:]) | 1, Since: s.clock.Wall().Unix(), State: kubepb.RecoveryResponse_OPEN,
	}
	// A cluster that is new, or whose store was never restored, has nothing to recover.
	if kv == nil && (st.Timeline == firstTimeline || s.cache.empty()) {
		st.State = kubepb.RecoveryResponse_SETTLED
	}
	value, err := st.MarshalVT()
	if err != nil {
		return err
	}
	r, err := s.store.Txn(ctx, client.Txn{
		If:   []client.Compare{client.IfModified(recoveryKey, client.Equal, kv.GetModRevision())},
		Then: []client.Op{client.Put{Key: recoveryKey, Value: value}},
	})
	if err != nil {
		return err
	}
	if r.Succeeded && st.State == kubepb.RecoveryResponse_OPEN {
		s.log.Warn("the store was restored: nothing is started or ended until it is settled what becomes of what runs: holdfastctl recover pods",
			"timeline", st.Timeline)
	}
	_, err = s.fresh(ctx)
	return err
}

// empty reports whether there are neither nodes nor pods.
func (c *cache) empty() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.mu.shelves[api.Node].sorted)+len(c.mu.shelves[api.Pod].sorted) == 0
}

// mayCharge refuses to give a pod a node while what runs is not known.
func (a *attempt) mayCharge(p *corev1.Pod) error {
	if _, node := a.identity.NodeName(); a.recovers || node && api.IsMirror(p) { // It runs already.
		return nil
	}
	is, err := a.service.stands()
	switch {
	case err != nil:
		return err
	case is.open():
		return fmt.Errorf("the store was restored, and what runs is not settled (holdfastctl recover pods): that pods are started %w", errGuard)
	case is.hold >= kubepb.Hold_HOLD_UNLISTED && a.service.cache.isTold(p):
		return fmt.Errorf("a node has pod %s already (holdfastctl recover pods): that it gets another %w", full(p.Namespace, p.Name), errGuard)
	case is.hold == kubepb.Hold_HOLD_SINGLETONS && api.IsSingleton(p):
		if c, found := a.service.cache.rival(p); found {
			return fmt.Errorf("pod %s is a singleton, and node %s may run a copy of it, the pod of uid %s (holdfastctl recover pods --distrust %s, if it does not): that it is started %w",
				full(p.Namespace, p.Name), c.node, c.uid, c.node, errGuard)
		}
	case is.hold >= kubepb.Hold_HOLD_SINGLETONS && api.IsSingleton(p):
		return fmt.Errorf("the store was restored, and a node may run another copy of a singleton (holdfastctl recover pods): that one is started %w", errGuard)
	}
	return nil
}

// mayEnd refuses what controllers, who look at objects alone, would end wrongly.
func (a *attempt) mayEnd(p *corev1.Pod) error {
	if a.identity.Name != auth.ControllersUser {
		return nil
	}
	is, err := a.service.stands()
	if err != nil || is.hold == kubepb.Hold_HOLD_NONE {
		return err
	}
	if is.open() {
		return fmt.Errorf("the store was restored, and what runs is not settled: that pods are ended %w", errGuard)
	}
	node := p.Spec.NodeName
	if api.IsSingleton(p) && node != "" && !ended(p) && !is.givenUp(node) && !a.service.cache.reported(node, is.history()) {
		return fmt.Errorf("node %s has not told since the restore whether it runs pod %s, of which there is one (holdfastctl recover pods --give-up %s): that it ends %w",
			node, full(p.Namespace, p.Name), node, errGuard)
	}
	return nil
}

// inventories are what nodes have told, decoded.
type inventories struct {
	heads      map[string]*kubepb.InventoryHead
	entries    map[string]map[string]*told // By node and uid.
	singletons int                         // Entries of singletons that are reserved.
	reserved   map[string]map[claim]bool   // The same, by singletonKeys.
}

// told is one pod of an inventory.
type told struct {
	entry *kubepb.InventoryEntry
	pod   *corev1.Pod
}

func newInventories() inventories {
	return inventories{heads: map[string]*kubepb.InventoryHead{}, entries: map[string]map[string]*told{}, reserved: map[string]map[claim]bool{}}
}

// set takes a key in; a nil kv removes it. What cannot be read is left out.
func (v *inventories) set(key string, kv *mvccpb.KeyValue) {
	node, uid, ofPod := strings.Cut(strings.TrimPrefix(key, InventoryPrefix), "/")
	if !ofPod {
		delete(v.heads, node)
		h := &kubepb.InventoryHead{}
		if kv != nil && h.UnmarshalVT(kv.Value) == nil {
			v.heads[node] = h
		}
		return
	}
	if old := v.entries[node][uid]; old != nil {
		v.count(old, -1)
		v.reserve(claim{node, uid}, old, false)
		delete(v.entries[node], uid)
		if len(v.entries[node]) == 0 {
			delete(v.entries, node)
		}
	}
	if kv == nil {
		return
	}
	if t, err := decodeTold(kv.Value); err == nil {
		if v.entries[node] == nil {
			v.entries[node] = map[string]*told{}
		}
		v.entries[node][uid] = t
		v.count(t, 1)
		v.reserve(claim{node, uid}, t, true)
	}
}

func (v *inventories) count(t *told, by int) {
	if t.entry.Reserved && api.IsSingleton(t.pod) {
		v.singletons += by
	}
}

func decodeTold(value []byte) (*told, error) {
	e := &kubepb.InventoryEntry{}
	if err := e.UnmarshalVT(value); err != nil {
		return nil, fmt.Errorf("inventory: %w: %w", api.ErrEncoding, err)
	}
	o, err := api.Decode(api.Pod, e.Pod, 0)
	if err != nil {
		return nil, err
	}
	return &told{e, o.(*corev1.Pod)}, nil
}

// recovery is the state and how many singletons are reserved, as of one revision: what
// this service wrote and has not heard of yet does not count.
func (c *cache) recovery() (*mvccpb.KeyValue, int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	kv, _ := c.keys.Load().plain.get(recoveryKey)
	return kv, c.mu.inventories.singletons
}

// reported reports whether a node has told all that it has in a history.
func (c *cache) reported(node string, history uint64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.inventories.heads[node].GetHistory() == history
}

// isTold reports whether a node has told of a pod.
func (c *cache) isTold(p *corev1.Pod) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, all := range c.mu.inventories.entries { //tidy:ordered one is enough
		if all[string(p.UID)] != nil {
			return true
		}
	}
	return false
}

// toldUIDs are the uids of a node's inventory, sorted.
func (c *cache) toldUIDs(node string) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Sorted(maps.Keys(c.mu.inventories.entries[node]))
}
