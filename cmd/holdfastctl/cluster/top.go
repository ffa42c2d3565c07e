package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

type topFlags struct {
	selection
	containers, noHeaders bool
	sortBy                string
}

func (s *session) topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "top pods|nodes [NAME]", Short: "Shows what pods and nodes use of CPU and memory",
		RunE: func(_ *cobra.Command, args []string) error {
			return usage("top is of pods or of nodes")
		},
	}
	var pods, nodes topFlags
	p := &cobra.Command{Use: "pods [NAME | -l SELECTOR]", Aliases: []string{"pod", "po"}, Short: "Of pods",
		RunE: s.connected(func(ctx context.Context, args []string) error { return s.topPods(ctx, &pods, args) })}
	n := &cobra.Command{Use: "nodes [NAME | -l SELECTOR]", Aliases: []string{"node", "no"}, Short: "Of nodes",
		RunE: s.connected(func(ctx context.Context, args []string) error { return s.topNodes(ctx, &nodes, args) })}
	for _, c := range []struct {
		cmd *cobra.Command
		f   *topFlags
	}{{p, &pods}, {n, &nodes}} {
		c.cmd.Flags().StringVarP(&c.f.labels, "selector", "l", "", "labels that they must have")
		c.cmd.Flags().BoolVar(&c.f.noHeaders, "no-headers", false, "without the line of column names")
		c.cmd.Flags().StringVar(&c.f.sortBy, "sort-by", "", "cpu or memory: what uses most first")
		cmd.AddCommand(c.cmd)
	}
	p.Flags().BoolVarP(&pods.everywhere, "all-namespaces", "A", false, "of all namespaces")
	p.Flags().BoolVar(&pods.containers, "containers", false, "each container by itself")
	return cmd
}

// used is a line of top.
type used struct {
	namespace, name, container string
	use                        *kubepb.Use
}

func (f *topFlags) check(args []string) error {
	if len(args) > 1 {
		return usage("one NAME, or none for all")
	}
	if len(args) == 1 && f.labels != "" {
		return usage("a name and a selector cannot be given together")
	}
	if f.sortBy != "" && f.sortBy != "cpu" && f.sortBy != "memory" {
		return usage("--sort-by accepts only cpu or memory")
	}
	return nil
}

func (f *topFlags) sort(lines []used) {
	slices.SortStableFunc(lines, func(a, b used) int {
		switch f.sortBy {
		case "cpu":
			return cmp.Compare(b.use.GetCpuMillis(), a.use.GetCpuMillis())
		case "memory":
			return cmp.Compare(b.use.GetMemoryBytes(), a.use.GetMemoryBytes())
		}
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name), cmp.Compare(a.container, b.container))
	})
}

func cores(u *kubepb.Use) string { return fmt.Sprintf("%dm", u.GetCpuMillis()) }
func mebis(u *kubepb.Use) string { return fmt.Sprintf("%dMi", u.GetMemoryBytes()>>20) }

func (s *session) topPods(ctx context.Context, f *topFlags, args []string) error {
	if err := f.check(args); err != nil {
		return err
	}
	t := target{kind: api.Pod}
	if len(args) == 1 {
		t.name = args[0]
	}
	list, err := s.find(ctx, []target{t}, f.selection)
	if err != nil {
		return err
	}
	r := &kubepb.UsageRequest{Namespace: s.home}
	if f.everywhere {
		r.Namespace = ""
	}
	answer, err := ask(ctx, s, func(ctx context.Context) (*kubepb.UsageResponse, error) { return s.client.Usage(ctx, r) })
	if err != nil {
		return err
	}
	measured := map[string]*kubepb.PodUse{}
	for _, p := range answer.Pods {
		measured[p.Namespace+"/"+p.Name+"/"+p.Uid] = p
	}
	var lines []used
	for _, o := range list {
		p := measured[key(o)+"/"+string(o.GetUID())]
		if p == nil {
			if t.name != "" {
				return fmt.Errorf("metrics not available yet for pod %s/%s, age %s: its node measures it once it runs", o.GetNamespace(), o.GetName(), since(s.Clock.Wall(), o.GetCreationTimestamp()))
			}
			continue
		}
		lines = append(lines, podLines(p, f.containers)...)
	}
	if len(lines) == 0 {
		fmt.Fprintln(s.Err, "No metrics available: nodes measure pods once they run.")
		return nil
	}
	f.sort(lines)
	s.topTable(f, lines)
	return nil
}

func podLines(p *kubepb.PodUse, each bool) []used {
	sum := &kubepb.Use{}
	var lines []used
	for _, name := range slices.Sorted(maps.Keys(p.Containers)) {
		u := p.Containers[name]
		sum.CpuMillis += u.GetCpuMillis()
		sum.MemoryBytes += u.GetMemoryBytes()
		lines = append(lines, used{p.Namespace, p.Name, name, u})
	}
	if each {
		return lines
	}
	return []used{{p.Namespace, p.Name, "", sum}}
}

func (s *session) topTable(f *topFlags, lines []used) {
	g := &grid{out: s.Out}
	row := func(namespace, name, container, cpu, memory string) {
		var cells []string
		if f.everywhere {
			cells = append(cells, namespace)
		}
		cells = append(cells, name)
		if f.containers {
			cells = append(cells, container)
		}
		g.add(append(cells, cpu, memory)...)
	}
	if !f.noHeaders {
		title := "NAME"
		container := ""
		if f.containers {
			title, container = "POD", "NAME"
		}
		row("NAMESPACE", title, container, "CPU(cores)", "MEMORY(bytes)")
	}
	for _, l := range lines {
		row(l.namespace, l.name, l.container, cores(l.use), mebis(l.use))
	}
	g.flush()
}

func (s *session) topNodes(ctx context.Context, f *topFlags, args []string) error {
	if err := f.check(args); err != nil {
		return err
	}
	t := target{kind: api.Node}
	if len(args) == 1 {
		t.name = args[0]
	}
	list, err := s.find(ctx, []target{t}, f.selection)
	if err != nil {
		return err
	}
	answer, err := ask(ctx, s, func(ctx context.Context) (*kubepb.UsageResponse, error) {
		return s.client.Usage(ctx, &kubepb.UsageRequest{Node: t.name})
	})
	if err != nil {
		return err
	}
	var lines []used
	has := map[string]api.Resources{}
	for _, o := range list {
		has[o.GetName()] = api.NodeResources(o.(*corev1.Node))
		u := used{name: o.GetName()}
		for _, n := range answer.Nodes {
			if n.Node == o.GetName() {
				u.use = n.Use
			}
		}
		lines = append(lines, u)
	}
	f.sort(lines)
	g := &grid{out: s.Out}
	if !f.noHeaders {
		g.add("NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)")
	}
	for _, l := range lines {
		if l.use == nil {
			g.add(l.name, "<unknown>", "<unknown>", "<unknown>", "<unknown>")
			continue
		}
		of := has[l.name]
		g.add(l.name, cores(l.use), percent(l.use.CpuMillis, of.MilliCPU), mebis(l.use), percent(l.use.MemoryBytes, of.Memory))
	}
	g.flush()
	return nil
}

func percent(n, of int64) string {
	if of <= 0 {
		return "<unknown>"
	}
	return fmt.Sprintf("%d%%", int64(100*float64(n)/float64(of)))
}
