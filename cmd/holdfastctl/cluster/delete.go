package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

type deleteFlags struct {
	selection
	files          fileFlags
	dry            dryRun
	form           string
	grace          int64
	now, force     bool
	wait           bool
	timeout        time.Duration
	cascade        string
	ignoreNotFound bool
}

func (s *session) deleteCommand() *cobra.Command {
	var f deleteFlags
	cmd := &cobra.Command{
		Use:   "delete KIND NAME... | KIND -l SELECTOR | KIND --all | -f FILE",
		Short: "Deletes objects",
		RunE:  s.connected(func(ctx context.Context, args []string) error { return s.delete(ctx, &f, args) }),
	}
	f.selection.declare(cmd)
	f.files.declare(cmd)
	f.dry.declare(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&f.everything, "all", false, "all of the kind, in the namespace")
	fs.StringVarP(&f.form, "output", "o", "", "name: print only names")
	fs.Int64Var(&f.grace, "grace-period", -1, "seconds that a pod may take to end; negative: its own")
	fs.BoolVar(&f.now, "now", false, "as --grace-period=1")
	fs.BoolVar(&f.force, "force", false, "with --grace-period=0: do not wait for the node")
	fs.BoolVar(&f.wait, "wait", true, "until they are gone")
	fs.DurationVar(&f.timeout, "timeout", 0, "how long to wait; 0: as long as it takes")
	fs.StringVar(&f.cascade, "cascade", "background", "what becomes of what it owns: background, foreground, orphan")
	fs.Lookup("cascade").NoOptDefVal = "background"
	fs.BoolVar(&f.ignoreNotFound, "ignore-not-found", false, "what is not there is no error")
	return cmd
}

// option is how each object is deleted.
func (f *deleteFlags) option() (objects.Option, error) {
	o := objects.Option{DryRun: f.dry.server()}
	switch f.cascade {
	case "background", "true":
	case "foreground":
		o.Propagation = kubepb.DeleteRequest_FOREGROUND
	case "orphan", "false":
		o.Propagation = kubepb.DeleteRequest_ORPHAN
	default:
		return o, usage("invalid cascade value (%s): must be background, foreground or orphan", f.cascade)
	}
	if f.form != "" && f.form != "name" {
		return o, usage("-o %s: of what is deleted only the name can be printed", f.form)
	}
	grace := f.grace
	switch {
	case f.now && grace >= 0:
		return o, usage("--now and --grace-period cannot be specified together")
	case f.now:
		grace = 1
	case f.force && grace > 0:
		return o, usage("--force and --grace-period greater than 0 cannot be specified together")
	case f.force:
		grace = 0
	case grace == 0:
		grace = 1 // As kubectl: to leave a node alone with its pod takes --force.
	}
	if grace >= 0 {
		o.Grace = &grace
	}
	return o, f.dry.check()
}

func (s *session) delete(ctx context.Context, f *deleteFlags, args []string) error {
	option, err := f.option()
	if err != nil {
		return err
	}
	if f.force {
		s.warn("Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.")
	}
	list, missing, err := s.doomed(ctx, f, args)
	if err != nil {
		return err
	}
	if len(list) == 0 && !missing && !f.ignoreNotFound {
		s.printf("No resources found\n")
		return nil
	}
	going, failed := s.deleteEach(ctx, f, list, option)
	if f.wait && f.dry.mode == "none" && !f.force {
		if err := s.awaitGone(ctx, f.timeout, going); err != nil {
			return err
		}
	}
	if missing || failed {
		return errSaid
	}
	return nil
}

// deleteEach deletes objects, and returns those that were. What failed has been said.
func (s *session) deleteEach(ctx context.Context, f *deleteFlags, list []api.Object, option objects.Option) (going []api.Object, failed bool) {
	for _, o := range list {
		err := s.deleteOne(ctx, f, o, option)
		switch {
		case err == nil:
			going = append(going, o)
		case !isNotFound(err) || !f.ignoreNotFound:
			fmt.Fprintln(s.Err, s.explain(nil, err))
			failed = true
		}
	}
	return going, failed
}

