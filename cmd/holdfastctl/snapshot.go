package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/snapshot"
)

// pieceBytes of a snapshot are read and written at a time.
const pieceBytes = 256 << 10

func (c *ctl) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot <subcommand>", Short: "Saves, checks and restores snapshots, and exchanges them with etcd"}
	cmd.AddCommand(c.snapshotSaveCommand(), c.snapshotStatusCommand(), c.snapshotRestoreCommand())
	cmd.AddCommand(c.textOnly(c.snapshotImportCommand(), c.snapshotExportCommand())...)
	return cmd
}

func (c *ctl) snapshotSaveCommand() *cobra.Command {
	var dataDir, walDir string
	cmd := &cobra.Command{
		Use:   "save <filename>",
		Short: "Stores a snapshot of a member in a file",
		Long: `Stores a snapshot of the member at the endpoint, or of a stopped member's data directory.

The file gets its name only when every byte of it is there, checked and durable.
Without --command-timeout it may take as long as it needs.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("snapshot save expects one argument <filename>")
			}
			if info, err := vfs.OS().Stat(args[0]); err == nil && info.IsDir { // Else it is found when all has come.
				return exit(exitInterrupted, fmt.Errorf("save snapshot as %s: this is a folder: name a file in it", args[0]))
			}
			ctx := cmd.Context()
			if cmd.Flags().Lookup("command-timeout").Changed {
				limited, cancel := c.limited(ctx)
				defer cancel()
				ctx = limited
			}
			if dataDir != "" {
				return c.saveDir(ctx, snapshot.DirSource{DataDir: dataDir, WALDir: walDir}, args[0])
			}
			if walDir != "" {
				return badArguments("--wal-dir goes with --data-dir")
			}
			return c.saveStream(ctx, args[0])
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "save this data directory of a stopped member, not the member at the endpoint")
	cmd.Flags().StringVar(&walDir, "wal-dir", "", "where that member's log is, if it is elsewhere")
	return cmd
}

// saveStream saves what a member sends.
func (c *ctl) saveStream(ctx context.Context, file string) error {
	if len(c.globals.endpoints) != 1 {
		return exit(exitInterrupted, fmt.Errorf("snapshot must be requested to one selected node, not multiple %v", c.globals.endpoints))
	}
	cl, err := c.quickClient(c.globals.endpoints...)
	if err != nil {
		return err
	}
	defer cl.Close()
	stream, err := cl.Snapshot(ctx)
	if err != nil {
		return exit(exitInterrupted, err)
	}
	defer stream.Close()
	bar := c.progress("saving", int64(stream.Remaining))
	piece := make([]byte, pieceBytes)
	next := func() ([]byte, error) {
		n, err := stream.Read(piece)
		if n > 0 && errors.Is(err, io.EOF) {
			err = nil
		}
		return piece[:n], err
	}
	_, err = snapshot.Save(ctx, vfs.OS(), file, next, func(bytes int64) { bar.set(bytes, bytes+int64(stream.Remaining)) })
	bar.done()
	if err != nil {
		return exit(exitInterrupted, err)
	}
	fmt.Fprintf(c.out, "Snapshot saved at %s\n", file)
	if stream.Version != "" {
		fmt.Fprintf(c.out, "Server version %s\n", stream.Version)
	}
	return nil
}

// saveDir saves what a stopped member has left.
func (c *ctl) saveDir(ctx context.Context, src snapshot.DirSource, file string) error {
	src.FS, src.Clock, src.Logger = vfs.OS(), clock.Real(), c.logger()
	bar := c.progress("saving", -1)
	report, err := snapshot.SaveFromDir(ctx, src, file, snapshot.WriteOptions{
		MadeUnixNano: src.Clock.Wall().UnixNano(), Progress: func(t snapshot.Totals) { bar.set(t.Bytes, -1) },
	})
	bar.done()
	if err != nil {
		return exit(exitFailed, err)
	}
	fmt.Fprintf(c.out, "Snapshot saved at %s\nRevision %d, log position %s\n", file, report.Revision, report.Position)
	if report.Uncertain > 0 {
		fmt.Fprintf(c.err, "Warning: %d entries of the log are left out: this member alone cannot tell whether they were committed.\n"+
			"If other members' directories are there, save from each and take the one with the highest position.\n", report.Uncertain)
	}
	return nil
}

func (c *ctl) snapshotStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status <filename>",
		Short: "Verifies every byte of a snapshot and tells what it holds",
		Long: `In the form "simple" the line is: hash, revision, total keys, total size, version.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("snapshot status requires exactly one argument")
			}
			if err := c.needForm(endpointForms...); err != nil {
				return err
			}
			s, err := c.statusOf(cmd.Context(), args[0], false)
			if err != nil {
				return err
			}
			a := snapshotAnswer(s)
			if c.is(etcdutl) {
				a.json = snapshotToJSON(s).snapshotStatusJSON
			}
			return c.print(a)
		},
	}
}

