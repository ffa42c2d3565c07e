// Package replay reads the whole history of a cluster from its store and checks, at
// every revision, what must always be true:
//
//   - what the pods of a node ask for is at most what the node has;
//   - the ledger of a node is the sum of that, and of what the node has told that it runs
//     besides, after a restore;
//   - a pod's node never changes, once it has one;
//   - a bound pod that has not ended is deleted only after it was told to end;
//   - a pod is created for a ReplicaSet, and a ReplicaSet is raised for a Deployment,
//     only up to what is wanted then, surge included.
//
// The store's own log of revisions is all that it needs: nothing is recorded beside.
package replay

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Report is what a history holds, and what is wrong with it.
type Report struct {
	Revisions  int64
	Binds      int
	Deletes    int // Of pods that were bound.
	Violations []string
}

// violationsMax are told. The first is the one that matters.
const violationsMax = 20

// Check replays the history from the first revision to what is newest now.
func Check(ctx context.Context, store *client.Client) (*Report, error) {
	newest, err := store.Get(ctx, client.Get{Range: client.One("/"), CountOnly: true})
	if err != nil {
		return nil, err
	}
	last := newest.Header.Revision
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := store.Watch(ctx, client.Watch{Range: client.From("\x00"), Revision: 1})
	c := newChecker()
	for r := range w.Reports() {
		for len(r.Events) > 0 { // Events of one revision happened at once.
			at := r.Events[0].Kv.ModRevision
			n := slices.IndexFunc(r.Events, func(e *mvccpb.Event) bool { return e.Kv.ModRevision != at })
			if n < 0 {
				n = len(r.Events)
			}
			if err := c.take(at, r.Events[:n]); err != nil {
				return nil, err
			}
			r.Events = r.Events[n:]
			if at >= last {
				c.report.Revisions = at
				return c.report, nil
			}
		}
		if c.at >= last {
			break
		}
	}
	if err := w.Err(); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, errors.New("the history ended early")
}

// checker is the cluster as of one revision.
type checker struct {
	at      int64
	report  *Report
	pods    map[string]*corev1.Pod
	onNode  map[string]map[string]*corev1.Pod // By node, then key.
	nodes   map[string]*corev1.Node
	ledgers map[string]*kubepb.Ledger
	told    map[string]map[string]*corev1.Pod // Reserved after a restore: by node, then uid.
	sets    map[types.UID]*appsv1.ReplicaSet
	deploys map[types.UID]*appsv1.Deployment

	setKeys, deployKeys map[string]types.UID
}

func newChecker() *checker {
	return &checker{
		report: &Report{}, pods: map[string]*corev1.Pod{}, onNode: map[string]map[string]*corev1.Pod{}, nodes: map[string]*corev1.Node{},
		told:    map[string]map[string]*corev1.Pod{},
		ledgers: map[string]*kubepb.Ledger{}, sets: map[types.UID]*appsv1.ReplicaSet{}, deploys: map[types.UID]*appsv1.Deployment{},
		setKeys: map[string]types.UID{}, deployKeys: map[string]types.UID{},
	}
}

func (c *checker) wrong(format string, args ...any) {
	if len(c.report.Violations) < violationsMax {
		c.report.Violations = append(c.report.Violations, fmt.Sprintf("revision %d: %s", c.at, fmt.Sprintf(format, args...)))
	}
}

// step is what one revision did, beyond the state that it led to.
type step struct {
	nodes   map[string]bool // Whose pods or ledger changed.
	created []*corev1.Pod
	raised  []*appsv1.ReplicaSet
}

// take applies the events of one revision and checks the state that they lead to.
func (c *checker) take(at int64, events []*mvccpb.Event) error {
	c.at = at
	s := &step{nodes: map[string]bool{}}
	for _, e := range events {
		if err := c.apply(e, s); err != nil {
			return fmt.Errorf("revision %d, key %s: %w", at, e.Kv.Key, err)
		}
	}
	for node := range s.nodes {
		c.checkNode(node)
	}
	for _, pod := range s.created {
		c.checkCreated(pod)
	}
	for _, set := range s.raised {
		c.checkRaised(set)
	}
	return nil
}

const (
	ledgerPrefix    = "/holdfast/ledger/"
	inventoryPrefix = "/holdfast/inventory/"
)

