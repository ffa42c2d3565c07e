package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// Inspection prints lines for people, or a JSON object a line.
var inspectForms = []string{formSimple, formJSON}

func (c *ctl) inspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect <subcommand>",
		Short: "Verifies and shows what lies in files of a stopped member, or in an archive",
		Long: `Verifies every byte of what a member has written, and shows what is there. The
member must be stopped, but not for its archive. Nothing is changed. Damage ends the
command with exit code 1 and the file, the offset and the mend.
`,
	}
	cmd.AddCommand(c.inspectWALCommand(), c.inspectHistoryCommand(), c.inspectBackendCommand(), c.inspectSnapshotCommand(), c.inspectDatadirCommand(), c.inspectArchiveCommand(), c.inspectCheckpointsCommand())
	return cmd
}

// inspected is what a path has to be.
type inspected struct {
	what         string
	folder, file bool
}

// inspectVerb makes a subcommand with one path as its argument.
func (c *ctl) inspectVerb(name string, of inspected, short string, run func(ctx context.Context, path string) error) *cobra.Command {
	return &cobra.Command{
		Use:   name + " <" + of.what + ">",
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("%s takes one path", cmd.CommandPath())
			}
			if err := c.needForm(inspectForms...); err != nil {
				return err
			}
			info, err := vfs.OS().Stat(args[0])
			if err != nil {
				return exit(exitFailed, err)
			}
			switch {
			case info.IsDir && !of.folder:
				return exit(exitFailed, fmt.Errorf("%s is a folder: name the %s", args[0], of.what))
			case !info.IsDir && !of.file:
				return exit(exitFailed, fmt.Errorf("%s is a file: name the %s", args[0], of.what))
			}
			return exit(exitFailed, mended(run(cmd.Context(), args[0])))
		},
	}
}

// mended adds to a report of damage what to do about it.
func mended(err error) error {
	var log *wal.DamageError
	var hist *history.DamageError
	if !errors.As(err, &log) && !errors.As(err, &hist) && !errors.Is(err, backend.ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w; keep the directory. Where the other members still are a quorum: 'member remove' this one and 'member add' it anew, "+
		"with an empty data directory. Else: 'repair' it where base or history is damaged, or 'snapshot restore' the newest snapshot", err)
}

// opened is a data directory that nobody else uses while it is looked at.
type opened struct {
	dir        *datadir.Dir
	identity   datadir.Identity
	generation int
}

// holdsMember reports whether a path is a data directory. What cannot be looked at, as one
// of another user, is not said to be none.
func holdsMember(path string) (bool, error) {
	info, err := vfs.OS().Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return datadir.Holds(vfs.OS(), path)
}

