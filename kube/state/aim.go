package state

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// goal is where a session leads.
type goal struct {
	ask    *kubepb.Ask // With all that was left open, and ours.
	opened *kubepb.Opened
	verb   auth.Verb
	object string // For the log: namespace/pod, or a node.
}

// wish is what an ask is about.
type wish struct {
	verb      auth.Verb
	of        *kubepb.PodContainer // Nil: the node.
	node      string
	container bool // One must be meant.
	alive     bool // Of a pod that has not ended.
}

// wishOf also checks what is asked for.
func wishOf(ask *kubepb.Ask) (w wish, err error) {
	switch what := ask.GetWhat().(type) {
	case *kubepb.Ask_Logs:
		w, err = wish{verb: auth.Logs, of: what.Logs.GetOf(), container: true}, checkLogs(what.Logs)
	case *kubepb.Ask_Exec:
		w, err = wish{verb: auth.Exec, of: what.Exec.GetOf(), container: true, alive: true}, checkCommand(what.Exec.GetCommand())
	case *kubepb.Ask_Attach:
		w = wish{verb: auth.Attach, of: what.Attach.GetOf(), container: true, alive: true}
	case *kubepb.Ask_Dial:
		w = wish{verb: auth.Forward, of: what.Dial.GetOf(), alive: true}
		if p := what.Dial.GetPort(); p < 1 || p > 1<<16-1 {
			err = invalid("port: %d is not between 1 and 65535", p)
		}
	case *kubepb.Ask_Images:
		w = wish{verb: auth.Images, node: what.Images.GetNode()}
	case *kubepb.Ask_ImportImage:
		w = wish{verb: auth.Images, node: what.ImportImage.GetNode()}
	case *kubepb.Ask_RemoveImage:
		w = wish{verb: auth.Images, node: what.RemoveImage.GetNode()}
		if n := len(what.RemoveImage.GetImage()); n == 0 || n > commandBytesMax {
			err = invalid("image: it is missing, or too long")
		}
	default:
		err = invalid("what: nothing is asked for that this server knows")
	}
	if err == nil && w.node == "" && w.of == nil {
		err = invalid("of: a pod or a node must be named")
	}
	return w, err
}

func checkLogs(r *kubepb.LogsRequest) error {
	switch {
	case r.GetTailLines() < 0:
		return invalid("tail_lines: %d is less than none", r.GetTailLines())
	case r.GetSinceSeconds() < 0 || r.GetLimitBytes() < 0:
		return invalid("since_seconds and limit_bytes are not negative")
	case r.GetSinceSeconds() > 0 && r.GetSinceTime() != 0:
		return invalid("since_seconds and since_time: one of them, at most")
	case r.GetAfter().GetAttempt() < 0 || r.GetAfter().GetOffset() < 0:
		return invalid("after: attempt and offset are not negative")
	}
	return nil
}

func checkCommand(words []string) error {
	total := 0
	for _, w := range words {
		total += len(w)
		if strings.Contains(w, "\x00") {
			return invalid("command: %q has a zero byte", shorten(w))
		}
	}
	switch {
	case len(words) == 0 || words[0] == "":
		return invalid("command: there is none")
	case len(words) > commandWordsMax || total > commandBytesMax:
		return invalid("command: %d words of %d bytes together; %d and %d are the most", len(words), total, commandWordsMax, commandBytesMax)
	}
	return nil
}

