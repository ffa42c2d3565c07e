package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/snapshot/archive"
)

func (c *ctl) inspectArchiveCommand() *cobra.Command {
	var f archiveFlags
	cmd := &cobra.Command{
		Use:   "archive <URL>",
		Short: "Verifies every object of an archive and shows what it is",
		Long: `Reads every byte of every object of an archive, and shows what each is: a base, a piece
of one, a segment of the log, and the entries of the log that it holds. All checksums are
verified, that each object is what its name says, that the pieces of a base add up, and
that no two objects tell of different pasts. Damage is named with object and offset, and
ends the command with exit code 1. Of encrypted objects without --identity what is stored
is verified, and the content is not seen. Whether a restore works is what 'archive verify'
shows.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("inspect archive takes one URL: file:///folder or s3://bucket/prefix?region=…&endpoint=…")
			}
			if err := c.needForm(inspectForms...); err != nil {
				return err
			}
			f.url = args[0]
			a, store, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer store.Close()
			return exit(exitFailed, c.inspectArchive(cmd.Context(), a, f.url))
		},
	}
	f.declareObjects(cmd.Flags())
	return cmd
}

type foundJSON struct {
	Object   string `json:"object"`
	Kind     string `json:"kind"`
	Timeline uint64 `json:"timeline,omitempty"`
	First    uint64 `json:"first,omitempty"`
	Last     uint64 `json:"last,omitempty"`
	Revision int64  `json:"revision,omitempty"`
	Bytes    int64  `json:"bytes"`
	Note     string `json:"note,omitempty"`
	Sealed   bool   `json:"sealed,omitempty"`
	Error    string `json:"error,omitempty"`
}

func (c *ctl) inspectArchive(ctx context.Context, a *archive.Archive, url string) error {
	var objects, damaged, sealed int
	var bytes int64
	var first error
	cat, err := a.Inspect(ctx, func(f archive.Found) error {
		objects, bytes = objects+1, bytes+f.Bytes
		if f.Sealed {
			sealed++
		}
		if f.Err != nil {
			damaged++
			if first == nil {
				first = f.Err
			}
		}
		return c.showFound(&f)
	})
	if err != nil {
		return err
	}
	for _, t := range cat.Timelines {
		for _, gap := range gapsOf(t) {
			fmt.Fprintf(c.err, "missing: %s\n", gap)
		}
	}
	if sealed > 0 {
		fmt.Fprintf(c.err, "%d objects are encrypted and none of the identities opens them: what is stored of them was verified, not what they say\n", sealed)
	}
	if damaged > 0 {
		return fmt.Errorf("%d of %d objects are damaged, missing or at odds: %w; what lies behind them up to the next base can not be restored, 'backup ls' shows the bases. "+
			"Take a 'snapshot save' now, and copy the objects back from where the store keeps older versions or replicas", damaged, objects, first)
	}
	fmt.Fprintf(c.err, "%s is whole: %d objects, %s\n", url, objects, sizeText(bytes))
	return nil
}

func (c *ctl) showFound(f *archive.Found) error {
	j := foundJSON{
		Object: f.Name, Kind: f.Kind, Timeline: uint64(f.Timeline), First: uint64(f.First), Last: uint64(f.Last), Revision: int64(f.Revision),
		Bytes: f.Bytes, Note: f.Note, Sealed: f.Sealed,
	}
	text := fmt.Sprintf("%-9s %10d  %s", f.Kind, f.Bytes, f.Name)
	switch {
	case f.First > 0:
		text += fmt.Sprintf("  entries %d to %d", f.First, f.Last)
	case f.Last > 0:
		text += fmt.Sprintf("  through entry %d", f.Last)
	}
	if f.Revision > 0 {
		text += fmt.Sprintf(", revision %d", f.Revision)
	}
	if f.Note != "" {
		text += "  (" + f.Note + ")"
	}
	if f.Err != nil {
		j.Error = f.Err.Error()
		text += "\n    DAMAGED: " + j.Error
	}
	return c.show(text, j)
}
