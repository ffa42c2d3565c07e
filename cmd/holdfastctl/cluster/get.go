package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/kube/api"
	kubecontext "github.com/holdfast-db/holdfast/kube/context"
)

type getFlags struct {
	selection
	form                  string
	watch, watchOnly      bool
	showLabels, noHeaders bool
	ignoreNotFound        bool
}

func (f *selection) declare(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.labels, "selector", "l", "", "labels that objects must have: app=web,tier!=db,track in (a,b)")
	fs.StringVar(&f.fields, "field-selector", "", "fields that objects must have: spec.nodeName=n1,status.phase=Running")
	fs.BoolVarP(&f.everywhere, "all-namespaces", "A", false, "of all namespaces")
}

func (s *session) getCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "get KIND [NAME...] | KIND/NAME... | KIND,KIND",
		Short: "Shows objects, one line each or in full",
		Example: `  get pods
  get pods,services -o wide
  get deployment web -o yaml
  get pods -A -w -l app=web`,
		RunE: s.connected(func(ctx context.Context, args []string) error { return s.getAll(ctx, &f, args) }),
	}
	f.declare(cmd)
	fs := cmd.Flags()
	fs.StringVarP(&f.form, "output", "o", "", "form: wide, name, json, yaml")
	fs.BoolVarP(&f.watch, "watch", "w", false, "go on with what changes")
	fs.BoolVar(&f.watchOnly, "watch-only", false, "show only what changes")
	fs.BoolVar(&f.showLabels, "show-labels", false, "with a last column of labels")
	fs.BoolVar(&f.noHeaders, "no-headers", false, "without the line of column names")
	fs.BoolVar(&f.ignoreNotFound, "ignore-not-found", false, "what is not there is no error")
	return cmd
}

func (s *session) getAll(ctx context.Context, f *getFlags, args []string) error {
	if err := checkForm(f.form); err != nil {
		return err
	}
	found, err := targets(args)
	if err != nil {
		return err
	}
	if f.watch || f.watchOnly {
		return s.watchAll(ctx, f, found)
	}
	v := s.view(f, found)
	list, failed, err := s.gather(ctx, f, found)
	if err != nil {
		return err
	}
	if err := v.print(s.Out, list); err != nil {
		return err
	}
	if failed {
		return errSaid
	}
	if len(list) == 0 && v.tabular() && !f.ignoreNotFound {
		s.nothing(f, found)
	}
	return nil
}

// gather reads what there is of several objects. Those that are not there have been
// said: failed.
func (s *session) gather(ctx context.Context, f *getFlags, found []target) (list []api.Object, failed bool, err error) {
	for _, t := range found {
		items, err := s.find(ctx, []target{t}, f.selection)
		switch {
		case err == nil:
			list = append(list, items...)
		case !isNotFound(err) || t.name == "" || len(found) == 1 && !f.ignoreNotFound:
			return nil, false, err
		case !f.ignoreNotFound:
			fmt.Fprintln(s.Err, s.explain(nil, err))
			failed = true
		}
	}
	return list, failed, nil
}

// nothing says on standard error that there is nothing.
func (s *session) nothing(f *getFlags, found []target) {
	where := ""
	if !f.everywhere && slices.ContainsFunc(found, func(t target) bool { return t.kind.Namespaced }) {
		where = fmt.Sprintf(" in %s namespace", s.home)
	}
	fmt.Fprintf(s.Err, "No resources found%s.\n", where)
}

// view is how objects are shown.
type view struct {
	s                             *session
	form                          string
	labels, noHeaders, everywhere bool
	prefixed                      bool      // Names begin with the kind.
	single                        bool      // One object was named: no list around it.
	kind                          *api.Kind // Of the table that is being printed.
	columns                       columns
	grid                          *grid
}

func (s *session) view(f *getFlags, found []target) *view {
	kinds := map[*api.Kind]bool{}
	for _, t := range found {
		kinds[t.kind] = true
	}
	return &view{
		s: s, form: f.form, labels: f.showLabels, noHeaders: f.noHeaders, everywhere: f.everywhere,
		prefixed: len(kinds) > 1, single: len(found) == 1 && found[0].name != "",
	}
}

func (v *view) tabular() bool { return v.form == "" || v.form == "wide" }

func (v *view) print(out io.Writer, list []api.Object) error {
	switch v.form {
	case "name":
		v.s.named(list)
		return nil
	case "json", "yaml":
		text, err := document(v.form, list, v.single)
		if err != nil {
			return err
		}
		_, err = out.Write(text)
		return err
	}
	for _, o := range list {
		v.row(out, o)
	}
	if v.grid != nil {
		v.grid.flush()
	}
	return nil
}

