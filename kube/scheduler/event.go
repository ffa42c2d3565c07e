package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// source is who says it.
const source = "default-scheduler"

// event is something that happened to a pod.
type event struct {
	pod                   *corev1.Pod
	kind, reason, message string
}

// eventKey tells events apart: one that happens again is counted.
type eventKey struct {
	pod    types.UID
	reason string
}

// knownEvent is one that was written.
type knownEvent struct {
	name    string
	message string
	count   int32
	written time.Duration
}

// event has one written, if not too many wait.
func (r *reporter) event(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.events) >= eventsWaitingMax {
		r.mu.dropped++
		return
	}
	r.mu.events = append(r.mu.events, e)
	rouse(r.events)
}

// writeEvents writes one event after the other.
func (r *reporter) writeEvents(ctx context.Context) error {
	limit := newBucket(eventsRate, eventsBurst)
	for {
		e, ok := r.nextEvent()
		if !ok {
			select {
			case <-r.events:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		known := r.known[eventKey{e.pod.UID, e.reason}]
		if known != nil {
			known.count++
			if known.message == e.message && r.clock.Mono()-known.written < eventRepeat {
				continue
			}
		}
		if err := limit.wait(ctx, r.clock); err != nil {
			return err
		}
		if err := r.writeEvent(ctx, e, known); err != nil && ctx.Err() == nil {
			r.log.Debug("event not written", "reason", e.reason, "error", err)
		}
	}
}

func (r *reporter) nextEvent() (event, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.events) == 0 {
		return event{}, false
	}
	if r.mu.dropped > 0 {
		r.log.Debug("events dropped", "count", r.mu.dropped)
		r.mu.dropped = 0
	}
	e := r.mu.events[0]
	r.mu.events = r.mu.events[1:]
	return e, true
}

// writeEvent writes a new event, or what has changed of one that happened before.
func (r *reporter) writeEvent(ctx context.Context, e event, known *knownEvent) error {
	if known == nil {
		return r.createEvent(ctx, e)
	}
	patch, err := json.Marshal(map[string]any{"count": known.count, "message": e.message, "lastTimestamp": metav1.NewTime(r.clock.Wall().UTC())})
	if err != nil {
		return err
	}
	_, err = objects.Patch[*corev1.Event](ctx, r.client, e.pod.Namespace, known.name, kubepb.PatchRequest_MERGE, patch)
	if errors.Is(err, objects.ErrNotFound) { // Its time was over.
		delete(r.known, eventKey{e.pod.UID, e.reason})
		return r.createEvent(ctx, e)
	}
	if err == nil {
		known.message, known.written = e.message, r.clock.Mono()
	}
	return err
}

func (r *reporter) createEvent(ctx context.Context, e event) error {
	wall := r.clock.Wall()
	now := metav1.NewTime(wall.UTC())
	o := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: e.pod.Namespace, Name: fmt.Sprintf("%s.%x", shorten(e.pod.Name), wall.UnixNano())},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: e.pod.Namespace, Name: e.pod.Name, UID: e.pod.UID, ResourceVersion: e.pod.ResourceVersion,
		},
		Type: e.kind, Reason: e.reason, Message: e.message, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Source: corev1.EventSource{Component: source}, ReportingController: source,
	}
	if _, err := objects.Create(ctx, r.client, o); err != nil {
		return err
	}
	if len(r.known) >= eventsKnownMax {
		clear(r.known) // What happens again is written anew once.
	}
	r.known[eventKey{e.pod.UID, e.reason}] = &knownEvent{name: o.Name, message: e.message, count: 1, written: r.clock.Mono()}
	return nil
}

// shorten leaves room for the time in the name of an event.
func shorten(name string) string {
	return api.ClipName(name, api.NameBytesMax-17)
}
