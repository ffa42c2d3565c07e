package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/controller/rollout"
	"github.com/holdfast-db/holdfast/kube/objects"
)

func (s *session) treeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tree KIND/NAME | KIND NAME",
		Short: "Draws what an object belongs to and what belongs to it, down to containers",
		RunE: s.connected(func(ctx context.Context, args []string) error {
			t, err := one(args)
			if err != nil {
				return err
			}
			return s.tree(ctx, t)
		}),
	}
}

// branch is an object, and what is drawn below it.
type branch struct {
	text  string
	below []*branch
}

// forest is what a tree is drawn from: the objects that own or are owned.
type forest struct {
	s        *session
	children map[types.UID][]api.Object
	byUID    map[types.UID]api.Object
}

func (s *session) tree(ctx context.Context, t target) error {
	o, err := s.get(ctx, t)
	if err != nil {
		return err
	}
	f, err := s.forest(ctx, o)
	if err != nil {
		return err
	}
	b := f.below(o, map[types.UID]bool{})
	for seen := map[types.UID]bool{o.GetUID(): true}; ; seen[o.GetUID()] = true { // Up to what owns all.
		c := metav1.GetControllerOf(o)
		if c == nil || seen[c.UID] {
			break
		}
		if o = f.byUID[c.UID]; o == nil {
			b = &branch{strings.ToLower(c.Kind) + "/" + c.Name + "  is gone", []*branch{b}}
			break
		}
		b = &branch{f.s.about(o), []*branch{b}}
	}
	w := &strings.Builder{}
	b.draw(w, "", "")
	s.printf("%s", w.String())
	return nil
}

func (b *branch) draw(w *strings.Builder, first, rest string) {
	fmt.Fprintf(w, "%s%s\n", first, printable(b.text))
	for i, c := range b.below {
		if i == len(b.below)-1 {
			c.draw(w, rest+"└─ ", rest+"   ")
		} else {
			c.draw(w, rest+"├─ ", rest+"│  ")
		}
	}
}

// forest reads what may belong together with an object.
func (s *session) forest(ctx context.Context, o api.Object) (*forest, error) {
	f := &forest{s: s, children: map[types.UID][]api.Object{}, byUID: map[types.UID]api.Object{}}
	space := o.GetNamespace()
	options := objects.ListOptions{Namespace: space, Limit: listPage}
	switch api.KindOf(o) {
	case api.Node:
		options.Fields = "spec.nodeName=" + o.GetName()
		return f, f.read(ctx, api.Pod, options, o)
	case api.Namespace:
		options.Namespace = o.GetName()
	}
	for _, k := range []*api.Kind{api.Deployment, api.ReplicaSet, api.Pod, api.Service, api.Endpoints} {
		if err := f.read(ctx, k, options, o); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *forest) read(ctx context.Context, k *api.Kind, options objects.ListOptions, root api.Object) error {
	list, err := ask(ctx, f.s, func(ctx context.Context) ([]api.Object, error) {
		list, _, err := f.s.client.List(ctx, k, options)
		return list, err
	})
	for _, o := range list {
		f.byUID[o.GetUID()] = o
		owned := false
		for _, r := range o.GetOwnerReferences() {
			f.children[r.UID] = append(f.children[r.UID], o)
			owned = true
		}
		if belongs(root, o, owned) {
			f.children[root.GetUID()] = append(f.children[root.GetUID()], o)
		}
	}
	return err
}

// belongs reports whether an object stands below another that does not own it: the
// pods of a node and of a service, and what nobody owns of a namespace.
func belongs(root, o api.Object, owned bool) bool {
	switch r := root.(type) {
	case *corev1.Node:
		return true
	case *corev1.Namespace:
		return !owned
	case *corev1.Service:
		_, pod := o.(*corev1.Pod)
		return pod && len(r.Spec.Selector) > 0 && labels.SelectorFromSet(r.Spec.Selector).Matches(labels.Set(o.GetLabels()))
	}
	return false
}

// below draws an object and what is below it. Owners in a circle end it.
func (f *forest) below(o api.Object, above map[types.UID]bool) *branch {
	b := &branch{text: f.s.about(o)}
	if above[o.GetUID()] {
		return b
	}
	above[o.GetUID()] = true
	defer delete(above, o.GetUID())
	for _, c := range f.children[o.GetUID()] {
		b.below = append(b.below, f.below(c, above))
	}
	if p, ok := o.(*corev1.Pod); ok {
		for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
			for i := range list {
				b.below = append(b.below, &branch{text: containerLine(p, &list[i])})
			}
		}
	}
	return b
}

// about is one line about an object.
func (s *session) about(o api.Object) string {
	text := ""
	switch o := o.(type) {
	case *corev1.Pod:
		cells := podCells(o, s.Clock.Wall())
		text = fmt.Sprintf("%s, %s ready, node %s", cells[2], cells[1], cells[6])
	case *appsv1.Deployment:
		text = fmt.Sprintf("%d/%d ready, %d up to date", o.Status.ReadyReplicas, deref(o.Spec.Replicas, 1), o.Status.UpdatedReplicas)
	case *appsv1.ReplicaSet:
		text = fmt.Sprintf("%d/%d ready", o.Status.ReadyReplicas, deref(o.Spec.Replicas, 1))
		if r := rollout.RevisionOf(o); r > 0 {
			text += fmt.Sprintf(", revision %d", r)
		}
	case *corev1.Service:
		text = fmt.Sprintf("%s, %s, %s", o.Spec.Type, orNone(o.Spec.ClusterIP), servicePorts(o))
	case *discoveryv1.EndpointSlice:
		text = fmt.Sprintf("%d endpoints", len(o.Endpoints))
	case *corev1.Node:
		text = nodeStatus(o)
	}
	if o.GetDeletionTimestamp() != nil && !strings.HasPrefix(text, "Terminating") {
		text += ", Terminating"
	}
	return strings.TrimSpace(titled(o) + "  " + text)
}

func containerLine(p *corev1.Pod, c *corev1.Container) string {
	all := slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
	i := slices.IndexFunc(all, func(s corev1.ContainerStatus) bool { return s.Name == c.Name })
	state := "not started"
	if i >= 0 {
		switch st := &all[i]; {
		case st.State.Running != nil:
			state = "Running"
		case st.State.Terminated != nil:
			state = fmt.Sprintf("ended with exit code %d", st.State.Terminated.ExitCode)
		case st.State.Waiting != nil && st.State.Waiting.Reason != "":
			state = st.State.Waiting.Reason
		}
		if n := all[i].RestartCount; n > 0 {
			state += ", " + times(n, "restart")
		}
	}
	return fmt.Sprintf("container/%s  %s, image %s", c.Name, state, c.Image)
}
