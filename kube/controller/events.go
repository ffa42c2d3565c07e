package controller

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/replica"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// eventsMax are events that wait to be written. More are dropped: nothing may wait
// for what only people read.
const eventsMax = 1000

// eventTextMax bytes of a message are told, and so many of the name that it is about: that
// of an event is as long as a name may be, and says more than whom it is about.
const (
	eventTextMax = 4 << 10
	eventNameMax = 200
)

// recorder writes events, one after the other.
type recorder struct {
	term  *term
	queue chan *corev1.Event
}

func newRecorder(t *term) *recorder { return &recorder{t, make(chan *corev1.Event, eventsMax)} }

// note says that something happened to an object. The same again is the same event,
// counted: its name follows from what it says.
func (r *recorder) note(about api.Object, warning bool, reason, message string) {
	k := api.KindOf(about)
	message = api.Clip(message, eventTextMax)
	namespace := about.GetNamespace()
	if namespace == "" {
		namespace = "default"
	}
	now := metav1.NewTime(r.term.clock.Wall())
	e := &corev1.Event{
		InvolvedObject: corev1.ObjectReference{Kind: k.Name, APIVersion: k.APIVersion, Namespace: about.GetNamespace(), Name: about.GetName(), UID: about.GetUID()},
		Reason:         reason, Message: message, Type: corev1.EventTypeNormal, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Source: corev1.EventSource{Component: "controllers"}, ReportingController: "holdfast.dev/controllers",
	}
	if warning {
		e.Type = corev1.EventTypeWarning
	}
	e.Namespace = namespace
	e.Name = api.ClipName(about.GetName(), eventNameMax) + "." + replica.Word(10, k.Name, string(about.GetUID()), e.Type, reason, message)
	select {
	case r.queue <- e:
	default:
		r.term.log.Debug("too many events, one is dropped", "reason", reason)
	}
}

func (r *recorder) run(ctx context.Context) error {
	for {
		select {
		case e := <-r.queue:
			if err := r.write(ctx, e); err != nil && ctx.Err() == nil {
				r.term.log.Debug("event is not written", "reason", e.Reason, "error", err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *recorder) write(ctx context.Context, e *corev1.Event) error {
	_, err := objects.Create(ctx, r.term.client, e, r.term.fenced())
	if !errors.Is(err, objects.ErrExists) {
		return err
	}
	have, err := objects.Get[*corev1.Event](ctx, r.term.client, e.Namespace, e.Name)
	if err != nil {
		return err
	}
	have.Count, have.LastTimestamp = have.Count+1, e.LastTimestamp
	_, err = objects.Update(ctx, r.term.client, have, r.term.fenced())
	return err
}
