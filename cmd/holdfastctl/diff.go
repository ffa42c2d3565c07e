package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// exitTrouble is diff(1)'s code when it could not compare; 1 says that there
// are differences.
const exitTrouble = 2

var diffForms = []string{formSimple, formTable, formJSON}

type diffFlags struct {
	archiveFlags
	prefix    string
	revisions []int64
	metadata  bool
}

func (c *ctl) diffCommand() *cobra.Command {
	var f diffFlags
	cmd := &cobra.Command{
		Use:   "diff <A> <B>",
		Short: "Tells which keys differ between two points: snapshots, points in time, running clusters",
		Long: `Compares the keys of two points. Each is a snapshot file, "live" for the cluster at
--endpoints, the URL of another one's endpoint (several with commas between), or "at:" and
a point in time within --archive, as --to of restore.

  holdfastctl diff yesterday.snap live --prefix /registry/
  holdfastctl diff live live --revision 1200,0     what has changed since revision 1200
  holdfastctl diff at:time=2026-11-28T09:00:00Z live --archive s3://backups/prod

In the form "simple" a line is + (only in B), - (only in A) or ~ (changed), and the key.
A key is changed when its value or lease is another; with --metadata also when only its
revisions or version are. Memory does not grow with the number of keys.

Exit code: 0 no difference, 1 differences, 2 trouble.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := c.diff(cmd.Context(), &f, args)
			var code *exitError
			if err != nil && !(errors.As(err, &code) && code.err == nil) {
				err = exit(exitTrouble, err)
			}
			return err
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit(exitTrouble, err) })
	f.archiveFlags.declare(cmd.Flags())
	cmd.Flags().StringVar(&f.prefix, "prefix", "", "compare only keys that begin with this")
	cmd.Flags().Int64SliceVar(&f.revisions, "revision", nil, "revisions of the running clusters among A and B, in their order; 0 is now")
	cmd.Flags().BoolVar(&f.metadata, "metadata", false, "revisions and versions of keys count as well")
	return cmd
}

func (c *ctl) diff(ctx context.Context, f *diffFlags, args []string) error {
	if len(args) != 2 {
		return badArguments("diff takes two points: files, URLs, or the word live")
	}
	if err := c.needForm(diffForms...); err != nil {
		return err
	}
	revisions := f.revisions
	var streams [2]keyStream
	for i, word := range args {
		var err error
		at, inArchive := strings.CutPrefix(word, archivePoint)
		switch {
		case inArchive:
			streams[i], err = openFileKeys(ctx, pointOrigin(&f.archiveFlags, at), f.prefix)
		case isLive(word):
			revision := int64(0)
			if len(revisions) > 0 {
				revision, revisions = revisions[0], revisions[1:]
			}
			streams[i], err = c.openLiveKeys(word, f.prefix, revision)
		default:
			streams[i], err = openFileKeys(ctx, fileOrigin(word), f.prefix)
		}
		if err != nil {
			return err
		}
		defer streams[i].close()
	}
	if len(revisions) > 0 {
		return badArguments("--revision: %d more than there are running clusters among the two points; a file has one revision", len(revisions))
	}
	out := &diffOutput{c: c}
	same := func(a, b *mvccpb.KeyValue) bool { return sameKey(a, b, f.metadata) }
	if err := differences(ctx, streams[0], streams[1], same, out.add); err != nil {
		return err
	}
	if err := out.end(); err != nil {
		return err
	}
	if out.added+out.changed+out.removed > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

// diffOutput prints differences as they are found.
type diffOutput struct {
	c     *ctl
	table *grid
	begun bool

	added, changed, removed int64
}

// differences walks both streams in step and tells what is in one of them only,
// the other being nil, or not the same in both.
func differences(ctx context.Context, a, b keyStream, same func(a, b *mvccpb.KeyValue) bool, tell func(a, b *mvccpb.KeyValue) error) error {
	left, err := a.next(ctx)
	if err != nil {
		return err
	}
	right, err := b.next(ctx)
	for err == nil && (left != nil || right != nil) {
		order := 0
		switch {
		case left == nil:
			order = 1
		case right == nil:
			order = -1
		default:
			order = bytes.Compare(left.Key, right.Key)
		}
		switch {
		case order < 0:
			err = tell(left, nil)
		case order > 0:
			err = tell(nil, right)
		case !same(left, right):
			err = tell(left, right)
		}
		if err == nil && order <= 0 {
			left, err = a.next(ctx)
		}
		if err == nil && order >= 0 {
			right, err = b.next(ctx)
		}
	}
	return err
}

func sameKey(a, b *mvccpb.KeyValue, metadata bool) bool {
	return bytes.Equal(a.Value, b.Value) && a.Lease == b.Lease &&
		(!metadata || a.CreateRevision == b.CreateRevision && a.ModRevision == b.ModRevision && a.Version == b.Version)
}

// add counts and prints a difference.
func (o *diffOutput) add(a, b *mvccpb.KeyValue) error {
	switch {
	case b == nil:
		o.removed++
		return o.print("-", "removed", a, nil)
	case a == nil:
		o.added++
		return o.print("+", "added", nil, b)
	}
	o.changed++
	return o.print("~", "changed", a, b)
}

// diffJSON is one difference; a or b is absent where the key does not exist.
type diffJSON struct {
	Change string      `json:"change"`
	Key    []byte      `json:"key"`
	A      *diffKVJSON `json:"a,omitempty"`
	B      *diffKVJSON `json:"b,omitempty"`
}

type diffKVJSON struct {
	CreateRevision int64  `json:"create_revision"`
	ModRevision    int64  `json:"mod_revision"`
	Version        int64  `json:"version"`
	Value          []byte `json:"value"`
	Lease          int64  `json:"lease,omitempty"`
}

func toDiffJSON(kv *mvccpb.KeyValue) *diffKVJSON {
	if kv == nil {
		return nil
	}
	return &diffKVJSON{kv.CreateRevision, kv.ModRevision, kv.Version, kv.Value, kv.Lease}
}

// tableRowsMax are put into one table: what comes after is a table of its own,
// so that memory does not grow with the differences.
const tableRowsMax = 1000

func (o *diffOutput) print(sign, word string, a, b *mvccpb.KeyValue) error {
	key := a.GetKey()
	if a == nil {
		key = b.GetKey()
	}
	p := &page{hex: o.c.globals.hex}
	switch o.c.globals.form {
	case formSimple:
		p.line(sign, p.text(key))
	case formJSON:
		line, err := json.Marshal(diffJSON{word, key, toDiffJSON(a), toDiffJSON(b)})
		if err != nil {
			return err
		}
		if o.begun {
			p.printf(",\n")
		} else {
			p.printf("{\"changes\":[\n")
		}
		p.Write(line)
	case formTable:
		if o.table == nil {
			o.table = &grid{head: []string{"change", "key", "revision in a", "revision in b", "bytes in a", "bytes in b"}}
		}
		o.table.add(word, p.text(key), cell(a, a.GetModRevision()), cell(b, b.GetModRevision()), cell(a, int64(len(a.GetValue()))), cell(b, int64(len(b.GetValue()))))
		if len(o.table.rows) >= tableRowsMax {
			return o.flushTable()
		}
	}
	o.begun = true
	return o.write(p)
}

// cell is a number in a table, empty where there is no key.
func cell(kv *mvccpb.KeyValue, n int64) string {
	if kv == nil {
		return ""
	}
	return fmt.Sprint(n)
}

func (o *diffOutput) flushTable() error {
	p := &page{}
	p.table(o.table)
	o.table = nil
	return errors.Join(p.err, o.write(p))
}

func (o *diffOutput) write(p *page) error {
	if _, err := o.c.out.Write(p.Bytes()); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// end prints what comes after the last difference.
func (o *diffOutput) end() error {
	switch o.c.globals.form {
	case formTable:
		if o.table != nil {
			return o.flushTable()
		}
	case formJSON:
		p := &page{}
		if !o.begun {
			p.printf("{\"changes\":[")
		}
		p.printf("],\"added\":%d,\"changed\":%d,\"removed\":%d}\n", o.added, o.changed, o.removed)
		return o.write(p)
	}
	return nil
}
