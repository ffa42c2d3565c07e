package state

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Inventory implements kubepb.ClusterStateServer.
func (s *Service) Inventory(ctx context.Context, r *kubepb.InventoryRequest) (*kubepb.InventoryResponse, error) {
	if err := s.inventory(ctx, r); err != nil {
		return nil, toWire(err)
	}
	return &kubepb.InventoryResponse{}, nil
}

// inventory writes each pod by a transaction of its own, with what it takes of the
// node; and that all have been told at the end.
func (s *Service) inventory(ctx context.Context, r *kubepb.InventoryRequest) error {
	id, err := auth.Of(ctx)
	if err != nil {
		return err
	}
	if err := checkName("node", r.GetNode()); err != nil {
		return err
	}
	if err := s.authorize(&auth.Request{Identity: id, Verb: auth.Inventory, NodeName: r.Node}); err != nil {
		return err
	}
	if len(r.Pods) > inventoryPodsMax || len(r.Uids) > inventoryPodsMax {
		return invalid("inventory: %d pods; %d are the most", max(len(r.Pods), len(r.Uids)), inventoryPodsMax)
	}
	is, err := s.standsBy(ctx)
	if err != nil {
		return err
	}
	if r.History != is.history() || r.History == 0 {
		return fmt.Errorf("inventory: of history %x, that it is %x %w", r.History, is.history(), errGuard)
	}
	if kept := len(s.cache.toldUIDs(r.Node)); kept+len(r.Pods) > 2*inventoryPodsMax {
		return fmt.Errorf("inventory: node %s has told of %d pods and not of their end: that it tells of %d more %w", r.Node, kept, len(r.Pods), errGuard)
	}
	for i, p := range r.Pods {
		pod, err := checkInventory(r.Node, p)
		if err != nil {
			return invalid("pods[%d]: %v", i, err)
		}
		if _, _, err := s.write(ctx, nil, false, func(a *attempt) error { return a.told(r, p, pod) }); err != nil {
			return err
		}
	}
	if r.More {
		return nil
	}
	return s.endInventory(ctx, r)
}

func checkInventory(node string, p *kubepb.InventoryPod) (*corev1.Pod, error) {
	if len(p.GetPod()) > objectBytesMax {
		return nil, fmt.Errorf("it has %d bytes; %d are the most", len(p.Pod), objectBytesMax)
	}
	o, err := api.Decode(api.Pod, p.GetPod(), 0)
	if err != nil {
		return nil, err
	}
	pod := o.(*corev1.Pod)
	if err := checkPlace(api.Pod, pod.Namespace, pod.Name); err != nil {
		return nil, err
	}
	for _, r := range pod.OwnerReferences {
		if len(r.Kind)+len(r.Name) > 2*nameBytesMax {
			return nil, fmt.Errorf("pod %s: its owner %s %s is none", full(pod.Namespace, pod.Name), shorten(r.Kind), shorten(r.Name))
		}
	}
	switch {
	case pod.Spec.NodeName != node:
		return nil, fmt.Errorf("pod %s is of node %q", full(pod.Namespace, pod.Name), shorten(pod.Spec.NodeName))
	case !plainName(string(pod.UID)):
		return nil, fmt.Errorf("pod %s: %q is no uid", full(pod.Namespace, pod.Name), shorten(string(pod.UID)))
	}
	return pod, nil
}

func inventoryKey(node, uid string) string { return InventoryPrefix + node + "/" + uid }

// told writes one pod of an inventory. If no recorded pod stands for it, the ledger of
// the node counts it from now on, whether there is room or not: it runs.
func (a *attempt) told(r *kubepb.InventoryRequest, p *kubepb.InventoryPod, pod *corev1.Pod) error {
	if distrusted, err := a.distrusts(r.Node); err != nil || distrusted {
		return err
	}
	recorded, err := a.recorded(pod)
	if err != nil {
		return err
	}
	key := inventoryKey(r.Node, string(pod.UID))
	e := &kubepb.InventoryEntry{History: r.History, Pod: p.Pod, Running: p.Running, Reserved: !recorded && !ended(pod)}
	var before *told
	if kv := a.read(key); kv != nil {
		if before, err = decodeTold(kv.Value); err != nil {
			return err
		}
		e.Pruned = before.entry.Pruned && before.entry.History == r.History
	}
	if err := a.book(r.Node, before, &told{e, pod}); err != nil {
		return err
	}
	return a.putEntry(key, e)
}

