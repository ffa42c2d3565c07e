package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/scheduler/placement"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// reporter tells people what becomes of their pods: by a condition of the pod, and by
// events. Nobody waits for it.
type reporter struct {
	client *objects.Client
	clock  clock.Clock
	log    hclog.Logger
	pod    func(namespace, name string) (*corev1.Pod, bool) // As it is now.

	conditions chan struct{} // Holds one: conditions are to be written.
	events     chan struct{} // Likewise.

	mu struct {
		sync.Mutex
		messages map[placement.Key]string // That conditions shall have.
		order    []placement.Key          // Of messages. May hold some that are in it no more.
		events   []event
		dropped  int // Events since the last that was written.
	}
	known map[eventKey]*knownEvent // Owned by writeEvents.
}

func newReporter(s *Scheduler, pod func(namespace, name string) (*corev1.Pod, bool)) *reporter {
	r := &reporter{
		client: s.client, clock: s.clock, log: s.log, pod: pod,
		conditions: make(chan struct{}, 1), events: make(chan struct{}, 1), known: map[eventKey]*knownEvent{},
	}
	r.mu.messages = map[placement.Key]string{}
	return r
}

// unschedulable has it said that a pod found no node.
func (r *reporter) unschedulable(o *corev1.Pod, message string) {
	r.event(event{pod: o, kind: corev1.EventTypeWarning, reason: "FailedScheduling", message: message})
	k := keyOf(o)
	r.mu.Lock()
	defer r.mu.Unlock()
	if saysAlready(o, message) {
		delete(r.mu.messages, k)
		return
	}
	if _, there := r.mu.messages[k]; !there {
		r.mu.order = append(r.mu.order, k)
	}
	r.mu.messages[k] = message
	rouse(r.conditions)
}

// scheduled has it said that a pod has got a node. Its condition is written by Bind.
func (r *reporter) scheduled(o *corev1.Pod, node string) {
	r.forget(keyOf(o))
	r.event(event{
		pod: o, kind: corev1.EventTypeNormal, reason: "Scheduled", message: "Successfully assigned " + keyOf(o).String() + " to " + node,
	})
}

// forget drops what should be said about a pod that has a node or is gone.
func (r *reporter) forget(k placement.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.messages, k)
}

func rouse(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}

func conditionOf(o *corev1.Pod) *corev1.PodCondition {
	for i := range o.Status.Conditions {
		if c := &o.Status.Conditions[i]; c.Type == corev1.PodScheduled {
			return c
		}
	}
	return nil
}

func saysAlready(o *corev1.Pod, message string) bool {
	c := conditionOf(o)
	return c != nil && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable && c.Message == message
}

// writeConditions writes one condition after the other.
func (r *reporter) writeConditions(ctx context.Context) error {
	limit := newBucket(conditionsRate, conditionsBurst)
	for {
		k, message, ok := r.nextCondition()
		if !ok {
			select {
			case <-r.conditions:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := limit.wait(ctx, r.clock); err != nil {
			return err
		}
		if err := r.writeCondition(ctx, k, message); errors.Is(err, objects.ErrConflict) {
			r.again(k, message) // The informer will have caught up.
		} else if err != nil && ctx.Err() == nil {
			r.log.Debug("condition not written", "pod", k, "error", err)
		}
	}
}

func (r *reporter) nextCondition() (k placement.Key, message string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.mu.order) > 0 {
		k = r.mu.order[0]
		r.mu.order = r.mu.order[1:]
		if message, ok = r.mu.messages[k]; ok {
			delete(r.mu.messages, k)
			return k, message, true
		}
	}
	return k, "", false
}

// again puts a message back, unless there is a newer one.
func (r *reporter) again(k placement.Key, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, there := r.mu.messages[k]; !there {
		r.mu.messages[k] = message
		r.mu.order = append(r.mu.order, k)
	}
}

// writeCondition writes on top of the pod as it is known now: one that has got a node
// meanwhile keeps what Bind wrote.
func (r *reporter) writeCondition(ctx context.Context, k placement.Key, message string) error {
	o, ok := r.pod(k.Namespace, k.Name)
	if !ok || o.Spec.NodeName != "" || saysAlready(o, message) {
		return nil
	}
	c := map[string]any{"type": corev1.PodScheduled, "status": corev1.ConditionFalse, "reason": corev1.PodReasonUnschedulable, "message": message}
	if old := conditionOf(o); old == nil || old.Status != corev1.ConditionFalse {
		c["lastTransitionTime"] = metav1.NewTime(r.clock.Wall().UTC())
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []any{c}}})
	if err != nil {
		return err
	}
	_, err = objects.PatchStatus[*corev1.Pod](ctx, r.client, k.Namespace, k.Name, kubepb.PatchRequest_STRATEGIC, patch,
		objects.Option{UID: string(o.UID), ResourceVersion: versionOf(o)})
	return err
}

// bucket lets so many a second through, and some at once.
type bucket struct {
	rate, most float64
	tokens     float64
	last       time.Duration
}

func newBucket(rate, burst float64) *bucket { return &bucket{rate: rate, most: burst, tokens: burst} }

// wait takes a token, once there is one.
func (b *bucket) wait(ctx context.Context, c clock.Clock) error {
	for {
		now := c.Mono()
		b.tokens = min(b.most, b.tokens+b.rate*(now-b.last).Seconds())
		b.last = now
		if b.tokens >= 1 {
			b.tokens--
			return nil
		}
		select {
		case <-c.After(time.Duration((1 - b.tokens) / b.rate * float64(time.Second))):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
