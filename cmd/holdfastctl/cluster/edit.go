package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/kube/api"
)

func (s *session) editCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "edit KIND NAME | KIND/NAME",
		Short: "Opens an object in an editor ($KUBE_EDITOR, $EDITOR, vi) and stores what was changed",
		RunE: s.connected(func(ctx context.Context, args []string) error {
			t, err := one(args)
			if err != nil {
				return err
			}
			return s.edit(ctx, t)
		}),
	}
}

const editHead = `# Edit the object below. Lines that begin with # are ignored. An empty file, or one
# without a change, changes nothing. What is stored is what the cluster honours: a
# field that it does not is refused with its line.
#
`

func (s *session) edit(ctx context.Context, t target) error {
	o, err := s.get(ctx, t)
	if err != nil {
		return err
	}
	text, err := document("yaml", []api.Object{o}, true)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "holdfastctl-edit-") // 0700: it may hold a Secret.
	if err != nil {
		return err
	}
	path := filepath.Join(folder, t.name+".yaml")
	before := append([]byte(editHead), text...)
	if err := os.WriteFile(path, before, 0o600); err != nil {
		return err
	}
	if err := s.openEditor(ctx, path); err != nil {
		return errors.Join(err, os.RemoveAll(folder))
	}
	after, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if bytes.Equal(bytes.TrimSpace(after), bytes.TrimSpace(before)) || len(bytes.TrimSpace(after)) == 0 {
		s.printf("Edit cancelled, no changes made.\n")
		return os.RemoveAll(folder)
	}
	if err := s.store(ctx, o, after, path); err != nil {
		return fmt.Errorf("%w\nWhat you wrote is kept in %s", err, path)
	}
	return os.RemoveAll(folder)
}

func (s *session) openEditor(ctx context.Context, path string) error {
	editor := "vi"
	for _, name := range []string{"KUBE_EDITOR", "EDITOR"} {
		if e := s.Getenv(name); e != "" {
			editor = e
			break
		}
	}
	// The variable may hold flags, as in "code --wait": a shell takes it apart.
	cmd := exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "sh", path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.In, Terminal(s.Out), s.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the editor %q failed: %w; choose another with EDITOR", editor, err)
	}
	return nil
}

// store replaces an object by what was written, unless it changed meanwhile.
func (s *session) store(ctx context.Context, old api.Object, text []byte, path string) error {
	found, err := api.ReadManifests(bytes.NewReader(text), path)
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%s holds %d objects: one was to be edited", path, len(found))
	}
	s.warn(found[0].Warnings...)
	o := found[0].Object
	if api.KindOf(o) != api.KindOf(old) || o.GetName() != old.GetName() || o.GetNamespace() != old.GetNamespace() {
		return fmt.Errorf("kind, name and namespace of an object cannot be edited: create another with 'create -f'")
	}
	if api.KindOf(o) == api.Secret { // It was not shown.
		if note, ok := old.GetAnnotations()[api.LastApplied]; ok {
			o.SetAnnotations(with(o.GetAnnotations(), api.LastApplied, note))
		}
	}
	o.SetResourceVersion(old.GetResourceVersion())
	ctx, cancel := s.within(ctx)
	defer cancel()
	if _, _, err := s.client.Update(ctx, o); err != nil {
		return err
	}
	s.printf("%s edited\n", titled(o))
	return nil
}
