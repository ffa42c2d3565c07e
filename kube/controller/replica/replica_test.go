package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/golden"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// newSet makes the set of a scenario: web, with selector app=web.
func newSet(replicas, minReady int32) *appsv1.ReplicaSet {
	labels := map[string]string{"app": "web"}
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "set", Generation: 4, ResourceVersion: "100"},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &replicas, MinReadySeconds: minReady, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}},
		},
	}
}

func number(t *testing.T, text string) int32 {
	t.Helper()
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

func span(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// readPod reads a line such as: pod a node=n1 ready=60s restarts=2.
func readPod(t *testing.T, set *appsv1.ReplicaSet, line string) (pod *corev1.Pod, gone bool) {
	t.Helper()
	words := strings.Fields(line)
	pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: words[1], UID: types.UID(words[1]), Labels: map[string]string{"app": "web"}, CreationTimestamp: metav1.NewTime(now.Add(-time.Hour)),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))},
	}}
	pod.Status.Phase = corev1.PodPending
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "node":
			pod.Spec.NodeName, pod.Status.Phase = value, corev1.PodRunning
		case "ready":
			SetReady(&pod.Status, true, "", now.Add(-span(t, value)))
		case "phase":
			pod.Status.Phase = corev1.PodPhase(value)
		case "age":
			pod.CreationTimestamp = metav1.NewTime(now.Add(-span(t, value)))
		case "restarts":
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: number(t, value)}}
		case "cost":
			pod.Annotations = map[string]string{corev1.PodDeletionCost: value}
		case "terminating":
			stamp := metav1.NewTime(now)
			pod.DeletionTimestamp = &stamp
		case "app":
			pod.Labels["app"] = value
		case "orphan":
			pod.OwnerReferences = nil
		case "foreign":
			pod.OwnerReferences[0].UID = "other"
		case "gone":
			gone = true
		default:
			t.Fatalf("%q: unknown word %q", line, key)
		}
	}
	return pod, gone
}

func names(pods []*corev1.Pod) string {
	var n []string
	for _, p := range pods {
		n = append(n, p.Name)
	}
	return strings.Join(n, " ")
}

func TestPlans(t *testing.T) {
	golden.Script(t, "testdata/plans", func(c golden.Command) string {
		set := newSet(number(t, c.Arg("replicas")), number(t, c.Arg("minready")))
		if c.Has("singleton") {
			set.Spec.Template.Annotations = map[string]string{Singleton: "true"}
		}
		if c.Has("deleting") {
			stamp := metav1.NewTime(now)
			set.DeletionTimestamp = &stamp
		}
		f := Facts{Set: set, Gone: map[types.UID]bool{}, Crowd: map[string]int{}, Now: now, Failure: c.Arg("failure")}
		for line := range strings.Lines(c.Input) {
			pod, gone := readPod(t, set, line)
			f.Gone[pod.UID] = gone
			if Active(pod) {
				f.Crowd[pod.Spec.NodeName]++
			}
			f.Pods = append(f.Pods, pod)
		}
		p, err := Make(f)
		if err != nil {
			return err.Error()
		}
		return text(p)
	})
}

func text(p Plan) string {
	var b strings.Builder
	for _, part := range []struct {
		word string
		pods []*corev1.Pod
	}{{"adopt", p.Adopt}, {"release", p.Release}, {"delete", p.Delete}} {
		if len(part.pods) > 0 {
			fmt.Fprintf(&b, "%s %s\n", part.word, names(part.pods))
		}
	}
	if p.Create > 0 {
		fmt.Fprintf(&b, "create %d in batches of %v\n", p.Create, Batches(p.Create))
	}
	s := p.Status
	fmt.Fprintf(&b, "status %d replicas, %d labelled, %d ready, %d available, %d terminating, generation %d\n",
		s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas, *s.TerminatingReplicas, s.ObservedGeneration)
	for _, c := range s.Conditions {
		fmt.Fprintf(&b, "condition %s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %v\n", p.Again)
	}
	return b.String()
}