// aim authorizes what is asked for, and finds the node. What another server has
// authorized and found is as it says.
func (s *Service) aim(ctx context.Context, id auth.Identity, ask *kubepb.Ask, passedOn bool) (*goal, error) {
	w, err := wishOf(ask)
	if err != nil {
		return nil, err
	}
	r := &auth.Request{Identity: id, Verb: w.verb, Kind: api.Node, Name: w.node}
	if w.of != nil {
		if err := checkName("pod", w.of.Pod); err != nil {
			return nil, err
		}
		if err := checkName("namespace", w.of.Namespace); err != nil {
			return nil, err
		}
		r.Kind, r.Namespace, r.Name = api.Pod, w.of.Namespace, w.of.Pod
	} else if err := checkName("node", w.node); err != nil {
		return nil, err
	}
	if err := s.authorize(r); err != nil {
		return nil, err
	}
	if passedOn {
		if err := checkName("node", ask.Node); err != nil {
			return nil, err
		}
		return &goal{ask, &kubepb.Opened{Node: ask.Node, Container: w.of.GetContainer()}, w.verb, full(r.Namespace, r.Name)}, nil
	}
	own, _ := proto.Clone(ask).(*kubepb.Ask) // Who asks may be in this process, and keeps his.
	own.Node, own.User = "", ""
	g := &goal{own, &kubepb.Opened{Node: w.node}, w.verb, full(r.Namespace, r.Name)}
	if w.of != nil {
		w, _ = wishOf(own)
		err = s.aimAtPod(ctx, g, &w)
	} else if s.cache.entry(api.Node.Key("", w.node)) == nil {
		err = missing(api.Node, "", w.node)
	}
	return g, err
}

// aimAtPod finds the pod, and fills in what was left open.
func (s *Service) aimAtPod(ctx context.Context, g *goal, w *wish) error {
	p, err := s.podFor(ctx, w.of)
	if err != nil {
		return err
	}
	named := full(p.Namespace, p.Name)
	switch {
	case w.of.Uid != "" && w.of.Uid != string(p.UID):
		return fmt.Errorf("pod %s of the UID %s: %w", named, shorten(w.of.Uid), errNotFound)
	case p.Spec.NodeName == "":
		return fmt.Errorf("pod %s: %w", named, errNoPod)
	case w.alive && (p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed):
		return fmt.Errorf("pod %s has ended, in phase %s: that it runs %w", named, p.Status.Phase, errGuard)
	}
	w.of.Uid = string(p.UID)
	if w.container {
		if w.of.Container, err = containerOf(p, w.of.Container); err != nil {
			return err
		}
	}
	g.opened.Node, g.opened.Container = p.Spec.NodeName, w.of.Container
	return nil
}

// podFor reads a pod, from the store only where the cache may lag behind the caller.
func (s *Service) podFor(ctx context.Context, of *kubepb.PodContainer) (*corev1.Pod, error) {
	find := func() (*corev1.Pod, error) {
		kv := s.cache.lookup(api.Pod.Key(of.Namespace, of.Pod))
		if kv == nil {
			return nil, missing(api.Pod, of.Namespace, of.Pod)
		}
		o, err := api.Decode(api.Pod, kv.Value, kv.ModRevision)
		if err != nil {
			return nil, err
		}
		p := o.(*corev1.Pod)
		if p.Spec.NodeName == "" || of.Uid != "" && of.Uid != string(p.UID) {
			return p, errBehind
		}
		return p, nil
	}
	if p, err := find(); err == nil {
		return p, nil
	}
	if _, err := s.fresh(ctx); err != nil {
		return nil, err
	}
	p, err := find()
	if p != nil {
		return p, nil // It is so, and the caller says what is wrong with it.
	}
	return nil, err
}

// containerOf is the name of the container that is meant.
func containerOf(p *corev1.Pod, name string) (string, error) {
	var names, first []string
	for i := range p.Spec.Containers {
		names = append(names, p.Spec.Containers[i].Name)
	}
	for i := range p.Spec.InitContainers {
		first = append(first, p.Spec.InitContainers[i].Name)
	}
	choice := fmt.Sprintf("[%s]", strings.Join(names, " "))
	if len(first) > 0 {
		choice += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(first, " "))
	}
	switch {
	case name == "" && len(names) == 1:
		return names[0], nil
	case name == "":
		return "", invalid("a container name must be specified for pod %s, choose one of: %s", p.Name, choice)
	case !slices.Contains(names, name) && !slices.Contains(first, name):
		return "", invalid("container %s is not valid for pod %s, choose one of: %s", shorten(name), p.Name, choice)
	}
	return name, nil
}
