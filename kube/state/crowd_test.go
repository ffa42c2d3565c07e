package state

import (
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

func podEntry(name, node string, revision int64) *entry {
	return &entry{
		kind: api.Pod, key: api.Pod.Key("default", name), namespace: "default", name: name, revision: revision,
		stored: &mvccpb.KeyValue{Value: []byte("x")}, fields: selectable{node: node},
	}
}

func newTestWatcher(node string, hasNode bool) *watcher {
	return &watcher{pick: &pick{kind: api.Pod, node: node, hasNode: hasNode, labels: labels.Everything(), fields: everything}, wake: make(chan struct{}, 1)}
}

// A watcher that does not read is told that it expired, and another goes on.
func TestTheQueueOfAWatcherIsBounded(t *testing.T) {
	c := newCrowd()
	slow, quick := newTestWatcher("", false), newTestWatcher("", false)
	c.add(slow)
	c.add(quick)
	for i := range watchQueueMax + 1 {
		c.tell(&event{revision: int64(i), new: podEntry("p", "", int64(i))})
		if events, expired := quick.take(); expired || len(events) != 1 {
			t.Fatalf("the quick one got %d events, expired: %v", len(events), expired)
		}
	}
	if events, expired := slow.take(); !expired || len(events) != 0 {
		t.Errorf("the slow one has %d events, expired: %v", len(events), expired)
	}
}

func TestAnEventOfAPodIsForTheWatchersOfItsNodesOnly(t *testing.T) {
	c := newCrowd()
	a, b, unbound := newTestWatcher("a", true), newTestWatcher("b", true), newTestWatcher("", true)
	for _, w := range []*watcher{a, b, unbound} {
		c.add(w)
	}
	c.tell(&event{revision: 1, new: podEntry("p", "", 1)})
	c.tell(&event{revision: 2, old: podEntry("p", "", 1), new: podEntry("p", "a", 2)})
	c.tell(&event{revision: 3, old: podEntry("p", "a", 2), new: podEntry("p", "a", 3)})
	for name, want := range map[*watcher]int{a: 2, b: 0, unbound: 2} {
		if events, _ := name.take(); len(events) != want {
			t.Errorf("watcher of %q got %d events, want %d", name.pick.node, len(events), want)
		}
	}
}

func TestTheRingSaysWhatItHasForgotten(t *testing.T) {
	r := ring{floor: 10}
	for i := range int64(eventsKept + 5) {
		r.add(&event{revision: 11 + i, new: podEntry("p", "", 11+i)})
	}
	if _, ok := r.since(14); ok {
		t.Error("events after 14 are not all there")
	}
	if events, ok := r.since(15); !ok || len(events) != eventsKept || events[0].revision != 16 {
		t.Errorf("%d events after 15, %v", len(events), ok)
	}
}