// row adds an object to the table of its kind, which begins when there is none.
func (v *view) row(out io.Writer, o api.Object) {
	k := api.KindOf(o)
	if k != v.kind {
		if v.grid != nil {
			v.grid.flush()
			io.WriteString(out, "\n")
		}
		v.kind, v.columns, v.grid = k, columnsOf(k), &grid{out: out}
		if c := v.columns; !v.noHeaders {
			v.grid.add(v.line(c, slices.Concat(c.names, c.wide), "NAMESPACE", "LABELS")...)
		}
	}
	c := v.columns
	cells := c.cells(o, v.s.Clock.Wall())
	if v.prefixed && c.names[0] == "NAME" {
		cells[0] = title(k) + "/" + cells[0]
	}
	v.grid.add(v.line(c, cells, o.GetNamespace(), labelText(o.GetLabels()))...)
}

// line is those of the cells that are shown.
func (v *view) line(c columns, cells []string, namespace, labels string) []string {
	var line []string
	if v.everywhere && v.kind.Namespaced {
		line = append(line, namespace)
	}
	switch {
	case v.form != "wide":
		line = append(line, cells[:len(c.names)]...)
	case c.order == nil:
		line = append(line, cells...)
	default:
		for _, i := range c.order {
			line = append(line, cells[i])
		}
	}
	if v.labels {
		line = append(line, labels)
	}
	for i := range line {
		line[i] = printable(line[i])
	}
	return line
}

// Means reports whether a command line is for objects. A verb of this package is. A
// get is if its first argument names a kind, nothing in it is for the store alone,
// and there is a context or a flag that only objects have.
func Means(cfg Config, args []string) bool {
	args = leading(args)
	if len(args) == 0 {
		return false
	}
	if args[0] == "recover" { // The rest of it is about the store.
		return len(args) > 1 && args[1] == "pods"
	}
	if args[0] != "get" {
		return slices.ContainsFunc(Verbs(), func(c *cobra.Command) bool { return c.Name() == args[0] })
	}
	first, ours, theirs := sides(args[1:])
	if theirs || !namesKind(first) {
		return false
	}
	if ours {
		return true
	}
	return HasContext(cfg)
}

// HasContext reports whether a cluster is named by a file of contexts.
func HasContext(cfg Config) bool {
	s := &session{Config: cfg}
	_, _, err := s.contexts()
	return !errors.Is(err, kubecontext.ErrNoFile)
}

// sides are the first argument of a get, and whether it has flags of this package, or
// of the store.
func sides(args []string) (first string, ours, theirs bool) {
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		a := args[i]
		if !strings.HasPrefix(a, "-") || a == "-" {
			if first == "" {
				first = a
			}
			continue
		}
		next := ""
		if i+1 < len(args) {
			next = args[i+1]
		}
		o, t := sideOf(a, next)
		ours, theirs = ours || o, theirs || t
		if takesValue(a) {
			i++
		}
	}
	return first, ours, theirs
}

// sideOf says whose a flag is; -w is the store's where a form of it follows.
func sideOf(flag, next string) (ours, theirs bool) {
	name, value, has := strings.Cut(strings.TrimLeft(flag, "-"), "=")
	if !has {
		value = next
	}
	switch {
	case name == "h" || name == "help":
		return false, false
	case name == "w":
		return false, slices.Contains(storeForms, value)
	case slices.Contains(objectFlags, name):
		return true, false
	}
	return false, true
}

var (
	storeForms  = []string{"simple", "fields", "json", "protobuf", "table"}
	objectFlags = []string{
		"o", "output", "n", "namespace", "A", "all-namespaces", "l", "selector", "field-selector", "show-labels", "watch", "watch-only",
		"context", "config", "request-timeout", "no-headers", "ignore-not-found", "oyaml", "ojson", "owide", "oname",
	}
	valueFlags = []string{"-o", "--output", "-n", "--namespace", "-l", "--selector", "--field-selector", "--context", "--config", "--request-timeout"}
)

// takesValue reports whether the word behind a flag is its value.
func takesValue(flag string) bool { return slices.Contains(valueFlags, flag) }

// namesKind reports whether a word is a kind, several, or an object of one.
func namesKind(word string) bool {
	if word == "" {
		return false
	}
	if before, _, ok := strings.Cut(word, "/"); ok {
		_, err := api.ByWord(before)
		return before != "" && err == nil
	}
	_, err := kindsOf(word)
	return err == nil
}
