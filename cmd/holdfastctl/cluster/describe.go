package cluster

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
)

func (s *session) describeCommand() *cobra.Command {
	var sel selection
	cmd := &cobra.Command{
		Use:   "describe KIND [NAME...] | KIND/NAME...",
		Short: "Tells all about objects, with their events",
		RunE:  s.connected(func(ctx context.Context, args []string) error { return s.describe(ctx, sel, args) }),
	}
	sel.declare(cmd)
	return cmd
}

func (s *session) describe(ctx context.Context, sel selection, args []string) error {
	found, err := targets(args)
	if err != nil {
		return err
	}
	list, err := s.find(ctx, found, sel)
	if err != nil {
		return err
	}
	for i, o := range list {
		if i > 0 {
			s.printf("\n\n")
		}
		about, err := s.facts(ctx, o)
		if err != nil {
			return err
		}
		describe(s.Out, o, about)
	}
	if len(list) == 0 {
		s.nothing(&getFlags{selection: sel}, found)
	}
	return nil
}

// facts are what a description tells beside the object.
type facts struct {
	now    time.Time
	events []*corev1.Event
	pods   []*corev1.Pod // On a node.
}

func (s *session) facts(ctx context.Context, o api.Object) (*facts, error) {
	f := &facts{now: s.Clock.Wall()}
	var err error
	f.events, err = s.eventsOf(ctx, o)
	if err != nil {
		return nil, err
	}
	if api.KindOf(o) == api.Node {
		f.pods, err = ask(ctx, s, func(ctx context.Context) ([]*corev1.Pod, error) {
			pods, _, err := objects.List[*corev1.Pod](ctx, s.client, objects.ListOptions{Fields: "spec.nodeName=" + o.GetName(), Limit: listPage})
			return pods, err
		})
	}
	return f, err
}

// eventsOf are the events about an object, the oldest first.
func (s *session) eventsOf(ctx context.Context, o api.Object) ([]*corev1.Event, error) {
	k := api.KindOf(o)
	options := objects.ListOptions{Namespace: o.GetNamespace(), Fields: "involvedObject.kind=" + k.Name + ",involvedObject.name=" + o.GetName(), Limit: listPage}
	if k.Namespaced {
		options.Fields += ",involvedObject.uid=" + string(o.GetUID())
	}
	return ask(ctx, s, func(ctx context.Context) ([]*corev1.Event, error) {
		events, _, err := objects.List[*corev1.Event](ctx, s.client, options)
		slices.SortStableFunc(events, func(a, b *corev1.Event) int { return lastSeen(a).Compare(lastSeen(b)) })
		return events, err
	})
}

func lastSeen(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.FirstTimestamp.Time
}

// page is a description that is being written: lines of a name and a value, some
// deeper than others.
type page struct {
	w     *tabwriter.Writer
	now   time.Time
	depth int
}

func (p *page) line(cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	fmt.Fprintf(p.w, "%s%s\n", strings.Repeat("  ", p.depth), strings.Join(cells, "\t"))
}

func (p *page) field(name string, value any) { p.line(name+":", fmt.Sprint(value)) }

// under writes what f does below a title.
func (p *page) under(title string, f func()) {
	p.line(title)
	p.depth++
	f()
	p.depth--
}

// table is a field with one line for each name, sorted.
func (p *page) table(name string, values map[string]string, by string) {
	if len(values) == 0 {
		p.field(name, "<none>")
		return
	}
	for i, k := range slices.Sorted(maps.Keys(values)) {
		title := ""
		if i == 0 {
			title = name + ":"
		}
		p.line(title, k+by+shorten(values[k]))
	}
}

const valueMax = 200 // Runes of an annotation: more is for -o yaml.

func shorten(s string) string {
	if r := []rune(s); len(r) > valueMax {
		return string(r[:valueMax]) + "..."
	}
	return s
}

func (p *page) list(name string, words []string) {
	if len(words) == 0 {
		p.field(name, "<none>")
		return
	}
	for i, w := range words {
		title := ""
		if i == 0 {
			title = name + ":"
		}
		p.line(title, w)
	}
}

func (p *page) time(name string, t metav1.Time) {
	if !t.IsZero() {
		p.field(name, t.UTC().Format(time.RFC1123Z))
	}
}

// describe writes all about an object.
func describe(out io.Writer, o api.Object, f *facts) {
	p := &page{w: tabwriter.NewWriter(out, 0, 8, 2, ' ', 0), now: f.now}
	p.begin(o)
	p.body(o, f)
	p.events(f.events)
	p.w.Flush()
}

func (p *page) begin(o api.Object) {
	k := api.KindOf(o)
	p.field("Name", o.GetName())
	if k.Namespaced {
		p.field("Namespace", o.GetNamespace())
	}
	p.table("Labels", o.GetLabels(), "=")
	notes := maps.Clone(o.GetAnnotations())
	delete(notes, api.LastApplied)
	p.table("Annotations", notes, ": ")
	p.time("CreationTimestamp", o.GetCreationTimestamp())
	if d := o.GetDeletionTimestamp(); d != nil {
		p.field("Status", "Terminating (lasts "+since(p.now, *d)+")")
		if g := o.GetDeletionGracePeriodSeconds(); g != nil {
			p.field("Termination Grace Period", fmt.Sprintf("%ds", *g))
		}
	}
	if c := metav1.GetControllerOf(o); c != nil {
		p.field("Controlled By", c.Kind+"/"+c.Name)
	}
	if list := o.GetFinalizers(); len(list) > 0 {
		p.list("Finalizers", list)
	}
}

func (p *page) events(events []*corev1.Event) {
	if len(events) == 0 {
		p.field("Events", "<none>")
		return
	}
	p.under("Events:", func() {
		p.line("Type", "Reason", "Age", "From", "Message")
		p.line("----", "------", "----", "----", "-------")
		for _, e := range events {
			cells := eventCells(e, p.now)
			age := cells[0]
			if e.Count > 1 {
				age = fmt.Sprintf("%s (x%d over %s)", age, e.Count, cells[7])
			}
			p.line(e.Type, e.Reason, age, cells[6], strings.TrimSpace(e.Message))
		}
	})
}

// secretSizes are the names in a secret and how long the values are, never these.
func secretSizes(s *corev1.Secret) map[string]string {
	sizes := map[string]string{}
	for name, value := range s.Data { //tidy:ordered a map of its own
		sizes[name] = fmt.Sprintf("%d bytes", len(value))
	}
	return sizes
}

func (p *page) configMap(c *corev1.ConfigMap) {
	fmt.Fprint(p.w, "\nData\n====\n")
	for _, name := range slices.Sorted(maps.Keys(c.Data)) {
		fmt.Fprintf(p.w, "%s:\n----\n%s\n\n", name, printableText(c.Data[name]))
	}
	fmt.Fprint(p.w, "\nBinaryData\n====\n")
	for _, name := range slices.Sorted(maps.Keys(c.BinaryData)) {
		fmt.Fprintf(p.w, "%s: %d bytes\n", name, len(c.BinaryData[name]))
	}
	fmt.Fprintln(p.w)
}

// printableText is text of several lines that does not act on a terminal.
func printableText(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = printable(l)
	}
	return strings.Join(lines, "\n")
}
