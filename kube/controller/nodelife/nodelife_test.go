package nodelife

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// story is a cluster that a script changes; what is planned is done.
type story struct {
	t       *testing.T
	now     time.Time
	nodes   []*corev1.Node
	dead    map[string]bool
	seen    map[string]time.Time // Since when who leads sees each dead node silent.
	pods    []*corev1.Pod
	brake   Brake
	trouble time.Time
}

func (s *story) run(c golden.Command) string {
	switch c.Name {
	case "node":
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.Args[0].Key, CreationTimestamp: metav1.NewTime(s.now)}}
		if !c.Has("new") {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		}
		s.dead[n.Name] = c.Has("new")
		s.nodes = append(s.nodes, n)
	case "pod":
		s.pods = append(s.pods, s.pod(c))
	case "dies":
		for _, a := range c.Args {
			s.dead[a.Key] = true
		}
	case "beats":
		for _, a := range c.Args {
			s.dead[a.Key] = false
			n := s.node(a.Key)
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
			if a.Value != "" {
				n.Status.Conditions[0].Status = corev1.ConditionStatus(a.Value)
			}
		}
	case "taint":
		n, at := s.node(c.Args[0].Key), metav1.NewTime(s.now)
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: c.Arg("key"), Effect: corev1.TaintEffectNoExecute, TimeAdded: &at})
	case "trouble":
		s.trouble = s.now
	case "follows": // Another leads, whose clock is ahead, or behind.
		d, err := time.ParseDuration(c.Arg("ahead"))
		if err != nil {
			s.t.Fatal(err)
		}
		s.now, s.seen, s.brake = s.now.Add(d), map[string]time.Time{}, Brake{}
	case "after":
		d, err := time.ParseDuration(c.Args[0].Key)
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
	default:
		s.t.Fatalf("unknown command %q", c.Name)
	}
	return s.plan()
}

func (s *story) pod(c golden.Command) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: c.Args[0].Key}, Spec: corev1.PodSpec{NodeName: c.Arg("on")}}
	pod.Status.Phase = corev1.PodRunning
	replica.SetReady(&pod.Status, true, "", s.now)
	if c.Has("singleton") {
		pod.Annotations = map[string]string{replica.Singleton: "true"}
	}
	if c.Has("terminating") {
		at := metav1.NewTime(s.now)
		pod.DeletionTimestamp = &at
	}
	if text := c.Arg("tolerates"); text != "" {
		key, seconds, ends := strings.Cut(text, ":")
		o := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists}
		if ends {
			n, err := strconv.ParseInt(seconds, 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			o.TolerationSeconds = &n
		}
		pod.Spec.Tolerations = []corev1.Toleration{o}
	}
	return pod
}

func (s *story) node(name string) *corev1.Node {
	return s.nodes[slices.IndexFunc(s.nodes, func(n *corev1.Node) bool { return n.Name == name })]
}

// plan makes a plan, and does what it says.
func (s *story) plan() string {
	f := Facts{Pods: s.pods, Brake: s.brake, Trouble: s.trouble, Now: s.now}
	for _, n := range s.nodes {
		node := Node{Object: n, Alive: !s.dead[n.Name]}
		if node.Alive {
			delete(s.seen, n.Name)
		} else if since, ok := s.seen[n.Name]; ok {
			node.Silent = s.now.Sub(since)
		} else {
			s.seen[n.Name] = s.now
		}
		f.Nodes = append(f.Nodes, node)
	}
	p := Make(f)
	s.brake = p.Brake
	var b strings.Builder
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note %s %s: %s\n", n.Node, n.Reason, n.Message)
	}
	for _, next := range p.Nodes {
		i := slices.IndexFunc(s.nodes, func(n *corev1.Node) bool { return n.Name == next.Name })
		s.nodes[i] = next
		fmt.Fprintf(&b, "node %s ready=%s taints=", next.Name, api.NodeReady(next).Status)
		for _, t := range next.Spec.Taints {
			fmt.Fprintf(&b, "%s@%v ", t.Key, t.TimeAdded.Sub(start))
		}
		b.WriteString("\n")
	}
	for _, pod := range p.Unready {
		replica.SetReady(&pod.Status, false, "NodeLost", s.now)
		fmt.Fprintf(&b, "unready %s\n", pod.Name)
	}
	for _, e := range p.Evict {
		word := "evict"
		if e.Force {
			word = "remove"
		}
		fmt.Fprintf(&b, "%s %s: %s\n", word, e.Pod.Name, e.Why)
		at := metav1.NewTime(s.now)
		e.Pod.DeletionTimestamp = &at
		if e.Force {
			s.pods = slices.DeleteFunc(s.pods, func(pod *corev1.Pod) bool { return pod == e.Pod })
		}
	}
	if p.Again > 0 {
		fmt.Fprintf(&b, "again in %v\n", p.Again)
	}
	return b.String()
}

func TestStories(t *testing.T) {
	for _, name := range []string{"death", "brake", "singleton", "clock"} {
		t.Run(name, func(t *testing.T) {
			s := &story{t: t, now: start, dead: map[string]bool{}, seen: map[string]time.Time{}}
			golden.Script(t, "testdata/"+name, s.run)
		})
	}
}

func TestWhoBearsASilentNodeForLongerThanATimeHoldsIsNotEvicted(t *testing.T) {
	at := metav1.NewTime(start.Add(-time.Hour))
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", CreationTimestamp: at}}
	n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: &at}}
	for _, seconds := range []int64{7200, 9_999_999_999, 1 << 62} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{NodeName: "n1"}}
		pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists, TolerationSeconds: &seconds}}
		if p := Make(Facts{Nodes: []Node{{Object: n}}, Pods: []*corev1.Pod{pod}, Now: start}); len(p.Evict) > 0 {
			t.Errorf("it bears it for %d seconds, and is evicted after an hour", seconds)
		}
	}
}