// openDataDir opens a data directory, or returns nil for a folder or file that is none.
func openDataDir(path string) (*opened, error) {
	there, err := holdsMember(path)
	if err != nil || !there {
		return nil, err
	}
	dir, err := datadir.Open(vfs.OS(), path)
	if err != nil {
		return nil, err
	}
	o := &opened{dir: dir}
	if o.identity, err = dir.Identity(); err == nil {
		o.generation, err = dir.Current()
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return o, nil
}

func (o *opened) history() string { return filepath.Join(o.dir.Generation(o.generation), "history") }
func (o *opened) base() string    { return filepath.Join(o.dir.Generation(o.generation), "base.db") }

// another is what a folder is that has nothing of what was looked for. It is not damage,
// whose mend is to give a member up.
func another(path, what string) error {
	return fmt.Errorf("%s: no %s in this folder: name the --data-dir of a member, or the folder in it", path, what)
}

// within runs fn with what a path stands for: a part of a data directory, or the
// path itself.
func within(path string, part func(*opened) string, fn func(path string) error) error {
	o, err := openDataDir(path)
	if err != nil {
		return err
	}
	if o == nil {
		return fn(path)
	}
	return errors.Join(fn(part(o)), o.dir.Close())
}

// show prints one thing found.
func (c *ctl) show(text string, v any) error {
	return c.print(answer{simple: func(p *page) { p.line(text) }, json: v})
}

func (c *ctl) inspectWALCommand() *cobra.Command {
	return c.inspectVerb("wal", inspected{what: "data-dir or log folder", folder: true}, "Shows the Raft log: segments, and the records in them", func(_ context.Context, path string) error {
		return within(path, func(o *opened) string { return o.dir.WAL() }, func(dir string) error {
			records, bytes := 0, int64(0)
			err := wal.Verify(vfs.OS(), dir, func(i wal.Info) error {
				bytes += i.Bytes
				if i.Record() {
					records++
				}
				return c.show(fmt.Sprintf("%s %9d %7d  %-10s %s  %s", filepath.Base(i.File), i.Offset, i.Bytes, i.Kind, i.Mark, i.Detail), struct {
					File    string `json:"file"`
					Offset  int64  `json:"offset"`
					Bytes   int64  `json:"bytes"`
					Kind    string `json:"kind"`
					Index   uint64 `json:"index"`
					Term    uint64 `json:"term"`
					Durable int64  `json:"durable"`
					Detail  string `json:"detail"`
				}{filepath.Base(i.File), i.Offset, i.Bytes, i.Kind, uint64(i.Mark.Index), uint64(i.Mark.Term), i.Synced, i.Detail})
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.err, "%s is whole: %d records, %s\n", dir, records, sizeText(bytes))
			return nil
		})
	})
}

func (c *ctl) inspectHistoryCommand() *cobra.Command {
	var keys bool
	cmd := c.inspectVerb("history", inspected{what: "data-dir or history folder", folder: true}, "Shows the history: what each entry of the log has changed", func(_ context.Context, path string) error {
		return within(path, (*opened).history, func(dir string) error {
			records := 0
			end, err := history.Verify(vfs.OS(), dir, func(f history.Found) error {
				records++
				return c.showRecord(f, keys)
			})
			if d := (*history.DamageError)(nil); errors.As(err, &d) && dir == path && d.File == dir { // There is no segment.
				return another(dir, "history")
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(c.err, "%s is whole: %d records, end %s\n", dir, records, end)
			return nil
		})
	})
	cmd.Flags().BoolVar(&keys, "keys", false, "show also the keys that changed; values are never shown")
	return cmd
}

type mutationJSON struct {
	Kind  string `json:"kind"`
	Table uint8  `json:"table,omitempty"`
	Key   []byte `json:"key"`
}

type groupJSON struct {
	Ordinal   uint32         `json:"ordinal"`
	Revision  int64          `json:"revision,omitempty"`
	Digest    string         `json:"digest"`
	Mutations int            `json:"mutations"`
	Keys      []mutationJSON `json:"keys,omitempty"`
}

var mutationNames = map[history.Kind]string{
	history.KeyPut: "put", history.KeyDelete: "delete", history.RowPut: "row", history.RowDelete: "row gone", history.Compact: "compact",
}

func (c *ctl) showRecord(f history.Found, keys bool) error {
	r := f.Record
	at := time.Unix(0, r.Time).UTC().Format("2006-01-02T15:04:05.000000Z")
	text := fmt.Sprintf("%s %9d %7d  index %d term %d %s", f.File, f.Offset, f.Bytes, r.Index, r.Term, at)
	groups := make([]groupJSON, len(r.Groups))
	for i := range r.Groups {
		g := &r.Groups[i]
		j := groupJSON{Ordinal: g.Ordinal, Revision: int64(g.Revision), Digest: g.Digest.String(), Mutations: len(g.Mutations)}
		text += fmt.Sprintf("\n    %d: revision %d, %d mutations, digest %s", g.Ordinal, g.Revision, len(g.Mutations), g.Digest)
		for k := range g.Mutations {
			if m := &g.Mutations[k]; keys {
				j.Keys = append(j.Keys, mutationJSON{mutationNames[m.Kind], uint8(m.Table), m.Key})
				text += fmt.Sprintf("\n        %s %q", mutationNames[m.Kind], m.Key)
			}
		}
		groups[i] = j
	}
	return c.show(text, struct {
		File   string      `json:"file"`
		Offset int64       `json:"offset"`
		Bytes  int64       `json:"bytes"`
		Index  uint64      `json:"index"`
		Term   uint64      `json:"term"`
		Time   string      `json:"time"`
		Groups []groupJSON `json:"groups"`
	}{f.File, f.Offset, f.Bytes, uint64(r.Index), uint64(r.Term), at, groups})
}
