package rollout

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

// model is a store with one Deployment, whose two controllers see it late: the
// Deployment's sees each set as it was at any time since its own last write, the
// sets' see pods without delay, as their guards make them. Pods become ready, fail
// and vanish at random; a person changes template, size and pause.
type model struct {
	t      *testing.T
	random *rand.Rand
	calm   bool // Ready pods stay so: then availability is exact.
	now    time.Time
	d      *appsv1.Deployment
	sets   []*modelSet
	pods   []*corev1.Pod
	serial int
	broken string // An image whose pods never get ready.

	ceiling, floor int32 // The widest bounds since all was at rest.
}

type modelSet struct {
	is    *appsv1.ReplicaSet
	since []*appsv1.ReplicaSet // Versions since the Deployment's controller wrote it, oldest first.
}

// TestRandomRolloutsConvergeAndKeepTheirBounds checks each single creation and
// deletion.
func TestRandomRolloutsConvergeAndKeepTheirBounds(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range uint64(60) {
		m := newModel(t, rand.New(rand.NewPCG(seed, round)))
		m.run()
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
}

func newModel(t *testing.T, random *rand.Rand) *model {
	d := newDeployment(1+random.Int32N(10), "image-0")
	surge, unavailable := random.IntN(5), random.IntN(5)
	d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{
		MaxSurge: bound(strconv.Itoa(surge*15) + "%"), MaxUnavailable: bound(strconv.Itoa(unavailable)),
	}
	d.Spec.MinReadySeconds = random.Int32N(2) * 3
	if random.IntN(5) == 0 {
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	}
	return &model{t: t, random: random, calm: random.IntN(2) == 0, now: now, d: d}
}

func (m *model) run() {
	m.widen()
	for range 250 {
		m.now = m.now.Add(time.Duration(m.random.IntN(1500)) * time.Millisecond)
		switch n := m.random.IntN(100); {
		case n < 3:
			m.user()
		case n < 40:
			m.rollout(false)
		case n < 75 && len(m.sets) > 0:
			m.replicas(m.sets[m.random.IntN(len(m.sets))])
		default:
			m.nodes(false)
		}
	}
	m.d.Spec.Paused, m.broken = false, ""
	for range 120 {
		m.now = m.now.Add(2 * time.Second)
		m.nodes(true)
		m.rollout(true)
		for _, set := range m.sets {
			m.replicas(set)
		}
	}
	m.rested()
}

// rested checks that everything is as the Deployment says.
func (m *model) rested() {
	right := 0
	for _, pod := range m.pods {
		if replica.Active(pod) && pod.Spec.Containers[0].Image == m.d.Spec.Template.Spec.Containers[0].Image {
			right++
		}
	}
	p, err := Make(Facts{Deployment: m.d, Sets: m.view(true), Now: m.now})
	if err != nil || p.Create != nil || len(p.Sizes)+len(p.Update)+len(p.Delete) > 0 || right != int(*m.d.Spec.Replicas) || len(m.active()) != right {
		m.t.Errorf("at rest: %d pods, %d right, wanted %d, %v, plan\n%s", len(m.pods), right, *m.d.Spec.Replicas, err, text(p))
	}
}

func (m *model) user() {
	switch m.random.IntN(4) {
	case 0:
		*m.d.Spec.Replicas = m.random.Int32N(12)
	case 1:
		m.d.Spec.Paused = !m.d.Spec.Paused
	default:
		image := "image-" + strconv.Itoa(m.random.IntN(4))
		m.d.Spec.Template = template(image)
		if m.random.IntN(3) == 0 {
			m.broken = image
		}
	}
	m.d.Generation++
	m.widen()
}

// widen lets what was planned under the bounds before still happen.
func (m *model) widen() {
	surge, unavailable := int32(0), wanted(m.d.Spec.Replicas)
	if !recreates(m.d) {
		surge, unavailable, _ = Bounds(m.d)
	}
	m.ceiling = max(m.ceiling, *m.d.Spec.Replicas+surge)
	m.floor = min(m.floor, *m.d.Spec.Replicas-unavailable)
	settledAll, sum := true, int32(0)
	for _, set := range m.sets {
		sum += *set.is.Spec.Replicas
		n, _ := strconv.Atoi(set.is.Annotations[DesiredReplicas])
		settledAll = settledAll && settled(set.is) && set.is.Status.Replicas == *set.is.Spec.Replicas && (*set.is.Spec.Replicas == 0 || int32(n) == *m.d.Spec.Replicas)
	}
	if settledAll && sum <= *m.d.Spec.Replicas+surge {
		m.ceiling, m.floor = *m.d.Spec.Replicas+surge, *m.d.Spec.Replicas-unavailable
	}
}

// view is what the Deployment's controller sees.
func (m *model) view(current bool) []*appsv1.ReplicaSet {
	var sets []*appsv1.ReplicaSet
	for _, set := range m.sets {
		i := 0
		if !current {
			i = m.random.IntN(len(set.since))
		} else {
			i = len(set.since) - 1
		}
		set.since = set.since[i:] // Never back in time.
		sets = append(sets, set.since[0])
	}
	return sets
}

// rollout carries out one plan of the Deployment's controller.
func (m *model) rollout(current bool) {
	m.widen()
	view := m.view(current)
	p, err := Make(Facts{Deployment: m.d, Sets: view, Now: m.now})
	if err != nil {
		m.t.Fatal(err)
	}
	// What counts is what could be known: where fewer were reported than there must
	// be, pods of a set that seemed broken may go.
	seen := int32(0)
	for _, set := range view {
		seen += min(set.Status.AvailableReplicas, wanted(set.Spec.Replicas))
	}
	m.floor = min(m.floor, seen)
	if p.Create != nil {
		m.serial++
		p.Create.UID, p.Create.Generation, p.Create.ResourceVersion = types.UID(p.Create.Name), 1, strconv.Itoa(m.serial)
		p.Create.CreationTimestamp = metav1.NewTime(m.now)
		m.sets = append(m.sets, &modelSet{p.Create, []*appsv1.ReplicaSet{p.Create}})
	}
	for _, set := range p.Update {
		m.write(set, set.ResourceVersion)
	}
	for _, z := range p.Sizes {
		set, err := Sized(m.d, z)
		if err != nil {
			m.t.Fatal(err)
		}
		if wanted(z.Set.Spec.Replicas) != z.Replicas {
			set.Generation++
		}
		if !m.write(set, z.Set.ResourceVersion) {
			break
		}
	}
	for _, gone := range p.Delete {
		m.sets = slices.DeleteFunc(m.sets, func(set *modelSet) bool { return set.is.Name == gone.Name })
	}
	m.d.Status = p.Status
}

// write fails if the set was changed since.
func (m *model) write(next *appsv1.ReplicaSet, version string) bool {
	for _, set := range m.sets {
		if set.is.Name != next.Name {
			continue
		}
		if set.is.ResourceVersion != version {
			return false
		}
		m.put(set, next)
		set.since = set.since[len(set.since)-1:] // A controller waits for its own writes.
		return true
	}
	return false
}

func (m *model) put(set *modelSet, next *appsv1.ReplicaSet) {
	m.serial++
	next.ResourceVersion = strconv.Itoa(m.serial)
	set.is = next
	set.since = append(set.since, next)
}

// replicas carries out one plan of a set's controller, perhaps only in part.
func (m *model) replicas(set *modelSet) {
	m.widen()
	p, err := replica.Make(replica.Facts{Set: set.is, Pods: m.pods, Now: m.now})
	if err != nil {
		m.t.Fatal(err)
	}
	if m.random.IntN(3) == 0 {
		p.Create = m.random.IntN(p.Create + 1)
	}
	taken := map[string]bool{}
	for _, pod := range m.pods {
		taken[pod.Name] = true
	}
	for n := range p.Create {
		pod, _ := replica.New(set.is, n, func(name string) bool { return taken[name] })
		taken[pod.Name] = true
		pod.UID, pod.Status.Phase = types.UID(pod.Name), corev1.PodPending
		m.pods = append(m.pods, pod)
		if active := len(m.active()); active > int(m.ceiling) {
			m.t.Errorf("%d active pods, at most %d", active, m.ceiling)
		}
		m.notBoth()
	}
	for _, pod := range p.Delete {
		ok, _ := replica.Available(pod, m.d.Spec.MinReadySeconds, m.now)
		stamp := metav1.NewTime(m.now)
		pod.DeletionTimestamp = &stamp
		if left := m.available(); ok && m.calm && left < int(m.floor) {
			m.t.Errorf("an available pod was deleted and %d are left, at least %d", left, m.floor)
		}
	}
	if p, err = replica.Make(replica.Facts{Set: set.is, Pods: m.pods, Now: m.now}); err != nil { // The status tells what was done.
		m.t.Fatal(err)
	}
	if replica.Changed(set.is.Status, p.Status) {
		next := set.is.DeepCopy()
		next.Status = p.Status
		m.put(set, next)
	}
}

// notBoth: a Deployment that recreates never runs two templates.
func (m *model) notBoth() {
	if !recreates(m.d) {
		return
	}
	images := map[string]bool{}
	for _, pod := range m.pods {
		if !replica.Finished(pod) {
			images[pod.Spec.Containers[0].Image] = true
		}
	}
	if len(images) > 1 {
		m.t.Errorf("pods of %s at once", fmt.Sprint(images))
	}
}

func (m *model) active() []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(m.pods), func(pod *corev1.Pod) bool { return !replica.Active(pod) })
}

func (m *model) available() (n int) {
	for _, pod := range m.active() {
		if ok, _ := replica.Available(pod, m.d.Spec.MinReadySeconds, m.now); ok {
			n++
		}
	}
	return n
}

// nodes start, stop and fail pods.
func (m *model) nodes(all bool) {
	for _, pod := range m.pods {
		broken := m.broken == pod.Spec.Containers[0].Image
		switch n := m.random.IntN(10); {
		case !replica.Active(pod):
		case pod.Status.Phase == corev1.PodPending && (all || n < 6):
			pod.Status.Phase, pod.Spec.NodeName = corev1.PodRunning, "n1"
		case pod.Status.Phase == corev1.PodRunning && (all || n < 6):
			if _, ready := replica.Ready(pod); !ready {
				replica.SetReady(&pod.Status, !broken, "", m.now)
			}
		case n == 8 && !m.calm && !all:
			pod.Status.Phase = corev1.PodFailed
		case n == 9 && !m.calm && !all:
			replica.SetReady(&pod.Status, false, "", m.now)
		}
	}
	m.pods = slices.DeleteFunc(m.pods, func(pod *corev1.Pod) bool {
		return pod.DeletionTimestamp != nil && (all || m.random.IntN(2) == 0)
	})
}