// distrusts reads it from the store: what a node tells while it is being distrusted would
// stay else.
func (a *attempt) distrusts(node string) (bool, error) {
	st := &kubepb.RecoveryState{}
	if err := st.UnmarshalVT(a.read(recoveryKey).GetValue()); err != nil {
		return false, fmt.Errorf("%s: %w: %w", recoveryKey, api.ErrEncoding, err)
	}
	return standing{state: st}.distrusted(node), nil
}

func (a *attempt) putEntry(key string, e *kubepb.InventoryEntry) error {
	value, err := e.MarshalVT()
	if err != nil {
		return err
	}
	if kv := a.read(key); kv == nil || !slices.Equal(kv.Value, value) {
		a.putPlain(key, value, 0)
	}
	return nil
}

// recorded reports whether the store has a pod, on its node, and its ledger counts it.
func (a *attempt) recorded(pod *corev1.Pod) (bool, error) {
	o, _, err := a.object(api.Pod, pod.Namespace, pod.Name)
	if err != nil || o == nil {
		return false, err
	}
	p := o.(*corev1.Pod)
	return p.UID == pod.UID && p.Spec.NodeName == pod.Spec.NodeName, nil
}

// book books what the change of an entry does to the ledger of its node.
func (a *attempt) book(node string, before, now *told) error {
	was, is := before != nil && before.entry.Reserved, now != nil && now.entry.Reserved
	if !was && !is {
		return nil
	}
	l, err := a.ledger(node)
	if err != nil {
		return err
	}
	if was {
		less := api.PodRequests(&before.pod.Spec)
		subtract(l, &less)
	}
	if is {
		more := api.PodRequests(&now.pod.Spec)
		add(l, &more)
	}
	return a.putLedger(LedgerPrefix+node, l)
}

// forget takes an entry away, and what was reserved for it.
func (a *attempt) forget(node, uid string) error {
	key := inventoryKey(node, uid)
	kv := a.read(key)
	if kv == nil {
		return nil
	}
	before, err := decodeTold(kv.Value)
	if err != nil {
		return err
	}
	a.delete(key)
	return a.book(node, before, nil)
}

// endInventory drops what the node has no more, and writes that it has told all.
func (s *Service) endInventory(ctx context.Context, r *kubepb.InventoryRequest) error {
	if _, err := s.fresh(ctx); err != nil {
		return err
	}
	is, err := s.stands()
	if err != nil {
		return err
	}
	if is.distrusted(r.Node) {
		return nil
	}
	has := map[string]bool{}
	for _, uid := range r.Uids {
		has[uid] = true
	}
	for _, uid := range s.cache.toldUIDs(r.Node) {
		if has[uid] {
			delete(has, uid)
			continue
		}
		if _, _, err := s.write(ctx, nil, false, func(a *attempt) error { return a.forget(r.Node, uid) }); err != nil {
			return err
		}
	}
	for uid := range has { //tidy:ordered one is enough
		return invalid("uids: %q was not told of", shorten(uid))
	}
	key := InventoryPrefix + r.Node
	if is.hold == kubepb.Hold_HOLD_NONE && len(r.Uids) == 0 { // All is over: nothing is left behind.
		_, err := s.store.Delete(ctx, client.Delete{Range: client.One(key)})
		return err
	}
	value, err := (&kubepb.InventoryHead{History: r.History, Reported: s.clock.Wall().Unix()}).MarshalVT()
	if err != nil {
		return err
	}
	_, err = s.store.Put(ctx, client.Put{Key: key, Value: value})
	return err
}
