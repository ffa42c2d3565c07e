package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// defaultContainer is the annotation of a pod that says which of its containers is
// meant when none is named.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// podsFor are the pods that POD or TYPE/NAME means, the best to reach first, and the
// object that was named.
func (s *session) podsFor(ctx context.Context, word string) (api.Object, []*corev1.Pod, error) {
	if err := named([]string{word}); err != nil {
		return nil, nil, err
	}
	if !strings.Contains(word, "/") {
		word = "pods/" + word
	}
	t, err := one([]string{word}, api.Pod, api.Deployment, api.ReplicaSet, api.Service)
	if err != nil {
		return nil, nil, err
	}
	o, err := s.get(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	if p, ok := o.(*corev1.Pod); ok {
		return o, []*corev1.Pod{p}, nil
	}
	selector := ""
	switch o := o.(type) {
	case *appsv1.Deployment:
		selector = metav1.FormatLabelSelector(o.Spec.Selector)
	case *appsv1.ReplicaSet:
		selector = metav1.FormatLabelSelector(o.Spec.Selector)
	case *corev1.Service:
		if len(o.Spec.Selector) == 0 {
			return nil, nil, fmt.Errorf("%s has no selector: name a pod", titled(o))
		}
		selector = labels.SelectorFromSet(o.Spec.Selector).String()
	}
	pods, err := s.podsOf(ctx, selector)
	if err == nil && len(pods) == 0 {
		err = fmt.Errorf("%s has no pods now: see 'describe %s'", titled(o), titled(o))
	}
	return o, pods, err
}

// podsOf are the pods of a selector, the best to reach first.
func (s *session) podsOf(ctx context.Context, selector string) ([]*corev1.Pod, error) {
	list, err := s.find(ctx, []target{{kind: api.Pod}}, selection{labels: selector})
	if err != nil {
		return nil, err
	}
	pods := make([]*corev1.Pod, 0, len(list))
	for _, o := range list {
		pods = append(pods, o.(*corev1.Pod))
	}
	rank := func(p *corev1.Pod) int {
		switch {
		case p.Status.Phase == corev1.PodRunning && api.IsReady(p) && p.DeletionTimestamp == nil:
			return 0
		case p.Status.Phase == corev1.PodRunning:
			return 1
		case p.Spec.NodeName != "":
			return 2
		}
		return 3
	}
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
	})
	return pods, nil
}

// podFor is the one pod to reach.
func (s *session) podFor(ctx context.Context, word string) (*corev1.Pod, error) {
	_, pods, err := s.podsFor(ctx, word)
	if err != nil {
		return nil, err
	}
	return pods[0], nil
}

// containerNames are those of a pod's containers that begin first, and of the
// others.
func containerNames(p *corev1.Pod) (first, others []string) {
	for i := range p.Spec.InitContainers {
		first = append(first, p.Spec.InitContainers[i].Name)
	}
	for i := range p.Spec.Containers {
		others = append(others, p.Spec.Containers[i].Name)
	}
	return first, others
}

// containerFor is the container of a pod that is meant by a name, or by none: then it
// is told which, if there are several.
func (s *session) containerFor(p *corev1.Pod, name string, quiet bool) (string, error) {
	first, others := containerNames(p)
	all := slices.Concat(others, first)
	if name != "" {
		if !slices.Contains(all, name) {
			return "", fmt.Errorf("container %s is not valid for pod %s, choose one of: %s", name, p.Name, strings.Join(all, ", "))
		}
		return name, nil
	}
	if name = p.Annotations[defaultContainer]; slices.Contains(all, name) {
		return name, nil
	}
	if len(others) == 0 {
		return "", fmt.Errorf("pod %s has no containers", p.Name)
	}
	if len(all) > 1 && !quiet {
		shown := slices.Clone(others)
		for _, n := range first {
			shown = append(shown, n+" (init)")
		}
		fmt.Fprintf(s.Err, "Defaulted container %q out of: %s\n", others[0], strings.Join(shown, ", "))
	}
	return others[0], nil
}

// in says which container is meant, to a server.
func in(p *corev1.Pod, container string) *kubepb.PodContainer {
	return &kubepb.PodContainer{Namespace: p.Namespace, Pod: p.Name, Uid: string(p.UID), Container: container}
}

// reached is what a session ended with, with what is known of the container. No pod:
// it was one of a node.
func reached(err error, p *corev1.Pod, container string) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(unwrapped(err))
	if !ok {
		return err
	}
	switch {
	case st.Code() == codes.FailedPrecondition, st.Code() == codes.NotFound && p != nil, st.Code() == codes.Unavailable && strings.HasSuffix(st.Message(), ": try again"):
		text := st.Message()
		if now := stateOf(p, container); now != "" && !strings.Contains(text, "no tunnel") {
			text += "\n(" + now + ")"
		}
		return errors.New(text)
	}
	return &answer{st}
}

// answer is a status in its own words.
type answer struct{ *status.Status }

func (a *answer) Error() string              { return a.Message() }
func (a *answer) GRPCStatus() *status.Status { return a.Status }

// stateOf is in words why a container does not run. Empty: it does, as far as is known.
func stateOf(p *corev1.Pod, container string) string {
	if p == nil {
		return ""
	}
	for _, st := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if st.Name != container {
			continue
		}
		if w := st.State.Waiting; w != nil {
			return fmt.Sprintf("container %q waits to start: %s", container, printable(strings.TrimSuffix(w.Reason+": "+w.Message, ": ")))
		}
		if e := st.State.Terminated; e != nil {
			return fmt.Sprintf("container %q has ended with exit code %d", container, e.ExitCode)
		}
	}
	return ""
}

// isAbsent reports whether a server or node says that something is not there.
func isAbsent(err error) bool { return status.Code(unwrapped(err)) == codes.NotFound }
