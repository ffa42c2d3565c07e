package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
)

func (s *session) cordonCommand() *cobra.Command {
	return s.cordonLike("cordon", "Has no new pods placed on nodes", true)
}

func (s *session) uncordonCommand() *cobra.Command {
	return s.cordonLike("uncordon", "Has pods placed on nodes again", false)
}

func (s *session) cordonLike(verb, short string, off bool) *cobra.Command {
	var sel selection
	var dry dryRun
	cmd := &cobra.Command{
		Use: verb + " NODE...", Short: short,
		RunE: s.connected(func(ctx context.Context, args []string) error {
			if err := dry.check(); err != nil {
				return err
			}
			nodes, err := s.nodes(ctx, args, sel.labels)
			if err != nil {
				return err
			}
			for _, n := range nodes {
				if err := s.cordon(ctx, n, off, &dry); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.Flags().StringVarP(&sel.labels, "selector", "l", "", "labels that the nodes must have")
	dry.declare(cmd)
	return cmd
}

// nodes are those that arguments or a selector name.
func (s *session) nodes(ctx context.Context, args []string, selector string) ([]*corev1.Node, error) {
	var found []target
	for _, a := range args {
		a = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(a, "nodes/"), "node/"), "no/")
		found = append(found, target{api.Node, a})
		if err := named([]string{a}); err != nil {
			return nil, err
		}
	}
	if len(args) == 0 {
		if selector == "" {
			return nil, usage("name the nodes, or select them with -l")
		}
		found = []target{{kind: api.Node}}
	}
	list, err := s.find(ctx, found, selection{labels: selector})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no nodes match %q", selector)
	}
	var nodes []*corev1.Node
	for _, o := range list {
		nodes = append(nodes, o.(*corev1.Node))
	}
	return nodes, nil
}

func (s *session) cordon(ctx context.Context, n *corev1.Node, off bool, dry *dryRun) error {
	word := map[bool]string{true: "cordoned", false: "uncordoned"}[off]
	if n.Spec.Unschedulable == off {
		s.printf("%s already %s%s\n", titled(n), word, dry.note())
		return nil
	}
	if dry.client() {
		s.printf("%s %s%s\n", titled(n), word, dry.note())
		return nil
	}
	return s.patched(ctx, n, fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, off), word+dry.note(), objects.Option{DryRun: dry.server()})
}

type taintFlags struct {
	selection
	overwrite bool
	dry       dryRun
}

func (s *session) taintCommand() *cobra.Command {
	var f taintFlags
	cmd := &cobra.Command{
		Use: "taint nodes NAME... KEY=VALUE:EFFECT... KEY:EFFECT- KEY-", Short: "Keeps pods off nodes, unless they tolerate it",
		RunE: s.connected(func(ctx context.Context, args []string) error { return s.taint(ctx, &f, args) }),
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.labels, "selector", "l", "", "labels that the nodes must have")
	fs.BoolVar(&f.everything, "all", false, "all nodes")
	fs.BoolVar(&f.overwrite, "overwrite", false, "also where a taint of this key and effect has another value")
	f.dry.declare(cmd)
	return cmd
}

// taintChange adds a taint, or takes those of a key out, of one effect or of all.
type taintChange struct {
	corev1.Taint
	drop bool
}

var effects = []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}

// taintChanges splits arguments into what names nodes and what changes them.
func taintChanges(args []string) (names []string, all []taintChange, err error) {
	for i, a := range args {
		body, drop := strings.CutSuffix(a, "-")
		if i == 0 || !strings.ContainsAny(a, "=:") && !drop {
			names = append(names, a)
			continue
		}
		c := taintChange{drop: drop}
		key, effect, has := strings.Cut(body, ":")
		c.Key, c.Value, _ = strings.Cut(key, "=")
		c.Effect = corev1.TaintEffect(effect)
		if c.Key == "" || !has && !drop || has && !slices.Contains(effects, c.Effect) {
			return nil, nil, usage("%q: a taint is KEY=VALUE:EFFECT or KEY:EFFECT with NoSchedule, PreferNoSchedule or NoExecute; KEY- and KEY:EFFECT- take one out", a)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, nil, usage("at least one taint is required: KEY=VALUE:EFFECT, or KEY- to remove")
	}
	return names, all, nil
}

func (s *session) taint(ctx context.Context, f *taintFlags, args []string) error {
	if err := f.dry.check(); err != nil {
		return err
	}
	names, all, err := taintChanges(args)
	if err != nil {
		return err
	}
	list, err := s.chosen(ctx, names, f.selection, api.Node)
	if err != nil {
		return err
	}
	for _, o := range list {
		if err := s.taintOne(ctx, f, o.(*corev1.Node), all); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) taintOne(ctx context.Context, f *taintFlags, n *corev1.Node, all []taintChange) error {
	next := slices.Clone(n.Spec.Taints)
	word := "untainted"
	for _, c := range all {
		same := func(t corev1.Taint) bool { return t.Key == c.Key && (t.Effect == c.Effect || c.Effect == "") }
		i := slices.IndexFunc(next, same)
		switch {
		case c.drop && i < 0:
			return fmt.Errorf("taint %q not found on %s; it has %s", taintText(c.Taint), titled(n), joined(taints(n.Spec.Taints), ", "))
		case c.drop:
			next = slices.DeleteFunc(next, same)
		case i >= 0 && !f.overwrite && next[i].Value != c.Value:
			return fmt.Errorf("%s already has the taint %s, and --overwrite is false", titled(n), taintText(next[i]))
		default:
			word = "tainted"
			next = append(slices.DeleteFunc(next, same), c.Taint)
		}
	}
	if f.dry.client() {
		s.printf("%s %s%s\n", titled(n), word, f.dry.note())
		return nil
	}
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	version, err := api.ParseVersion(n.ResourceVersion)
	if err != nil {
		return err
	}
	return s.patched(ctx, n, fmt.Sprintf(`{"spec":{"taints":%s}}`, text), word+f.dry.note(), objects.Option{ResourceVersion: version, DryRun: f.dry.server()})
}
