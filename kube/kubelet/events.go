package kubelet

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// event is one that waits to be written.
type event struct {
	pod  *corev1.Pod // Nil: it is about the node.
	note note
	at   metav1.Time
}

// note queues an event about a pod. With a full queue it is dropped.
func (k *Kubelet) note(pod *corev1.Pod, n note) {
	n.message = api.Clip(n.message, eventBytesMax)
	select {
	case k.events <- event{pod, n, stamp(k.clock.Wall())}:
	default:
	}
}

// Event tells people what a runtime did for a pod, or could not do. It does not wait.
func (k *Kubelet) Event(pod *corev1.Pod, kind, reason, message string) {
	k.note(pod, note{kind, reason, message})
}

// noteNode queues an event about the node.
func (k *Kubelet) noteNode(n note) { k.note(nil, n) }

// writeEvents writes one event after the other.
func (k *Kubelet) writeEvents(ctx context.Context) error {
	for {
		select {
		case e := <-k.events:
			if err := k.writeEvent(ctx, &e); err != nil && ctx.Err() == nil {
				k.log.Debug("an event was not written", "reason", e.note.reason, "error", err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (k *Kubelet) writeEvent(ctx context.Context, e *event) error {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	o := &corev1.Event{
		InvolvedObject: corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: k.cfg.Node},
		Type:           e.note.kind, Reason: e.note.reason, Message: e.note.message,
		FirstTimestamp: e.at, LastTimestamp: e.at, Count: 1,
		Source: corev1.EventSource{Component: "kubelet", Host: k.cfg.Node},
	}
	o.Namespace, o.Name = corev1.NamespaceDefault, k.cfg.Node
	if e.pod != nil {
		o.InvolvedObject = corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: e.pod.Namespace, Name: e.pod.Name, UID: e.pod.UID}
		o.Namespace, o.Name = e.pod.Namespace, e.pod.Name
	}
	o.Name = fmt.Sprintf("%s.%x", api.ClipName(o.Name, 200), k.clock.Wall().UnixNano())
	_, err := objects.Create(ctx, k.client, o)
	return err
}
