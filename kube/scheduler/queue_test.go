package scheduler

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/kube/scheduler/placement"
)

// TestQueue runs testdata/queue.txt.
//
//	add pod=a priority=3 | next | park pod=a by=NodePorts,... | retry pod=a | remove pod=a
//	wake by=NodePorts helps=a,b besides=NodeAffinity | advance by=1s
func TestQueue(t *testing.T) {
	s := &queueScenario{t: t, q: newQueue(), out: map[string]*waiting{}}
	golden.Script(t, "testdata/queue.txt", s.run)
}

type queueScenario struct {
	t   *testing.T
	q   *queue
	now time.Duration
	out map[string]*waiting
}

var setByName = map[string]placement.Set{
	"": 0, "NodePorts": placement.Plugins(placement.NodePorts), "NodeResourcesFit": placement.Plugins(placement.NodeResourcesFit),
	"NodeAffinity": placement.Plugins(placement.NodeAffinity), "InterPodAffinity": placement.Plugins(placement.InterPodAffinity),
}

func (s *queueScenario) set(names string) (sum placement.Set) {
	for name := range strings.SplitSeq(names, ",") {
		set, ok := setByName[name]
		if !ok {
			s.t.Fatalf("no plugin %q", name)
		}
		sum |= set
	}
	return sum
}

func (s *queueScenario) run(c golden.Command) string {
	q := s.q
	switch c.Name {
	case "add":
		o := &corev1.Pod{}
		o.Name = c.Arg("pod")
		if n, err := strconv.ParseInt(c.Arg("priority"), 10, 32); err == nil {
			priority := int32(n)
			o.Spec.Priority = &priority
		}
		p, err := placement.NewPod(o)
		if err != nil {
			s.t.Fatal(err)
		}
		q.add(&waiting{pod: p, object: o})
		return s.state()
	case "next":
		w := q.next(s.now)
		if w == nil {
			return fmt.Sprintf("none, due in %v\n%s", q.due(s.now), s.state())
		}
		s.out[w.pod.Name] = w
		return w.pod.Name
	case "park":
		q.park(s.out[c.Arg("pod")], s.now, s.set(c.Arg("by")))
		return s.state()
	case "retry":
		q.retry(s.out[c.Arg("pod")], s.now)
		return s.state()
	case "remove":
		q.remove(q.pods[placement.Key{Name: c.Arg("pod")}])
		return s.state()
	case "advance":
		d, err := time.ParseDuration(c.Arg("by"))
		if err != nil {
			s.t.Fatal(err)
		}
		s.now += d
		q.tick(s.now)
		return s.state()
	case "wake":
		var helps func(*waiting, placement.Set) (bool, placement.Set)
		if c.Has("helps") {
			names := strings.Split(c.Arg("helps"), ",")
			helps = func(w *waiting, _ placement.Set) (bool, placement.Set) {
				return slices.Contains(names, w.pod.Name), s.set(c.Arg("besides"))
			}
		}
		q.wake(s.now, s.set(c.Arg("by")), helps)
		return s.state()
	}
	s.t.Fatalf("line %d: no command %q", c.Line, c.Name)
	return ""
}

// state lists the three, and fails where the queue contradicts itself.
func (s *queueScenario) state() string {
	q := s.q
	seen := 0
	list := func(h *waitingHeap, at func(*waiting) string) string {
		ordered := slices.Clone(h.pods)
		slices.SortFunc(ordered, func(a, b *waiting) int {
			if h.before(a, b) {
				return -1
			}
			return 1
		})
		var names []string
		for _, w := range ordered {
			seen++
			if q.pods[w.pod.Key] != w || w.in != h || h.pods[w.index] != w {
				s.t.Errorf("%s is lost", w.pod.Name)
			}
			names = append(names, w.pod.Name+at(w))
		}
		return strings.Join(names, " ")
	}
	text := "active: " + list(&q.active, func(*waiting) string { return "" })
	text += "\nbackoff: " + list(&q.backoff, func(w *waiting) string { return fmt.Sprint(" until ", w.ready) })
	var parked []string
	for refused, set := range q.parked {
		for w := range set {
			seen++
			if q.pods[w.pod.Key] != w || w.refused != refused || w.in != nil {
				s.t.Errorf("%s is lost", w.pod.Name)
			}
			parked = append(parked, fmt.Sprintf("%s by %s", w.pod.Name, refused))
		}
	}
	slices.Sort(parked)
	if seen != len(q.pods) {
		s.t.Errorf("%d pods in the queue, %d known", seen, len(q.pods))
	}
	text += "\nparked: " + strings.Join(parked, "; ")
	return strings.TrimSuffix(strings.ReplaceAll(text, ": \n", ":\n"), " ")
}
