package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Recovery implements kubepb.ClusterStateServer.
func (s *Service) Recovery(ctx context.Context, r *kubepb.RecoveryRequest) (*kubepb.RecoveryResponse, error) {
	answer, err := s.recovery(ctx, r)
	return answer, toWire(err)
}

func (s *Service) recovery(ctx context.Context, r *kubepb.RecoveryRequest) (*kubepb.RecoveryResponse, error) {
	id, err := auth.Of(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.authorize(&auth.Request{Identity: id, Verb: auth.Recovery}); err != nil {
		return nil, err
	}
	if _, err := s.fresh(ctx); err != nil {
		return nil, err
	}
	v, err := s.compare()
	if err != nil {
		return nil, err
	}
	answer := &kubepb.RecoveryResponse{
		State: v.state.GetState(), Hold: v.hold, History: v.history(), Timeline: s.storeTimeline(), Since: v.state.GetSince(), Revision: v.revision,
		Nodes: v.reports(), Undecided: int64(len(v.undecided())),
	}
	if r.GetPods() {
		answer.Pods = v.lists()
		v.weigh(answer)
	}
	return answer, nil
}

// comparison is what the store and the nodes tell, as of one revision.
type comparison struct {
	standing
	heads   map[string]*kubepb.InventoryHead
	entries map[string]map[string]*told // Of this history.
	pods    []*corev1.Pod               // Recorded, and not ended.
	nodes   []string                    // With an object.
	owners  map[string]bool             // Uids of ReplicaSets and Deployments that are recorded.

	machines map[string]*corev1.Node       // Those objects, by name.
	sets     map[string]*appsv1.ReplicaSet // That are recorded, by uid.
}

// claims are what the nodes tell, and nothing of what is recorded.
func (s *Service) claims() (*comparison, error) {
	is, err := s.stands()
	if err != nil {
		return nil, err
	}
	v := &comparison{
		standing: is, heads: map[string]*kubepb.InventoryHead{}, entries: map[string]map[string]*told{}, owners: map[string]bool{},
		machines: map[string]*corev1.Node{}, sets: map[string]*appsv1.ReplicaSet{},
	}
	if is.hold == kubepb.Hold_HOLD_NONE {
		return v, nil
	}
	c := s.cache
	c.mu.RLock()
	defer c.mu.RUnlock()
	for node, h := range c.mu.inventories.heads { //tidy:ordered into a map
		if h.History == is.history() {
			v.heads[node] = h
		}
	}
	for node, all := range c.mu.inventories.entries { //tidy:ordered into a map
		if v.heads[node] != nil { // Others have told of a part, or before.
			v.entries[node] = maps.Clone(all)
		}
	}
	return v, nil
}

func (s *Service) compare() (*comparison, error) {
	v, err := s.claims()
	if err != nil || v.hold == kubepb.Hold_HOLD_NONE {
		return v, err
	}
	c := s.cache
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, e := range c.mu.shelves[api.Node].sorted {
		v.nodes = append(v.nodes, e.name)
		v.machines[e.name], _ = e.object.(*corev1.Node)
	}
	for _, k := range []*api.Kind{api.ReplicaSet, api.Deployment} {
		for _, e := range c.mu.shelves[k].sorted {
			o, err := api.Decode(k, e.stored.Value, e.revision)
			if err != nil {
				return nil, err
			}
			v.owners[string(o.GetUID())] = true
			if set, ok := o.(*appsv1.ReplicaSet); ok {
				v.sets[string(set.UID)] = set
			}
		}
	}
	for _, e := range c.mu.shelves[api.Pod].sorted {
		o, err := api.Decode(api.Pod, e.stored.Value, e.revision)
		if err != nil {
			return nil, err
		}
		if p := o.(*corev1.Pod); !ended(p) {
			v.pods = append(v.pods, p)
		}
	}
	return v, nil
}

// expected are the nodes that are to report: those with an object, and those that pods
// are bound to.
func (v *comparison) expected() []string {
	all := slices.Clone(v.nodes)
	for _, p := range v.pods {
		if p.Spec.NodeName != "" {
			all = append(all, p.Spec.NodeName)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// missing are nodes that have not reported and are waited for.
func (v *comparison) missing() []string {
	return slices.DeleteFunc(v.expected(), func(node string) bool { return v.heads[node] != nil || v.givenUp(node) })
}

func (v *comparison) reports() []*kubepb.NodeReport {
	if v.hold == kubepb.Hold_HOLD_NONE {
		return nil
	}
	names := append(v.expected(), slices.Collect(maps.Keys(v.heads))...)
	slices.Sort(names)
	var all []*kubepb.NodeReport
	for _, node := range slices.Compact(names) {
		all = append(all, &kubepb.NodeReport{
			Node: node, Reported: v.heads[node].GetReported(), GivenUp: v.givenUp(node), Pods: int64(len(v.entries[node])),
			Distrusted: v.distrusted(node),
		})
	}
	return all
}

// records finds the recorded pods by uid and by name.
func (v *comparison) records() (byUID map[string]*corev1.Pod, byName map[string]*corev1.Pod) {
	byUID, byName = map[string]*corev1.Pod{}, map[string]*corev1.Pod{}
	for _, p := range v.pods {
		byUID[string(p.UID)], byName[full(p.Namespace, p.Name)] = p, p
	}
	return byUID, byName
}

// lists compares pod by pod.
func (v *comparison) lists() []*kubepb.RecoveredPod {
	var all []*kubepb.RecoveredPod
	byUID, byName := v.records()
	for node, entries := range v.entries { //tidy:ordered sorted below
		for uid, t := range entries { //tidy:ordered sorted below
			p := described(t.pod, node)
			p.Running, p.Pruned = t.entry.Running, t.entry.Pruned
			r := byUID[uid]
			if r != nil && r.Spec.NodeName == node {
				p.List = kubepb.RecoveredPod_BOTH
			} else {
				p.List = kubepb.RecoveredPod_RUNNING
				p.Note = v.obstacle(t.pod, r, byName[full(t.pod.Namespace, t.pod.Name)])
				if p.Doubt = v.doubt(node, t, r); p.Doubt != "" {
					show(p, t.pod)
				}
			}
			all = append(all, p)
		}
	}
	for _, r := range v.pods {
		node := r.Spec.NodeName
		if node == "" || api.IsMirror(r) || v.entries[node][string(r.UID)] != nil {
			continue
		}
		p := described(r, node)
		p.List = kubepb.RecoveredPod_RECORDED
		p.Note = v.fate(r)
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *kubepb.RecoveredPod) int {
		return cmp.Or(cmp.Compare(a.List, b.List), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Uid, b.Uid))
	})
	return all
}

func described(p *corev1.Pod, node string) *kubepb.RecoveredPod {
	d := &kubepb.RecoveredPod{Namespace: p.Namespace, Name: p.Name, Uid: string(p.UID), Node: node, Singleton: api.IsSingleton(p)}
	for i := range p.Status.ContainerStatuses {
		d.Restarts += int64(p.Status.ContainerStatuses[i].RestartCount)
	}
	if r := metav1.GetControllerOf(p); r != nil {
		d.Controller = r.Kind + "/" + r.Name
	}
	return d
}

// obstacle says what its adoption would do beside recording a pod, or what forbids it.
func (v *comparison) obstacle(p, same, named *corev1.Pod) string {
	switch owner := metav1.GetControllerOf(p); {
	case api.IsUnreadable(p):
		return "its node has lost what it is: it goes on until it is pruned, and may be any singleton"
	case same != nil && same.Spec.NodeName == "":
		return "recorded without a node: adoption binds it"
	case same != nil:
		return "recorded on node " + same.Spec.NodeName
	case named != nil && v.has(named):
		return "another pod of this name runs on node " + named.Spec.NodeName
	case named != nil:
		return "adoption replaces the recorded pod of this name, which does not run"
	case owner != nil && !v.owners[string(owner.UID)]:
		return owner.Kind + " " + owner.Name + " is not recorded: adoption leaves it without an owner"
	}
	return ""
}

// has reports whether the node of a recorded pod has told of it.
func (v *comparison) has(p *corev1.Pod) bool { return v.entries[p.Spec.NodeName][string(p.UID)] != nil }

// fate says what becomes of a recorded pod that its node does not have.
func (v *comparison) fate(r *corev1.Pod) string {
	switch {
	case v.distrusted(r.Spec.NodeName):
		return "its node is distrusted"
	case v.heads[r.Spec.NodeName] == nil && v.givenUp(r.Spec.NodeName):
		return "its node is given up"
	case v.heads[r.Spec.NodeName] == nil:
		return "its node has not told yet"
	case metav1.GetControllerOf(r) != nil:
		return "its record goes: its controller makes another if it lacks one"
	}
	return "its node starts it when all is settled"
}

// undecided are pods that run only, and of which nobody has said what becomes. One
// that does not run and must not run twice is none: it need not be ended.
func (v *comparison) undecided() []*told {
	var all []*told
	byUID, _ := v.records()
	for node, entries := range v.entries { //tidy:ordered counted
		for uid, t := range entries { //tidy:ordered counted
			if r := byUID[uid]; r != nil && r.Spec.NodeName == node || t.entry.Pruned || !t.entry.Running && api.IsSingleton(t.pod) || ended(t.pod) {
				continue
			}
			all = append(all, t)
		}
	}
	return all
}

// Recover implements kubepb.ClusterStateServer.
func (s *Service) Recover(ctx context.Context, r *kubepb.RecoverRequest) (*kubepb.RecoverResponse, error) {
	answer, err := s.recover(ctx, r)
	return answer, toWire(err)
}

func (s *Service) recover(ctx context.Context, r *kubepb.RecoverRequest) (*kubepb.RecoverResponse, error) {
	id, err := auth.Of(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.authorize(&auth.Request{Identity: id, Verb: auth.Recover}); err != nil {
		return nil, err
	}
	p := &kubepb.Preconditions{}
	if r.FenceKey != "" {
		p.Fence = &kubepb.Fence{Key: r.FenceKey, CreateRevision: r.FenceRevision}
	}
	if r.Action <= kubepb.RecoverRequest_GIVE_UP || r.Action == kubepb.RecoverRequest_DISTRUST {
		if err := checkName("node", r.Node); err != nil {
			return nil, err
		}
	}
	if _, err := s.fresh(ctx); err != nil {
		return nil, err
	}
	is, err := s.stands()
	if err != nil {
		return nil, err
	}
	if is.hold == kubepb.Hold_HOLD_NONE {
		return nil, fmt.Errorf("all is settled since the last restore; that something is to be recovered %w", errGuard)
	}
	return s.decide(ctx, p, r)
}

func (s *Service) decide(ctx context.Context, p *kubepb.Preconditions, r *kubepb.RecoverRequest) (*kubepb.RecoverResponse, error) {
	switch r.Action {
	case kubepb.RecoverRequest_ADOPT:
		return s.adopt(ctx, p, r)
	case kubepb.RecoverRequest_PRUNE:
		return s.prune(ctx, p, r)
	case kubepb.RecoverRequest_GIVE_UP:
		return s.giveUp(ctx, p, r.Node, false)
	case kubepb.RecoverRequest_DISTRUST:
		return s.giveUp(ctx, p, r.Node, true)
	case kubepb.RecoverRequest_PROCEED:
		return &kubepb.RecoverResponse{}, s.moveTo(ctx, p, kubepb.RecoveryResponse_PROCEEDING)
	case kubepb.RecoverRequest_SETTLE:
		return s.conclude(ctx, p)
	}
	return nil, invalid("action: there is no %d", r.Action)
}

// prune lets a pod that is not recorded end.
func (s *Service) prune(ctx context.Context, p *kubepb.Preconditions, r *kubepb.RecoverRequest) (*kubepb.RecoverResponse, error) {
	_, _, err := s.write(ctx, p, false, func(a *attempt) error {
		t, err := a.toldOf(r.Node, r.Uid)
		if err != nil {
			return err
		}
		switch is, err := a.recorded(t.pod); {
		case err != nil:
			return err
		case is:
			return fmt.Errorf("pod %s is recorded; delete it instead: that it runs only %w", full(t.pod.Namespace, t.pod.Name), errGuard)
		}
		t.entry.Pruned = true
		return a.putEntry(inventoryKey(r.Node, r.Uid), t.entry)
	})
	return &kubepb.RecoverResponse{}, err
}

// toldOf reads an entry. It may be changed.
func (a *attempt) toldOf(node, uid string) (*told, error) {
	if !plainName(uid) {
		return nil, invalid("uid: %q is none", shorten(uid))
	}
	kv := a.read(inventoryKey(node, uid))
	if kv == nil {
		return nil, fmt.Errorf("pod of uid %s in what node %s has: %w", shorten(uid), node, errNotFound)
	}
	return decodeTold(kv.Value)
}

// giveUp waits for a node no more, and takes back what was reserved for it. What it
// tells later counts again, unless it is distrusted.
func (s *Service) giveUp(ctx context.Context, p *kubepb.Preconditions, node string, distrust bool) (*kubepb.RecoverResponse, error) {
	put := func(list []string) []string {
		if i, found := slices.BinarySearch(list, node); !found {
			return slices.Insert(list, i, node)
		}
		return list
	}
	err := s.changeState(ctx, p, func(st *kubepb.RecoveryState) {
		st.GivenUp = put(st.GivenUp)
		if distrust {
			st.Distrusted = put(st.Distrusted)
		}
	})
	if err == nil && distrust {
		_, _, err = s.write(ctx, p, false, func(a *attempt) error {
			if a.read(InventoryPrefix+node) != nil {
				a.delete(InventoryPrefix + node)
			}
			return nil
		})
	}
	for _, uid := range s.cache.toldUIDs(node) {
		if err != nil {
			break
		}
		_, _, err = s.write(ctx, p, false, func(a *attempt) error { return a.forget(node, uid) })
	}
	return &kubepb.RecoverResponse{}, err
}

// changeState writes the state of the recovery anew.
func (s *Service) changeState(ctx context.Context, p *kubepb.Preconditions, f func(*kubepb.RecoveryState)) error {
	_, _, err := s.write(ctx, p, false, func(a *attempt) error {
		kv := a.read(recoveryKey)
		if kv == nil {
			return errBehind
		}
		st := &kubepb.RecoveryState{}
		if err := st.UnmarshalVT(kv.Value); err != nil {
			return fmt.Errorf("%s: %w: %w", recoveryKey, api.ErrEncoding, err)
		}
		if st.Timeline != s.storeTimeline() {
			return errBehind
		}
		f(st)
		value, err := st.MarshalVT()
		if err == nil && !slices.Equal(value, kv.Value) {
			a.putPlain(recoveryKey, value, 0)
		}
		return err
	})
	if err == nil {
		_, err = s.fresh(ctx)
	}
	return err
}

// moveTo brings the recovery further, never back.
func (s *Service) moveTo(ctx context.Context, p *kubepb.Preconditions, to kubepb.RecoveryResponse_State) error {
	return s.changeState(ctx, p, func(st *kubepb.RecoveryState) {
		if st.State != kubepb.RecoveryResponse_SETTLED {
			st.State = to
		}
	})
}

// conclude ends the recovery: all is decided. What nodes do not have and controllers
// make goes first, so that no node starts it when the hold ends.
func (s *Service) conclude(ctx context.Context, p *kubepb.Preconditions) (*kubepb.RecoverResponse, error) {
	v, err := s.compare()
	if err != nil {
		return nil, err
	}
	if v.state.State == kubepb.RecoveryResponse_SETTLED {
		return &kubepb.RecoverResponse{}, nil
	}
	if missing := v.missing(); len(missing) > 0 {
		return nil, fmt.Errorf("%d nodes have not told what they run, %s first (wait, or holdfastctl recover pods --give-up NODE): that all is decided %w",
			len(missing), missing[0], errGuard)
	}
	if n := len(v.undecided()); n > 0 {
		return nil, fmt.Errorf("%d pods run that are not recorded (holdfastctl recover pods --adopt or --prune): that all is decided %w", n, errGuard)
	}
	answer := &kubepb.RecoverResponse{}
	for _, ghost := range v.ghosts() {
		_, _, err := s.write(ctx, p, false, func(a *attempt) error { return a.dropGhost(ghost) })
		if err != nil && !errors.Is(err, errNotFound) {
			return nil, err
		}
		answer.Removed = append(answer.Removed, full(ghost.Namespace, ghost.Name))
	}
	return answer, s.moveTo(ctx, p, kubepb.RecoveryResponse_SETTLED)
}

// ghosts are recorded pods that do not run and shall not be started where they were:
// those that a controller makes anew, and singletons of which another runs.
func (v *comparison) ghosts() []*corev1.Pod {
	runs := v.singletons()
	var all []*corev1.Pod
	for _, p := range v.pods {
		if owner := metav1.GetControllerOf(p); owner != nil && !api.IsMirror(p) && v.isGhost(p, runs[string(owner.UID)]) {
			all = append(all, p)
		}
	}
	return all
}

// isGhost is about a pod that has a controller; singleton is the uid of the one of its
// controller that runs, if they are such.
func (v *comparison) isGhost(p *corev1.Pod, singleton string) bool {
	node := p.Spec.NodeName
	if node == "" || v.heads[node] == nil {
		return false
	}
	t := v.entries[node][string(p.UID)]
	if t == nil {
		return !placedAfter(p, v.state.GetSince())
	}
	return !t.entry.Running && api.IsSingleton(p) && singleton != "" && singleton != string(p.UID)
}

// placedAfter reports whether a pod got its node after a time: then it is one of those
// that are started while others are still being settled, and of which its node may not
// have told yet.
func placedAfter(p *corev1.Pod, since int64) bool {
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodScheduled && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Unix() > since
		}
	}
	return p.CreationTimestamp.Unix() > since
}

// singletons are the uids of those that run, by that of their controller.
func (v *comparison) singletons() map[string]string {
	runs := map[string]string{}
	for _, entries := range v.entries { //tidy:ordered there is one
		for uid, t := range entries { //tidy:ordered there is one
			if owner := metav1.GetControllerOf(t.pod); owner != nil && api.IsSingleton(t.pod) && t.entry.Running {
				runs[string(owner.UID)] = uid
			}
		}
	}
	return runs
}

// dropGhost removes the record of a pod of which nothing runs.
func (a *attempt) dropGhost(ghost *corev1.Pod) error {
	o, _, err := a.object(api.Pod, ghost.Namespace, ghost.Name)
	if err != nil {
		return err
	}
	if o == nil || o.GetUID() != ghost.UID {
		return missing(api.Pod, ghost.Namespace, ghost.Name)
	}
	return a.remove(api.Pod, o)
}
