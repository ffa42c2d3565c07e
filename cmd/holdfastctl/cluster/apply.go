package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// writeFlags are those of commands that write objects out of manifests.
type writeFlags struct {
	files fileFlags
	dry   dryRun
	form  string

	prune, serverSide, forceConflicts, force bool
}

func (f *writeFlags) declare(cmd *cobra.Command) {
	f.files.declare(cmd)
	f.dry.declare(cmd)
	cmd.Flags().StringVarP(&f.form, "output", "o", "", "print what was written: json, yaml, name")
}

func (s *session) applyCommand() *cobra.Command {
	var f writeFlags
	cmd := &cobra.Command{
		Use:   "apply -f FILE|FOLDER|-",
		Short: "Makes objects what manifests say",
		Long: `Makes objects what manifests say: creates those that are not there, and changes the
others. What a manifest says wins; what it said when it was applied last and says no
more is taken out; what others set stays. A manifest with a field that is not known,
or that this cluster does not honour, is refused by file and line, and nothing is sent.
`,
		RunE: s.connected(func(ctx context.Context, args []string) error { return s.apply(ctx, &f, args) }),
	}
	f.declare(cmd)
	fs := cmd.Flags()
	for _, refused := range []struct {
		name string
		to   *bool
	}{{"prune", &f.prune}, {"server-side", &f.serverSide}, {"force-conflicts", &f.forceConflicts}, {"force", &f.force}} {
		fs.BoolVar(refused.to, refused.name, false, "not supported")
		fs.Lookup(refused.name).Hidden = true
	}
	return cmd
}

func (f *writeFlags) check(args []string) error {
	switch {
	case len(args) > 0:
		return usage("unexpected argument %q: files are named with -f", args[0])
	case f.prune:
		return usage("--prune is not supported: it deletes what no file names; delete what is gone with 'delete -f' or 'delete -l'")
	case f.serverSide || f.forceConflicts:
		return usage("--server-side and --force-conflicts are not supported: fields have no managers here; apply without them")
	case f.force:
		return usage("--force is not supported: delete the object and apply it again")
	}
	if err := checkDone(f.form); err != nil {
		return err
	}
	return f.dry.check()
}

func (s *session) apply(ctx context.Context, f *writeFlags, args []string) error {
	if err := f.check(args); err != nil {
		return err
	}
	all, err := s.read(&f.files)
	if err != nil {
		return err
	}
	return s.each(all, func(m *api.Manifest) error { return s.applyOne(ctx, f, m) })
}

// each goes on with the next manifest where one fails.
func (s *session) each(all []api.Manifest, do func(*api.Manifest) error) error {
	failed := 0
	for i := range all {
		m := &all[i]
		err := do(m)
		if err == nil {
			continue
		}
		if st := unwrapped(err); broken(st) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return err // The others would wait in vain too.
		}
		failed++
		fmt.Fprintln(s.Err, s.explain(nil, fmt.Errorf("%s:%d: %s: %w", m.File, m.Line, titled(m.Object), err)))
	}
	if failed > 0 {
		return errSaid
	}
	return nil
}

func (s *session) applyOne(ctx context.Context, f *writeFlags, m *api.Manifest) error {
	k := api.KindOf(m.Object)
	if m.Object.GetName() == "" {
		return errors.New("apply needs metadata.name: with generateName, use 'create -f'")
	}
	now, err := ask(ctx, s, func(ctx context.Context) (api.Object, error) {
		return s.client.Get(ctx, k, m.Object.GetNamespace(), m.Object.GetName())
	})
	if isNotFound(err) {
		return s.applyNew(ctx, f, k, m)
	}
	if err != nil {
		return err
	}
	text, err := api.EncodeJSON(now)
	if err != nil {
		return err
	}
	patch, err := api.ApplyPatch(k, text, m.JSON)
	if err != nil {
		return err
	}
	if patch == nil {
		return s.done(now, f.form, "unchanged"+f.dry.note())
	}
	if f.dry.client() {
		if now, err = api.Patch(k, text, patch, kubepb.PatchRequest_STRATEGIC); err != nil {
			return err
		}
		return s.done(now, f.form, "configured"+f.dry.note())
	}
	ctx, cancel := s.within(ctx)
	defer cancel()
	made, _, err := s.client.Patch(ctx, k, now.GetNamespace(), now.GetName(), kubepb.PatchRequest_STRATEGIC, patch,
		objects.Option{DryRun: f.dry.server(), UID: string(now.GetUID())})
	if err != nil {
		return err
	}
	return s.done(made, f.form, "configured"+f.dry.note())
}

func (s *session) applyNew(ctx context.Context, f *writeFlags, k *api.Kind, m *api.Manifest) error {
	text, err := api.Applied(m.JSON)
	if err != nil {
		return err
	}
	o, err := api.DecodeJSON(k, text)
	if err != nil {
		return err
	}
	return s.makeOne(ctx, &f.dry, f.form, o)
}

// makeOne creates an object and says so. The server's warnings are those of the
// manifest, and were printed with its lines.
func (s *session) makeOne(ctx context.Context, dry *dryRun, form string, o api.Object) error {
	if !dry.client() {
		ctx, cancel := s.within(ctx)
		defer cancel()
		var err error
		if o, _, err = s.client.Create(ctx, o, objects.Option{DryRun: dry.server()}); err != nil {
			return err
		}
	}
	return s.done(o, form, "created"+dry.note())
}