// takeTold takes in a pod that a node has told of; a nil value: it tells of it no more.
func (c *checker) takeTold(node, uid string, value []byte) error {
	if c.told[node] == nil {
		c.told[node] = map[string]*corev1.Pod{}
	}
	delete(c.told[node], uid)
	if value == nil {
		return nil
	}
	e := &kubepb.InventoryEntry{}
	if err := e.UnmarshalVT(value); err != nil || !e.Reserved {
		return err
	}
	o, err := api.Decode(api.Pod, e.Pod, 0)
	if err == nil {
		c.told[node][uid] = o.(*corev1.Pod)
	}
	return err
}

func (c *checker) apply(e *mvccpb.Event, s *step) error {
	key, deleted := string(e.Kv.Key), e.Type == mvccpb.Event_DELETE
	if node, ok := strings.CutPrefix(key, ledgerPrefix); ok {
		s.nodes[node] = true
		delete(c.ledgers, node)
		if deleted {
			return nil
		}
		l := &kubepb.Ledger{}
		c.ledgers[node] = l
		return l.UnmarshalVT(e.Kv.Value)
	}
	if rest, ok := strings.CutPrefix(key, inventoryPrefix); ok {
		node, uid, ofPod := strings.Cut(rest, "/")
		if !ofPod {
			return nil
		}
		s.nodes[node] = true
		value := e.Kv.Value
		if deleted {
			value = nil
		}
		return c.takeTold(node, uid, value)
	}
	for _, k := range []*api.Kind{api.Pod, api.Node, api.ReplicaSet, api.Deployment} {
		if _, _, ok := k.ParseKey(key); !ok {
			continue
		}
		var o api.Object
		if !deleted {
			var err error
			if o, err = api.Decode(k, e.Kv.Value, e.Kv.ModRevision); err != nil {
				return err
			}
		}
		c.object(k, key, o, s)
	}
	return nil
}

// object takes an object in; nil: it is gone.
func (c *checker) object(k *api.Kind, key string, o api.Object, s *step) {
	switch k {
	case api.Pod:
		pod, _ := o.(*corev1.Pod)
		c.pod(key, pod, s)
	case api.Node:
		if node, ok := o.(*corev1.Node); ok {
			c.nodes[node.Name] = node
			return
		}
		_, name, _ := k.ParseKey(key)
		delete(c.nodes, name)
	case api.ReplicaSet:
		set, ok := o.(*appsv1.ReplicaSet)
		if !ok {
			delete(c.sets, c.setKeys[key])
			return
		}
		before := int64(0) // A new set that wants no copies is not raised.
		if old := c.sets[set.UID]; old != nil {
			before = wants(old)
		}
		if wants(set) > before {
			s.raised = append(s.raised, set)
		}
		c.sets[set.UID], c.setKeys[key] = set, set.UID
	case api.Deployment:
		d, ok := o.(*appsv1.Deployment)
		if !ok {
			delete(c.deploys, c.deployKeys[key])
			return
		}
		c.deploys[d.UID], c.deployKeys[key] = d, d.UID
	}
}

