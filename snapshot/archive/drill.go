package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// DrillConfig is what a drill stands on.
type DrillConfig struct {
	FS       vfs.FS
	Scratch  string // An empty folder on a real disk, with room for the state. The caller removes it.
	Clock    clock.Clock
	Logger   hclog.Logger
	Timeline ident.Timeline // 0: the newest.
	By       string         // Who drills, for people.
}

// Drill is the result of restoring the newest point: verify/<time>.json.
type Drill struct {
	Format   int            `json:"format"`
	Cluster  UUID           `json:"cluster"`
	Timeline ident.Timeline `json:"timeline"`
	OK       bool           `json:"ok"`
	Error    string         `json:"error,omitempty"`
	By       string         `json:"by"`
	Began    string         `json:"began"`
	Took     string         `json:"took"`
	To       Point          `json:"to"`
	Base     string         `json:"base"` // Folder of the base that was used.
	Objects  int            `json:"objects"`
	Bytes    int64          `json:"bytes"` // Of the objects.
	Keys     int64          `json:"keys"`
	Sampled  int            `json:"sampled"` // Keys that were read back one by one.

	Name string `json:"-"` // Of the result in the archive.
}

// drillTime is the form of times in names.
const drillTime = "20060102T150405.000Z"

// Drill restores the newest point of a timeline into a scratch folder, with all
// that a restore verifies; opens what came, compares its digest, verifies base,
// and reads a sample of keys as a client would. The result is written down in
// the archive, also when it is bad.
func (a *Archive) Drill(ctx context.Context, cfg DrillConfig) (*Drill, error) {
	began, start := cfg.Clock.Wall().UTC(), cfg.Clock.Mono()
	d := &Drill{Format: FormatVersion, Cluster: a.cluster, Timeline: cfg.Timeline, By: cfg.By, Began: began.Format(time.RFC3339)}
	failure := a.drill(ctx, cfg, d)
	d.OK, d.Took = failure == nil, (cfg.Clock.Mono() - start).String()
	if failure != nil {
		d.Error = failure.Error()
	}
	if ctx.Err() != nil {
		return d, failure // Cut short: it shows nothing.
	}
	text, err := encodeText(d)
	if err == nil {
		d.Name = verifyFolder + began.Format(drillTime) + jsonSuffix
		_, err = a.store.Put(ctx, a.path(d.Name), text, blobstore.Condition{Absent: true})
	}
	if err != nil {
		err = fmt.Errorf("write down the result of the drill: %w", err)
	}
	return d, errors.Join(failure, err)
}

func (a *Archive) drill(ctx context.Context, cfg DrillConfig, d *Drill) error {
	p, err := a.Plan(ctx, cfg.Timeline, Target{kind: toLatest, text: "latest"})
	if err != nil {
		return err
	}
	d.Timeline, d.To, d.Base, d.Objects, d.Bytes = p.Timeline, p.To, p.folder, len(p.Objects), p.Bytes
	id := mvcc.Identity{Cluster: p.Base.ClusterID, Timeline: p.Timeline}
	store := mvcc.Config{FS: cfg.FS, Dir: filepath.Join(cfg.Scratch, "state"), Clock: cfg.Clock, Logger: cfg.Logger}
	if err := a.restoreInto(ctx, store, id, p); err != nil {
		return err
	}
	s, err := mvcc.Open(store)
	if err != nil {
		return err
	}
	return errors.Join(check(ctx, s, p, d), s.Close())
}

// sampleMax keys are read back in a drill.
const sampleMax = 1000

// check compares an opened store with what it has to be.
func check(ctx context.Context, s *mvcc.Store, p *Plan, d *Drill) error {
	st := s.Applied()
	if st.Position != p.To.Position() || Digest(st.Digest) != p.To.Digest || st.Revision != p.To.Revision {
		return fmt.Errorf("restored state is at %s, revision %d, digest %s; want %s, digest %s: %w", st.Position, st.Revision, st.Digest, p.To, p.To.Digest, ErrDisagree)
	}
	if _, err := s.Base().Verify(ctx, nil); err != nil {
		return err
	}
	v := s.View()
	defer v.Release()
	some, err := v.Range(ctx, mvcc.RangeArgs{Key: []byte{0}, End: []byte{0}, KeysOnly: true, Limit: sampleMax})
	if err != nil {
		return err
	}
	d.Keys = some.Count
	for _, kv := range some.KVs {
		key := keyOf(kv)
		one, err := v.Range(ctx, mvcc.RangeArgs{Key: key})
		if err != nil {
			return err
		}
		if len(one.KVs) != 1 || !bytes.Equal(keyOf(one.KVs[0]), key) {
			return fmt.Errorf("key %d of the sample is listed and not found: %w", d.Sampled, ErrDisagree)
		}
		d.Sampled++
	}
	return nil
}

// Drills returns the results of drills, oldest first; those that do not read are
// left out.
func (a *Archive) Drills(ctx context.Context, c *Catalogue) ([]*Drill, error) {
	var list []*Drill
	for _, name := range c.Drills {
		data, _, err := a.store.Get(ctx, a.path(name))
		if err != nil {
			return nil, fmt.Errorf("object %s: %w", name, err)
		}
		d := &Drill{Name: name}
		if decodeText(name, data, d) == nil {
			list = append(list, d)
		}
	}
	return list, nil
}

// keyOf returns the key that a KeyValue in wire form begins with.
func keyOf(kv []byte) []byte {
	row := &mvccpb.KeyValue{}
	if row.UnmarshalVT(kv) != nil {
		return nil
	}
	return row.Key
}
