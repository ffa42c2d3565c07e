package placement

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/holdfast-db/holdfast/internal/golden"
)

// TestScenarios runs the files of testdata. A file begins with an empty cluster.
//
//	seed n=7
//	node name=a cpu=4 memory=8Gi pods=110 labels=k:v,k:v taint=k:v:NoSchedule cordoned ready=False images=x
//	remove node=a | pod=web-1
//	pod name=web-1 cpu=1 memory=1Gi labels=app:web owner=rs on=a  (with on: it is there; else it is placed)
//	the rest of the pod's spec, in YAML
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			s := &scenario{t: t, snapshot: New(), core: NewCore(1)}
			golden.Script(t, name, s.run)
		})
	}
}

type scenario struct {
	t        *testing.T
	snapshot *Snapshot
	core     *Core
}

func (s *scenario) run(c golden.Command) string {
	switch c.Name {
	case "seed":
		n, err := strconv.ParseUint(c.Arg("n"), 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		s.core = NewCore(n)
		return ""
	case "node":
		if helped := s.snapshot.SetNode(nodeOf(s.t, c)); helped != Any {
			return "may help " + helped.String()
		}
		return ""
	case "remove":
		s.snapshot.RemoveNode(c.Arg("node"))
		s.snapshot.RemovePod(Key{"default", c.Arg("pod")})
		return ""
	case "pod":
		return s.place(c)
	}
	s.t.Fatalf("line %d: no command %q", c.Line, c.Name)
	return ""
}

func (s *scenario) place(c golden.Command) string {
	p, err := NewPod(podOf(s.t, c))
	if err != nil {
		return err.Error()
	}
	if on := c.Arg("on"); on != "" {
		s.snapshot.SetPod(p, on)
		return ""
	}
	profile, ok := ProfileNamed(c.Arg("profile"))
	if !ok {
		profile = Spread
	}
	d := s.core.Decide(s.snapshot, p, profile)
	if d.Node == "" {
		return d.Message() + "\nwaits for " + d.Refused.String()
	}
	s.snapshot.SetPod(p, d.Node)
	var b strings.Builder
	fmt.Fprintf(&b, "%s, looked at %d of %d\n", d.Node, d.Looked, d.Nodes)
	for _, r := range d.Reasons {
		fmt.Fprintf(&b, "  not %d: %s (%s)\n", r.Nodes, r.Text, r.Plugin)
	}
	for _, score := range d.Scores {
		fmt.Fprintf(&b, "  %s %d =", score.Node, score.Total)
		for _, part := range score.Plugins {
			fmt.Fprintf(&b, " %s %d", part.Plugin, part.Points)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func nodeOf(t *testing.T, c golden.Command) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.Arg("name"), Labels: pairs(c.Arg("labels"))}}
	n.Labels[corev1.LabelHostname] = n.Name
	n.Spec.Unschedulable = c.Has("cordoned")
	ready := corev1.ConditionTrue
	if v := c.Arg("ready"); v != "" {
		ready = corev1.ConditionStatus(v)
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	n.Status.Allocatable = amounts(t, c, "cpu", "memory", "ephemeral-storage", "pods", "example.com/gpu")
	if !c.Has("pods") {
		n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("110")
	}
	for _, a := range c.Args {
		switch a.Key {
		case "taint":
			part := strings.Split(a.Value, ":")
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: part[0], Value: part[1], Effect: corev1.TaintEffect(part[2])})
		case "images":
			n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: strings.Split(a.Value, ",")})
		}
	}
	return n
}

func podOf(t *testing.T, c golden.Command) *corev1.Pod {
	o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: c.Arg("name"), Labels: pairs(c.Arg("labels"))}}
	if ns := c.Arg("namespace"); ns != "" {
		o.Namespace = ns
	}
	if err := yaml.Unmarshal([]byte(c.Input), &o.Spec); err != nil {
		t.Fatalf("line %d: %v", c.Line, err)
	}
	if owner := c.Arg("owner"); owner != "" {
		yes := true
		o.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(owner), Controller: &yes}}
	}
	if c.Has("terminating") {
		o.DeletionTimestamp = &metav1.Time{}
	}
	image := c.Arg("image")
	o.Spec.Containers = append(o.Spec.Containers, corev1.Container{Image: image})
	one := &o.Spec.Containers[len(o.Spec.Containers)-1]
	one.Resources.Requests = amounts(t, c, "cpu", "memory", "ephemeral-storage", "example.com/gpu")
	if port := c.Arg("port"); port != "" {
		n, err := strconv.ParseInt(port, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		one.Ports = []corev1.ContainerPort{{HostPort: int32(n), HostIP: c.Arg("ip"), Protocol: corev1.ProtocolTCP}}
	}
	return o
}

func amounts(t *testing.T, c golden.Command, names ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, name := range names {
		if v := c.Arg(name); v != "" {
			q, err := resource.ParseQuantity(v)
			if err != nil {
				t.Fatalf("line %d: %s: %v", c.Line, name, err)
			}
			list[corev1.ResourceName(name)] = q
		}
	}
	return list
}

func pairs(s string) map[string]string {
	m := map[string]string{}
	for pair := range strings.SplitSeq(s, ",") {
		if k, v, ok := strings.Cut(pair, ":"); ok {
			m[k] = v
		}
	}
	return m
}