func TestASelectorThatIsNoneIsAnError(t *testing.T) {
	set := newSet(1, 0)
	set.Spec.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}
	if _, err := Make(Facts{Set: set, Now: now}); err == nil {
		t.Error("no error")
	}
}

func free(string) bool { return false }

func TestTwoWhoSeeTheSameSetChooseTheSameNames(t *testing.T) {
	set := newSet(3, 0)
	one, _ := New(set, 0, free)
	other, _ := New(set, 0, free)
	if one.Name != other.Name {
		t.Errorf("%s and %s", one.Name, other.Name)
	}
	seen := map[string]bool{}
	for n := range 500 {
		pod, _ := New(set, n, func(name string) bool { return seen[name] })
		if seen[pod.Name] {
			t.Fatalf("%s twice", pod.Name)
		}
		seen[pod.Name] = true
	}
	set.ResourceVersion = "101"
	if later, _ := New(set, 0, free); later.Name == one.Name {
		t.Errorf("%s after a change of the set too", one.Name)
	}
}

// TestAPodOfWhichNobodyHeardIsMadeUnderItsNameAgain: of three that were made the answer to
// the second was lost, and the list does not show it yet.
func TestAPodOfWhichNobodyHeardIsMadeUnderItsNameAgain(t *testing.T) {
	set := newSet(3, 0)
	seen := map[string]bool{}
	var lost *corev1.Pod
	for n, next := 0, 0; n < 3; n++ {
		pod, after := New(set, next, free)
		if next = after; n == 1 {
			lost = pod
		} else {
			seen[pod.Name] = true
		}
	}
	if again, _ := New(set, 0, func(name string) bool { return seen[name] }); again.Name != lost.Name {
		t.Errorf("%s is made, and %s may be there", again.Name, lost.Name)
	}
}

func TestASizeThatNobodyMeantIsMadeInBatchesThatFitAMemory(t *testing.T) {
	sum := 0
	for _, size := range Batches(100_000) {
		if sum += size; size > 1000 {
			t.Fatalf("%d pods at a time", size)
		}
	}
	if sum != 100_000 {
		t.Errorf("%d pods in all", sum)
	}
}