func wants(s *appsv1.ReplicaSet) int64 {
	if s.Spec.Replicas == nil {
		return 1
	}
	return int64(*s.Spec.Replicas)
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func (c *checker) pod(key string, pod *corev1.Pod, s *step) {
	old := c.pods[key]
	if old != nil && (pod == nil || pod.UID != old.UID) {
		if node := old.Spec.NodeName; node != "" {
			s.nodes[node] = true
			delete(c.onNode[node], key)
			c.report.Deletes++
			if old.DeletionTimestamp == nil && !ended(old) && c.nodes[node] != nil {
				c.wrong("pod %s was deleted from node %s without being told to end", key, node)
			}
		}
		old = nil
	}
	if pod == nil {
		delete(c.pods, key)
		return
	}
	c.pods[key] = pod
	if old == nil {
		s.created = append(s.created, pod)
	}
	before, now := "", pod.Spec.NodeName
	if old != nil {
		before = old.Spec.NodeName
	}
	switch {
	case before != "" && now != before:
		c.wrong("pod %s moved from node %s to %q", key, before, now)
	case before == "" && now != "":
		c.report.Binds++
	}
	if now != "" {
		s.nodes[now] = true
		if c.onNode[now] == nil {
			c.onNode[now] = map[string]*corev1.Pod{}
		}
		c.onNode[now][key] = pod
	}
}

// checkNode compares pods, ledger and what the node has.
func (c *checker) checkNode(name string) {
	all := api.Resources{}
	for _, pod := range c.onNode[name] {
		if !ended(pod) {
			all.Add(api.PodRequests(&pod.Spec))
		}
	}
	c.checkLedger(name, all)
	node := c.nodes[name]
	if node == nil {
		return // It is gone; its pods follow.
	}
	has := api.NodeResources(node)
	if all.MilliCPU > has.MilliCPU || all.Memory > has.Memory || all.Pods > has.Pods || all.EphemeralStorage > has.EphemeralStorage {
		c.wrong("node %s is over-committed: %+v of {cpu %d, memory %d, pods %d}", name, all, has.MilliCPU, has.Memory, has.Pods)
	}
	for i, p := range all.HostPorts {
		if slices.ContainsFunc(all.HostPorts[i+1:], p.Conflicts) {
			c.wrong("node %s: two pods have port %d", name, p.Port)
		}
	}
}

// checkLedger compares a ledger with what the pods of its node ask for, and those that
// it has told of.
func (c *checker) checkLedger(name string, all api.Resources) {
	for _, pod := range c.told[name] {
		all.Add(api.PodRequests(&pod.Spec))
	}
	sum := &kubepb.Ledger{}
	sum.CpuMillis, sum.MemoryBytes, sum.EphemeralBytes, sum.Pods = all.MilliCPU, all.Memory, all.EphemeralStorage, all.Pods
	for resource, n := range all.Extended {
		if n != 0 {
			if sum.Extended == nil {
				sum.Extended = map[string]int64{}
			}
			sum.Extended[resource] = n
		}
	}
	for _, p := range all.HostPorts {
		ip := p.IP
		if ip == "" {
			ip = "0.0.0.0"
		}
		sum.HostPorts = append(sum.HostPorts, fmt.Sprintf("%s/%s/%d", p.Protocol, ip, p.Port))
	}
	slices.Sort(sum.HostPorts)
	ledger := c.ledgers[name]
	if ledger == nil {
		ledger = &kubepb.Ledger{}
	}
	if !proto.Equal(ledger, sum) {
		c.wrong("ledger of node %s is {%v}, its pods ask for {%v}", name, ledger, sum)
	}
}

// checkCreated counts the copies of a new pod's set that are not on their way out.
func (c *checker) checkCreated(pod *corev1.Pod) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != api.ReplicaSet.Name {
		return
	}
	set := c.sets[owner.UID]
	if set == nil {
		c.wrong("pod %s/%s was created for a ReplicaSet that is not there", pod.Namespace, pod.Name)
		return
	}
	var n int64
	for _, p := range c.pods {
		if o := metav1.GetControllerOf(p); o != nil && o.UID == owner.UID && p.DeletionTimestamp == nil && !ended(p) {
			n++
		}
	}
	if n > wants(set) {
		c.wrong("pod %s/%s is copy %d of ReplicaSet %s, which wants %d", pod.Namespace, pod.Name, n, set.Name, wants(set))
	}
}

// checkRaised compares the sets of a Deployment, one of which was just raised, with
// what it allows.
func (c *checker) checkRaised(set *appsv1.ReplicaSet) {
	owner := metav1.GetControllerOf(set)
	if owner == nil {
		return
	}
	d := c.deploys[owner.UID]
	if d == nil {
		return // Of another owner, or orphaned by a deletion.
	}
	var sum int64
	for _, s := range c.sets {
		if o := metav1.GetControllerOf(s); o != nil && o.UID == owner.UID {
			sum += wants(s)
		}
	}
	if most := allowed(d); sum > most {
		c.wrong("the ReplicaSets of Deployment %s/%s want %d together, which is more than %d", d.Namespace, d.Name, sum, most)
	}
}

// allowed is the number of copies that a Deployment may have, surge included.
func allowed(d *appsv1.Deployment) int64 {
	want := int64(1)
	if d.Spec.Replicas != nil {
		want = int64(*d.Spec.Replicas)
	}
	r := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return want
	}
	surge := intstr.FromString("25%")
	if r != nil && r.MaxSurge != nil {
		surge = *r.MaxSurge
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(&surge, int(want), true)
	if err != nil {
		return math.MaxInt64
	}
	return want + int64(n)
}