// doomed are the objects that a command means. Those that are not there have been
// said: missing.
func (s *session) doomed(ctx context.Context, f *deleteFlags, args []string) (list []api.Object, missing bool, err error) {
	found, spaces, err := s.meant(f, args)
	if err != nil {
		return nil, false, err
	}
	for i, t := range found {
		items, err := s.findIn(ctx, t, spaces[i], f.selection)
		switch {
		case err == nil:
			list = append(list, items...)
		case !isNotFound(err) || t.name == "":
			return nil, false, err
		case !f.ignoreNotFound:
			fmt.Fprintln(s.Err, s.explain(nil, err))
			missing = true
		}
	}
	return list, missing, nil
}

// meant is what arguments or files name, and in which namespaces.
func (s *session) meant(f *deleteFlags, args []string) (found []target, spaces []string, err error) {
	if len(f.files.names) > 0 || f.files.kustomize != "" {
		if len(args) > 0 || f.labels != "" || f.everything {
			return nil, nil, usage("-f names the objects: no KIND, -l or --all goes with it")
		}
		all, err := s.read(&f.files)
		for i := len(all) - 1; i >= 0; i-- { // What is in a namespace goes before it.
			found = append(found, target{api.KindOf(all[i].Object), all[i].Object.GetName()})
			spaces = append(spaces, all[i].Object.GetNamespace())
		}
		return found, spaces, err
	}
	if found, err = targets(args); err != nil {
		return nil, nil, err
	}
	for _, t := range found {
		if t.name == "" && f.labels == "" && f.fields == "" && !f.everything {
			return nil, nil, usage("%s: name the objects, or select them with -l, --field-selector or --all", t.kind.Resource)
		}
		spaces = append(spaces, s.spaceOf(t.kind))
	}
	return found, spaces, nil
}

// findIn is find with the namespace that a manifest says.
func (s *session) findIn(ctx context.Context, t target, namespace string, sel selection) ([]api.Object, error) {
	if t.name == "" || namespace == s.spaceOf(t.kind) {
		return s.find(ctx, []target{t}, sel)
	}
	o, err := ask(ctx, s, func(ctx context.Context) (api.Object, error) { return s.client.Get(ctx, t.kind, namespace, t.name) })
	return []api.Object{o}, err
}

func (s *session) deleteOne(ctx context.Context, f *deleteFlags, o api.Object, option objects.Option) error {
	k := api.KindOf(o)
	if !f.dry.client() {
		option.UID = string(o.GetUID())
		_, err := ask(ctx, s, func(ctx context.Context) (api.Object, error) {
			return s.client.Delete(ctx, k, o.GetNamespace(), o.GetName(), option)
		})
		if err != nil {
			return err
		}
	}
	if f.form == "name" {
		s.named([]api.Object{o})
		return nil
	}
	word := "deleted"
	if f.force {
		word = "force deleted"
	}
	where := ""
	if k.Namespaced {
		where = fmt.Sprintf(" from %s namespace", o.GetNamespace())
	}
	s.printf("%s \"%s\" %s%s%s\n", title(k), o.GetName(), word, where, f.dry.note())
	return nil
}

// gonePoll is how often it is looked whether objects are gone.
const gonePoll = 250 * time.Millisecond

// errWaited is that of a wait that took too long.
var errWaited = errors.New("timed out waiting for the condition")

// awaitGone returns once none of the objects is there, or is another of its name.
func (s *session) awaitGone(ctx context.Context, limit time.Duration, list []api.Object) error {
	begin := s.Clock.Mono()
	for _, o := range list {
		k := api.KindOf(o)
		for {
			now, err := ask(ctx, s, func(ctx context.Context) (api.Object, error) {
				return s.client.Get(ctx, k, o.GetNamespace(), o.GetName())
			})
			if isNotFound(err) || err == nil && now.GetUID() != o.GetUID() {
				break
			}
			if err != nil && !broken(err) {
				return err
			}
			if limit > 0 && s.Clock.Mono()-begin > limit {
				return fmt.Errorf("%w on %s: %s", errWaited, titled(o), whatHolds(now))
			}
			if err := s.sleep(ctx, gonePoll); err != nil {
				return err
			}
		}
	}
	return nil
}

// whatHolds says why an object that was deleted is still there.
func whatHolds(o api.Object) string {
	switch {
	case o == nil:
		return "the server does not answer"
	case len(o.GetFinalizers()) > 0:
		return fmt.Sprintf("it waits for the finalizers %v", o.GetFinalizers())
	case api.KindOf(o) == api.Pod:
		return "its node has not said yet that it ended; --force --grace-period=0 does not wait for the node"
	}
	return "it is still there"
}