func (c *ctl) statusOf(ctx context.Context, file string, skipHash bool) (*snapshot.Status, error) {
	bar := c.progress("verifying", -1)
	s, err := snapshot.StatusOf(ctx, vfs.OS(), file, snapshot.StatusOptions{SkipHashCheck: skipHash, Progress: bar.set})
	bar.done()
	return s, exit(exitFailed, err)
}

// snapshotStatusJSON is what etcdutl tells of a snapshot.
type snapshotStatusJSON struct {
	Hash      uint32 `json:"hash"` // The first bytes of the digest over everything that ever changed.
	Revision  int64  `json:"revision"`
	TotalKey  int64  `json:"totalKey"`
	TotalSize int64  `json:"totalSize"`
	Version   string `json:"version"`
}

// snapshotJSON begins as that.
type snapshotJSON struct {
	snapshotStatusJSON
	Digest    string `json:"digest"`
	Cluster   string `json:"cluster"`
	Timeline  uint64 `json:"timeline"`
	Position  string `json:"position"`
	Term      uint64 `json:"term"`
	Compacted int64  `json:"compacted"`
	Leases    int    `json:"leases"`
	Members   int    `json:"members"`
}

func snapshotToJSON(s *snapshot.Status) snapshotJSON {
	h := s.Header
	j := snapshotJSON{
		snapshotStatusJSON: snapshotStatusJSON{
			Revision: h.Revision, TotalKey: s.Keys, TotalSize: s.Bytes, Version: fmt.Sprintf("holdfast-%d", h.Format),
		},
		Digest: fmt.Sprintf("%x", h.Digest), Cluster: fmt.Sprintf("%x", h.ClusterId), Timeline: h.Timeline.GetNumber(),
		Position: fmt.Sprintf("%d.%d", h.Applied.GetIndex(), h.Applied.GetGroup()), Term: h.Term,
		Compacted: h.Compacted.GetRevision(), Leases: s.Leases, Members: len(s.Members),
	}
	for _, b := range h.Digest[:min(4, len(h.Digest))] {
		j.Hash = j.Hash<<8 | uint32(b)
	}
	return j
}

func snapshotAnswer(s *snapshot.Status) answer {
	j := snapshotToJSON(s)
	table := &grid{head: []string{"hash", "revision", "total keys", "total size", "version"}}
	table.add(fmt.Sprintf("%x", j.Hash), fmt.Sprint(j.Revision), fmt.Sprint(j.TotalKey), sizeText(j.TotalSize), j.Version)
	return answer{table: table, json: j, fields: func(p *page) {
		p.field("Hash", j.Hash)
		p.field("Revision", j.Revision)
		p.field("Keys", j.TotalKey)
		p.field("Size", j.TotalSize)
		p.field("Version", j.Version)
	}}
}

// absolute is for texts that shall hold wherever they are pasted.
func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}