// TestRandomChangesConvergeAndKeepTheInvariants lets pods fail, become ready and
// vanish at random while a set follows its plans through a list that lags.
func TestRandomChangesConvergeAndKeepTheInvariants(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range uint64(200) {
		runModel(t, rand.New(rand.NewPCG(seed, round)))
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
}

type model struct {
	t      *testing.T
	random *rand.Rand
	set    *appsv1.ReplicaSet
	pods   []*corev1.Pod
	made   int
	now    time.Time
}

func runModel(t *testing.T, random *rand.Rand) {
	m := &model{t: t, random: random, set: newSet(random.Int32N(8), random.Int32N(2)*5), now: now}
	if random.IntN(4) == 0 {
		m.set.Spec.Template.Annotations = map[string]string{Singleton: "true"}
		*m.set.Spec.Replicas = 1
	}
	for range 60 {
		m.disturb()
		m.step()
	}
	for range 20 {
		m.settle()
		m.step()
	}
	p, err := Make(Facts{Set: m.set, Pods: m.pods, Now: m.now})
	if err != nil || p.Create+len(p.Delete)+len(p.Adopt)+len(p.Release) > 0 || int(p.Status.AvailableReplicas) != want(m.set) {
		t.Errorf("at rest: %v, plan %swants %d", err, text(p), want(m.set))
	}
}

// step carries out one plan and checks what it did.
func (m *model) step() {
	p, err := Make(Facts{Set: m.set, Pods: m.pods, Now: m.now})
	if err != nil {
		m.t.Fatal(err)
	}
	before := m.count()
	if p.Create > 0 && len(p.Delete) > 0 {
		m.t.Errorf("creates and deletes at once:\n%s", text(p))
	}
	for range p.Create {
		pod, _ := New(m.set, m.made, free)
		pod.UID = types.UID(pod.Name)
		pod.CreationTimestamp, pod.Status.Phase = metav1.NewTime(m.now), corev1.PodPending
		m.made++
		m.pods = append(m.pods, pod)
	}
	worst := 0 // An available pod goes only when no other is left.
	for _, pod := range p.Delete {
		if a, _ := Available(pod, m.set.Spec.MinReadySeconds, m.now); a && pod.Spec.NodeName != "" {
			worst++
		}
		stamp := metav1.NewTime(m.now)
		pod.DeletionTimestamp = &stamp
	}
	if worst > 0 && worst != len(p.Delete) {
		for _, pod := range m.pods {
			if a, _ := Available(pod, m.set.Spec.MinReadySeconds, m.now); Active(pod) && pod.Status.Phase == corev1.PodPending && !a {
				m.t.Errorf("%d available pods go while %s is left", worst, pod.Name)
			}
		}
	}
	if after := m.count(); after > max(before, want(m.set)) {
		m.t.Errorf("%d active pods after %d, wanted %d", after, before, want(m.set))
	}
	if IsSingleton(m.set.Spec.Template.Annotations) && p.Create > 0 && before+m.leaving() > 0 {
		m.t.Errorf("a second copy of a singleton:\n%s", text(p))
	}
}

func (m *model) count() (n int) {
	for _, pod := range m.pods {
		if Active(pod) {
			n++
		}
	}
	return n
}

func (m *model) leaving() (n int) {
	for _, pod := range m.pods {
		if pod.DeletionTimestamp != nil && !Finished(pod) {
			n++
		}
	}
	return n
}

func (m *model) disturb() {
	m.now = m.now.Add(time.Duration(m.random.IntN(3000)) * time.Millisecond)
	if m.random.IntN(6) == 0 && !IsSingleton(m.set.Spec.Template.Annotations) {
		*m.set.Spec.Replicas = m.random.Int32N(8)
	}
	for _, pod := range m.pods {
		switch m.random.IntN(8) {
		case 0:
			pod.Status.Phase = corev1.PodFailed
		case 1, 2:
			pod.Spec.NodeName, pod.Status.Phase = "n"+strconv.Itoa(m.random.IntN(3)), corev1.PodRunning
			SetReady(&pod.Status, m.random.IntN(3) > 0, "", m.now)
		}
	}
	m.remove(m.random.IntN(3) == 0)
}

func (m *model) settle() {
	m.now = m.now.Add(10 * time.Second)
	for _, pod := range m.pods {
		if Active(pod) {
			pod.Spec.NodeName, pod.Status.Phase = "n1", corev1.PodRunning
			SetReady(&pod.Status, true, "", m.now)
		}
	}
	m.remove(true)
}

// remove lets the node finish what is on its way out.
func (m *model) remove(all bool) {
	m.pods = slices.DeleteFunc(m.pods, func(pod *corev1.Pod) bool {
		return pod.DeletionTimestamp != nil && (all || m.random.IntN(2) == 0)
	})
}

func TestASetWhosePodsFailAtOnceMakesThemLessAndLessOften(t *testing.T) {
	set := newSet(1, 0)
	var pods []*corev1.Pod
	made := 0
	for at := now; at.Before(now.Add(10 * time.Minute)); {
		p, err := Make(Facts{Set: set, Pods: pods, Now: at})
		if err != nil {
			t.Fatal(err)
		}
		for range p.Create {
			made++
			pod, _ := New(set, made, func(string) bool { return false })
			pod.UID, pod.CreationTimestamp = types.UID(pod.Name), metav1.NewTime(at.Truncate(time.Second))
			pod.Status.Phase = corev1.PodFailed
			pods = append(pods, pod)
		}
		if p.Create == 0 && p.Again <= 0 {
			t.Fatalf("after %d pods nobody looks again", made)
		}
		at = at.Add(max(p.Again, time.Millisecond))
	}
	if made < 10 || made > 25 {
		t.Errorf("%d pods in ten minutes", made)
	}
	// What ran for long and ends is made anew at once.
	for _, pod := range pods {
		pod.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour))
	}
	if p, err := Make(Facts{Set: set, Pods: pods, Now: now}); err != nil || p.Create != 1 {
		t.Errorf("%d are made, %v", p.Create, err)
	}
}
