package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// fact is one thing known, for people and for programs.
type fact struct {
	name  string
	value any
}

// facts prints a list of things known about one file.
func (c *ctl) facts(list []fact) error {
	values := make(map[string]any, len(list))
	for _, f := range list {
		values[f.name] = f.value
	}
	return c.print(answer{json: values, simple: func(p *page) {
		for _, f := range list {
			p.printf("%-16s %v\n", f.name, f.value)
		}
	}})
}

func (c *ctl) inspectBackendCommand() *cobra.Command {
	return c.inspectVerb("backend", inspected{what: "data-dir or base.db", folder: true, file: true}, "Verifies the base, row by row, and shows what state it holds", func(ctx context.Context, path string) error {
		return within(path, (*opened).base, func(file string) error {
			if info, err := vfs.OS().Stat(file); err == nil && info.IsDir {
				return another(file, "base.db")
			}
			meta, report, err := c.verifyBase(ctx, file)
			if err != nil {
				return err
			}
			return c.facts([]fact{
				{"file", file},
				{"cluster", meta.Cluster.String()}, {"timeline", meta.Timeline},
				{"applied", meta.Applied.String()}, {"term", meta.Term}, {"revision", meta.Revision},
				{"merged", meta.Merged.Position.String()}, {"merged-revision", meta.Merged.Revision},
				{"compacted", meta.Compacted.Revision}, {"digest", meta.Digest.String()},
				{"transaction", report.TxID}, {"keys", report.Rows}, {"long-keys", report.LongRows},
				{"small-rows", report.SmallRows}, {"keys-on-leases", report.LeaseRows},
				{"state-hash", fmt.Sprintf("%x", report.StateHash)}, {"bytes", report.Bytes}, {"free-bytes", report.FreeBytes},
			})
		})
	})
}

// verifyBase reads a whole base.
func (c *ctl) verifyBase(ctx context.Context, file string) (meta backend.Meta, report backend.Report, err error) {
	db, err := backend.Open(backend.Config{FS: vfs.OS(), Path: file, Logger: c.logger()})
	if err != nil {
		return meta, report, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	report, err = db.Verify(ctx, nil)
	return db.Meta(), report, err
}

func (c *ctl) inspectSnapshotCommand() *cobra.Command {
	var skipHash bool
	cmd := c.inspectVerb("snapshot", inspected{what: "file", file: true}, "Verifies a snapshot and shows what it holds", func(ctx context.Context, path string) error {
		s, err := c.statusOf(ctx, path, skipHash)
		if err != nil {
			return err
		}
		j := snapshotToJSON(s)
		list := []fact{
			{"file", path}, {"version", j.Version}, {"bytes", s.Bytes},
			{"cluster", j.Cluster}, {"timeline", j.Timeline}, {"made-by", fmt.Sprintf("%x", s.Header.MemberId)},
			{"applied", j.Position}, {"term", j.Term}, {"revision", j.Revision}, {"compacted", j.Compacted},
			{"digest", j.Digest}, {"keys", s.Keys}, {"base-rows", s.Rows}, {"history-records", s.Records},
			{"leases", s.Leases}, {"users", s.Users}, {"roles", s.Roles}, {"alarms", s.Alarms},
		}
		for i, m := range s.Members {
			list = append(list, fact{fmt.Sprintf("member-%d", i+1), fmt.Sprintf("%x %s %v", m.Id, m.Name, m.PeerUrls)})
		}
		return c.facts(list)
	})
	cmd.Flags().BoolVar(&skipHash, "skip-hash-check", false, "accept a snapshot without the integrity hash at its end")
	return cmd
}

func (c *ctl) inspectDatadirCommand() *cobra.Command {
	var walDir string
	cmd := c.inspectVerb("datadir", inspected{what: "data-dir", folder: true}, "Verifies a whole data directory and shows who lives there", func(ctx context.Context, path string) error {
		o, err := openDataDir(path)
		if err != nil {
			return err
		}
		if o == nil {
			return fmt.Errorf("%s holds no member: name the --data-dir of one", path)
		}
		return errors.Join(c.inspectDatadir(ctx, o, walDir), o.dir.Close())
	})
	cmd.Flags().StringVar(&walDir, "wal-dir", "", "where the log is, if it is elsewhere")
	return cmd
}

// inspectDatadir verifies all parts, also those after a damaged one.
func (c *ctl) inspectDatadir(ctx context.Context, o *opened, walDir string) error {
	if walDir == "" {
		walDir = o.dir.WAL()
	}
	var last wal.Mark
	records := 0
	logErr := wal.Verify(vfs.OS(), walDir, func(i wal.Info) error {
		if i.Kind == "entry" {
			last = i.Mark
		}
		if i.Record() {
			records++
		}
		return nil
	})
	changes := 0
	end, historyErr := history.Verify(vfs.OS(), o.history(), func(history.Found) error {
		changes++
		return nil
	})
	meta, report, baseErr := c.verifyBase(ctx, o.base())
	verdict := func(err error, text string) string {
		if err != nil {
			return "damaged"
		}
		return text
	}
	err := c.facts([]fact{
		{"path", o.dir.Path()},
		{"cluster", o.identity.Cluster.String()}, {"member", o.identity.Member.String()}, {"timeline", o.identity.Timeline},
		{"incarnation", fmt.Sprintf("%x", o.identity.Incarnation)}, {"generation", o.generation},
		{"log", verdict(logErr, fmt.Sprintf("whole, %d records, last entry %s", records, last))},
		{"history", verdict(historyErr, fmt.Sprintf("whole, %d records, end %s", changes, end))},
		{"base", verdict(baseErr, fmt.Sprintf("whole, %d keys, applied %s, revision %d", report.Rows, meta.Applied, meta.Revision))},
	})
	return errors.Join(err, logErr, historyErr, baseErr)
}
