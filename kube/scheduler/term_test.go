package scheduler

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/scheduler/placement"
)

// desk is a term without goroutines and network: a test plays informers and binds.
type desk struct {
	*testing.T
	*term
	fake *clocktest.Fake
}

func newDesk(t *testing.T) *desk {
	fake := clocktest.New()
	s, err := New(Config{Client: objects.New(nil, "test"), Clock: fake, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	return &desk{T: t, term: newTerm(s, nil), fake: fake}
}

func node(name, cpu string, version int) *corev1.Node {
	n := &corev1.Node{}
	n.Name, n.ResourceVersion = name, fmt.Sprint(version)
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourcePods: resource.MustParse("110")}
	return n
}

func pod(name, cpu, on string, version int) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID, p.ResourceVersion = "ns", name, types.UID(name), fmt.Sprint(version)
	p.Spec.NodeName = on
	p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}}
	return p
}

// next lets the pod whose turn it is be decided: its bind, nil if there is none.
func (d *desk) next() *binding {
	d.Helper()
	d.wake(d.clock.Mono())
	w := d.queue.next(d.clock.Mono())
	if w == nil {
		return nil
	}
	d.place(w, d.clock.Mono())
	select {
	case b := <-d.binds:
		return b
	default:
		return nil
	}
}

func (d *desk) mustBind(node string) *binding {
	d.Helper()
	b := d.next()
	if b == nil || b.node != node {
		d.Fatalf("bind %+v, want one to %s", b, node)
	}
	return b
}

func (d *desk) where(name string) string {
	return d.snapshot.NodeOf(placement.Key{Namespace: "ns", Name: name})
}

func TestARefusedBindReadsThatNodeAnewAndTriesAgainAtOnce(t *testing.T) {
	d := newDesk(t)
	d.nodeChanged(nil, node("a", "4", 1))
	d.podChanged(nil, pod("gone", "1", "a", 2))
	d.podChanged(nil, pod("web", "2", "", 3))
	b := d.mustBind("a")
	if d.where("web") != "a" {
		t.Error("a pod that is being bound is not counted")
	}
	// Somebody was faster, and a pod that was there has gone: the informers do not know yet.
	d.bound(b, objects.ErrFull, &facts{
		pod: pod("web", "2", "", 3), node: &nodeFacts{node: node("a", "5", 9), pods: []*corev1.Pod{pod("faster", "3", "a", 8)}, revision: 10}})
	if d.where("web") != "" || d.where("gone") != "" || d.where("faster") != "a" {
		t.Errorf("web on %q, gone on %q, faster on %q", d.where("web"), d.where("gone"), d.where("faster"))
	}
	b = d.mustBind("a") // Five less three: it fits still, without any backoff.
	// What the informers tell late changes nothing back.
	d.nodeChanged(nil, node("a", "1", 7))
	d.podChanged(nil, pod("faster", "3", "", 5))
	if d.where("faster") != "a" || d.core.Refused(d.snapshot, b.pod.pod, "a") == 0 {
		t.Errorf("faster on %q", d.where("faster"))
	}
	// Neither does an older read that comes back later.
	d.learn(b.pod.pod.Key, "a", &facts{pod: pod("web", "2", "", 3), node: &nodeFacts{node: node("a", "1", 6), revision: 7}})
	if d.where("faster") != "a" || d.where("web") != "a" {
		t.Errorf("after an old read: faster on %q, web on %q", d.where("faster"), d.where("web"))
	}
	d.bound(b, nil, nil)
	d.podChanged(pod("web", "2", "", 3), pod("web", "2", "a", 11))
	if d.where("web") != "a" || len(d.assumed) != 0 || d.inFlight != 0 || len(d.queue.pods) != 0 {
		t.Errorf("web on %q, %d assumed, %d in flight, %d wait", d.where("web"), len(d.assumed), d.inFlight, len(d.queue.pods))
	}
}

func TestAPodThatIsRefusedAgainAndAgainWaits(t *testing.T) {
	d := newDesk(t)
	d.nodeChanged(nil, node("a", "4", 1))
	d.podChanged(nil, pod("web", "2", "", 2))
	for range refusalsMax {
		d.bound(d.mustBind("a"), objects.ErrConflict, &facts{pod: pod("web", "2", "", 2)})
	}
	if b := d.next(); b != nil {
		t.Errorf("tried again: %+v", b)
	}
	d.fake.Advance(backoffMin)
	d.mustBind("a")
}

func TestABindOfUnknownOutcomeIsSettledByTheInformer(t *testing.T) {
	d := newDesk(t)
	d.nodeChanged(nil, node("a", "4", 1))
	d.podChanged(nil, pod("web", "2", "", 2))
	d.podChanged(nil, pod("lost", "1", "", 3))
	web, lost := d.mustBind("a"), d.mustBind("a")
	d.podChanged(pod("web", "2", "", 2), pod("web", "2", "a", 5)) // It was done.
	d.bound(web, errors.New("connection lost"), nil)
	d.bound(lost, errors.New("connection lost"), nil)
	if d.where("web") != "a" || d.where("lost") != "" || d.next() != nil {
		t.Errorf("web on %q, lost on %q", d.where("web"), d.where("lost"))
	}
	d.fake.Advance(backoffMin)
	if b := d.mustBind("a"); b.pod.pod.Name != "lost" {
		t.Errorf("%s is tried again", b.pod.pod.Name)
	}
}

