package controller_test

import (
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
	"github.com/holdfast-db/holdfast/kube/controller/rollout"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// replayed is the cluster as it was at a revision.
type replayed struct {
	*world
	revision    int64
	pods        map[string]*corev1.Pod
	sets        map[string]*appsv1.ReplicaSet
	deployments map[string]*appsv1.Deployment
	bounds      map[string]*bounds
	checked     int
}

// bounds are the widest that a Deployment had since it was last at rest.
type bounds struct{ ceiling, floor int }

// replay goes through the store's history from the first revision and checks every
// creation and deletion of a pod.
func (w *world) replay() {
	w.Helper()
	now, err := w.cluster.Store().Get(w.Context(), client.Get{Range: client.One("/none")})
	if err != nil {
		w.Fatal(err)
	}
	r := &replayed{
		world: w, pods: map[string]*corev1.Pod{}, sets: map[string]*appsv1.ReplicaSet{}, deployments: map[string]*appsv1.Deployment{}, bounds: map[string]*bounds{},
	}
	if _, err := w.cluster.Store().Put(w.Context(), client.Put{Key: "/registry/end"}); err != nil {
		w.Fatal(err)
	}
	watch := w.cluster.Store().Watch(w.Context(), client.Watch{Range: client.Prefix("/registry/"), Revision: 1})
	defer watch.Cancel()
	for report := range watch.Reports() {
		for _, e := range report.Events {
			if e.Kv.ModRevision > now.Header.Revision {
				w.Logf("%d creations and deletions of pods checked in %d revisions", r.checked, now.Header.Revision)
				if r.checked == 0 {
					w.Error("nothing was checked")
				}
				return
			}
			r.take(e)
		}
	}
	w.Fatal(watch.Err())
}

func decode[T api.Object](r *replayed, k *api.Kind, e *mvccpb.Event, into map[string]T) (key string, old, is T, ours bool) {
	r.Helper()
	key = string(e.Kv.Key)
	if _, _, ok := k.ParseKey(key); !ok {
		return key, old, is, false
	}
	old = into[key]
	delete(into, key)
	if e.Type != mvccpb.Event_DELETE {
		o, err := api.Decode(k, e.Kv.Value, e.Kv.ModRevision)
		if err != nil {
			r.Fatal(err)
		}
		is = o.(T)
		into[key] = is
	}
	return key, old, is, true
}

func (r *replayed) take(e *mvccpb.Event) {
	r.revision = e.Kv.ModRevision
	if _, _, d, ok := decode(r, api.Deployment, e, r.deployments); ok && d != nil {
		r.widen(d)
	}
	decode(r, api.ReplicaSet, e, r.sets)
	if _, old, pod, ok := decode(r, api.Pod, e, r.pods); ok {
		r.pod(old, pod)
	}
	for _, d := range r.deployments {
		r.narrow(d)
	}
}

func limits(d *appsv1.Deployment) (ceiling, floor int) {
	surge, unavailable, err := rollout.Bounds(d)
	if err != nil {
		return 0, 0
	}
	return int(*d.Spec.Replicas + surge), int(*d.Spec.Replicas - unavailable)
}

func (r *replayed) widen(d *appsv1.Deployment) {
	ceiling, floor := limits(d)
	b := r.bounds[string(d.UID)]
	if b == nil {
		r.bounds[string(d.UID)] = &bounds{ceiling, 0}
		return
	}
	b.ceiling, b.floor = max(b.ceiling, ceiling), min(b.floor, floor)
}

// narrow lets only the present bounds count, once everybody has seen them.
func (r *replayed) narrow(d *appsv1.Deployment) {
	ceiling, floor := limits(d)
	sizes, active, available := 0, 0, 0
	for _, set := range r.sets {
		if owner := metav1.GetControllerOf(set); owner == nil || owner.UID != d.UID {
			continue
		}
		if set.Status.ObservedGeneration < set.Generation {
			return
		}
		sizes += int(*set.Spec.Replicas)
		a, ok := r.count(set)
		active, available = active+a, available+ok
	}
	if d.Status.ObservedGeneration == d.Generation && sizes <= ceiling && active <= ceiling && available >= floor {
		*r.bounds[string(d.UID)] = bounds{ceiling, floor}
	}
}

func (r *replayed) count(set *appsv1.ReplicaSet) (active, available int) {
	for _, pod := range r.pods {
		if owner := metav1.GetControllerOf(pod); owner == nil || owner.UID != set.UID || !replica.Active(pod) {
			continue
		}
		active++
		if ok, _ := replica.Available(pod, set.Spec.MinReadySeconds, time.Now()); ok {
			available++
		}
	}
	return active, available
}

// pod checks a creation, and a deletion that was begun.
func (r *replayed) pod(old, pod *corev1.Pod) {
	either := pod
	if pod == nil {
		either = old
	}
	owner := metav1.GetControllerOf(either)
	if owner == nil {
		return
	}
	set := r.sets["/registry/replicasets/"+either.Namespace+"/"+owner.Name]
	if set == nil || set.UID != owner.UID {
		if old == nil {
			r.Errorf("revision %d: pod %s was made for a set that is not there", r.revision, either.Name)
		}
		return
	}
	active, _ := r.count(set)
	made := old == nil
	ended := !made && replica.Active(old) && (pod == nil || pod.DeletionTimestamp != nil)
	if made || ended {
		r.checked++
	}
	if made && active > int(*set.Spec.Replicas) {
		r.Errorf("revision %d: set %s has %d pods, wanted %d", r.revision, set.Name, active, *set.Spec.Replicas)
	}
	by := metav1.GetControllerOf(set)
	if by == nil {
		return
	}
	all, available := 0, 0
	for key, s := range r.sets {
		if o := metav1.GetControllerOf(s); strings.HasPrefix(key, "/registry/replicasets/"+either.Namespace+"/") && o != nil && o.UID == by.UID {
			a, ok := r.count(s)
			all, available = all+a, available+ok
		}
	}
	b := r.bounds[string(by.UID)]
	if made && all > b.ceiling {
		r.Errorf("revision %d: deployment %s has %d pods, at most %d", r.revision, by.Name, all, b.ceiling)
	}
	if ok, _ := replica.Ready(orNew(old)); ended && !ok.IsZero() && available < b.floor && r.deployments["/registry/deployments/"+either.Namespace+"/"+by.Name] != nil {
		r.Errorf("revision %d: pod %s goes and %d available ones are left of deployment %s, at least %d", r.revision, either.Name, available, by.Name, b.floor)
	}
}

func orNew(pod *corev1.Pod) *corev1.Pod {
	if pod == nil {
		return &corev1.Pod{}
	}
	return pod
}