func TestAPodThatIsReplacedUnderItsNameIsAnotherPod(t *testing.T) {
	d := newDesk(t)
	d.nodeChanged(nil, node("a", "4", 1))
	d.podChanged(nil, pod("web", "2", "", 2))
	old := d.mustBind("a")
	second := pod("web", "3", "", 6)
	second.UID = "second"
	d.podChanged(pod("web", "2", "", 2), second)
	d.bound(old, objects.ErrNotFound, &facts{pod: second})
	if b := d.mustBind("a"); b.request.PodUid != "second" || b.request.PodResourceVersion != 6 {
		t.Errorf("bind %v", b.request)
	}
}

func TestAnEventWakesOnlyWhomItCouldHelp(t *testing.T) {
	d := newDesk(t)
	d.nodeChanged(nil, node("a", "4", 1))
	d.podChanged(nil, pod("full", "4", "a", 2))
	d.podChanged(nil, pod("small", "1", "", 3))
	d.podChanged(nil, pod("large", "5", "", 4))
	picky := pod("picky", "1", "", 5)
	picky.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	d.podChanged(nil, picky)
	for range 3 {
		if b := d.next(); b != nil {
			t.Fatalf("bind %+v", b)
		}
	}
	d.fake.Advance(time.Second)
	d.podChanged(pod("full", "4", "a", 2), nil)
	if b := d.mustBind("a"); b.pod.pod.Name != "small" || d.next() != nil {
		t.Errorf("woken: %s", b.pod.pod.Name)
	}
	if n := len(d.queue.pods); n != 2 {
		t.Errorf("%d wait", n)
	}
}

// TestAPodThatChangesWhileItIsBoundIsDecidedByWhatItHasBecome, should the bind fail: and
// not at all, if it is being deleted.
func TestAPodThatChangesWhileItIsBoundIsDecidedByWhatItHasBecome(t *testing.T) {
	for _, err := range []error{objects.ErrConflict, errors.New("connection lost")} {
		d := newDesk(t)
		d.nodeChanged(nil, node("a", "4", 1))
		d.podChanged(nil, pod("web", "1", "", 2))
		d.podChanged(nil, pod("going", "1", "", 3))
		web, going := d.mustBind("a"), d.mustBind("a")
		before := web.pod.pod
		labelled, ends := pod("web", "1", "", 4), pod("going", "1", "", 5)
		labelled.Labels = map[string]string{"app": "web"}
		now := metav1.Now()
		ends.DeletionTimestamp = &now
		d.podChanged(pod("web", "1", "", 2), labelled)
		d.podChanged(pod("going", "1", "", 3), ends)
		var told [2]*facts
		if errors.Is(err, objects.ErrConflict) {
			told = [2]*facts{{pod: labelled}, {pod: ends}}
		}
		d.bound(web, err, told[0])
		d.bound(going, err, told[1])
		d.fake.Advance(backoffMin)
		b := d.mustBind("a")
		if b.pod.object != labelled || b.request.PodResourceVersion != 4 || b.pod.pod == before {
			t.Errorf("%v: bind %v of %+v", err, b.request, b.pod.pod)
		}
		if next := d.next(); next != nil || len(d.queue.pods) != 0 {
			t.Errorf("%v: a pod that is being deleted waits for a node still: %v", err, next)
		}
	}
}

// TestANodeThatIsBeingDeletedIsNoneForAPod: each bind to it would be refused, and it has
// more room than the others.
func TestANodeThatIsBeingDeletedIsNoneForAPod(t *testing.T) {
	d := newDesk(t)
	leaves, now := node("a", "64", 1), metav1.Now()
	leaves.DeletionTimestamp = &now
	d.nodeChanged(nil, leaves)
	d.podChanged(nil, pod("web", "2", "", 2))
	if b := d.next(); b != nil {
		t.Errorf("bind %+v", b)
	}
	if said := d.journal.of(placement.Key{Namespace: "ns", Name: "web"}); len(said) != 1 || len(said[0].Reasons) != 1 || said[0].Reasons[0].Text != "node(s) were being deleted" {
		t.Errorf("it says %v", said)
	}
	d.fake.Advance(time.Minute)
	d.nodeChanged(nil, node("b", "4", 3))
	d.mustBind("b")
}

// TestANodeWithLessRoomThanItSeemsKeepsNoPodFromTheOthers: after a restore its ledger counts
// pods that are not recorded.
func TestANodeWithLessRoomThanItSeemsKeepsNoPodFromTheOthers(t *testing.T) {
	d := newDesk(t)
	machine := func(name, cpu string, version int) *corev1.Node {
		n := node(name, cpu, version)
		n.Status.Allocatable[corev1.ResourceMemory] = resource.MustParse("8Gi")
		return n
	}
	d.nodeChanged(nil, machine("large", "64", 1))
	d.podChanged(nil, pod("web", "2", "", 2))
	tryLargeTwice := func() {
		t.Helper()
		for range 2 {
			d.bound(d.mustBind("large"), objects.ErrFull, &facts{
				pod: pod("web", "2", "", 2), node: &nodeFacts{node: machine("large", "64", 1), revision: 9}})
			d.fake.Advance(time.Minute)
		}
	}
	tryLargeTwice()
	if b := d.next(); b != nil {
		t.Errorf("bind %+v", b)
	}
	d.fake.Advance(time.Minute)
	d.nodeChanged(nil, machine("small", "4", 3)) // It is tried on all again, the emptiest first.
	tryLargeTwice()
	d.mustBind("small")
}
