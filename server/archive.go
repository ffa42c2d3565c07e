package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/snapshot/archive"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// Modes of the archive.
const (
	// ArchiveAsync answers writes without waiting for the archive.
	ArchiveAsync = "async"
	// ArchiveSync answers a write once it is in the archive.
	ArchiveSync = "sync"
)

// archiving is this member's part in the archive, if there is one.
type archiving struct {
	store  blobstore.Store // Nil: there is no archive.
	writer atomic.Pointer[archive.Writer]
	begun  chan struct{} // Closed once there is a writer.

	drills, drillFailures atomic.Int64
	drilled               atomic.Int64 // Wall clock of the last good drill, in seconds.
	syncTakes             atomic.Int64 // What a sync of the Raft log takes of late, in nanoseconds.
	alarm                 atomic.Pointer[archiveAlarm]
	refused               atomic.Bool // The store does not keep conditions: nothing is archived.
}

// archiveAlarm is what an operator was told last. What goes on is told again and
// again, what happened once is shown for archiveAlarmShown.
type archiveAlarm struct {
	what error
	at   time.Duration // By the monotonic clock.
}

// alarms in words, for Status. They are no rows of the table of alarms: its kinds
// are the protocol's, clients know no others, and each of them keeps members from
// writing.
func (a *archiving) alarms(now time.Duration) (list []string) {
	if a.refused.Load() {
		list = append(list, "holdfast: nothing is archived: the store does not keep conditional writes")
	}
	if w := a.writer.Load(); w != nil && w.StopWrites() {
		list = append(list, "holdfast: writes are refused: too much waits for the archive")
	}
	if x := a.alarm.Load(); x != nil && now-x.at < archiveAlarmShown {
		list = append(list, "holdfast: archive: "+x.what.Error())
	}
	return list
}

// raise tells an operator.
func (s *Server) raise(err error) {
	s.archive.alarm.Store(&archiveAlarm{err, s.cfg.Clock.Mono()})
	s.log.Error("archive needs an operator", "error", err)
}

// basePause after each piece of a base, of some megabytes: a few times what a
// sync of the log takes of late, so that a busy disk belongs to writes.
func (s *Server) basePause() time.Duration {
	return min(basePauseSyncs*time.Duration(s.archive.syncTakes.Load()), basePauseMax)
}

// checkArchive reports what is wrong with the configuration of the archive.
func (c *Config) checkArchive() error {
	if c.ArchiveURL == "" {
		if c.ArchiveMode == ArchiveSync || c.ArchiveEpoch == EpochStrict || len(c.ArchiveRecipients) > 0 || c.ArchiveDrillInterval > 0 {
			return errors.New("--archive-mode sync, --archive-epoch strict, --archive-recipients and --archive-drill-interval need --archive-url")
		}
		return nil
	}
	var errs []error
	for _, x := range []struct {
		flag, value string
		may         []string
	}{
		{"mode", c.ArchiveMode, []string{ArchiveAsync, ArchiveSync}},
		{"epoch", c.ArchiveEpoch, []string{EpochAuto, EpochStrict, EpochOff}},
		{"policy", c.ArchivePolicy, []string{string(archive.PolicyGap), string(archive.PolicyStopWrites)}},
	} {
		if !slices.Contains(x.may, x.value) {
			errs = append(errs, fmt.Errorf("--archive-%s is %q: use %s", x.flag, x.value, strings.Join(x.may, " or ")))
		}
	}
	if c.ArchiveLimitBytes < archive.SegmentBytes {
		errs = append(errs, fmt.Errorf("--archive-limit-bytes is %d: use at least %d", c.ArchiveLimitBytes, archive.SegmentBytes))
	}
	if _, err := archive.ParseRecipients(c.ArchiveRecipients); err != nil {
		errs = append(errs, fmt.Errorf("--archive-recipients: %w", err))
	}
	if len(c.ArchiveRecipients) > 0 && c.ArchiveDrillInterval > 0 {
		errs = append(errs, errors.New("--archive-drill-interval with --archive-recipients: members hold no key to drill with, run holdfastctl archive verify where the key is"))
	}
	return errors.Join(errs...)
}

// archiveAll archives while the member runs. Nothing that goes wrong with the
// store ends the member, or holds a write up in async mode.
func (s *Server) archiveAll(ctx context.Context) error {
	store := s.archive.store
	cluster, err := s.awaitCluster(ctx)
	if err != nil {
		return nil // The member is stopping.
	}
	if !s.conditionsHold(ctx, store) {
		return nil
	}
	recipients, err := archive.ParseRecipients(s.cfg.ArchiveRecipients)
	if err != nil {
		return err
	}
	history := archive.History{Timeline: s.id.Timeline, Parent: ident.Timeline(cluster.Timeline.GetParent()), Reason: "a new cluster"}
	if fork := cluster.Timeline.GetFork(); fork != nil {
		history.Fork = &archive.Fork{Index: ident.Index(fork.Index), Group: fork.Group}
		history.Reason = "a restore or recovery"
	}
	w, err := archive.NewWriter(archive.Config{
		Store: store, Source: archiveSource{s.core}, Cluster: archive.UUID(cluster.Uuid), History: history, Member: s.id.Member, Recipients: recipients,
		Policy: archive.Policy(s.cfg.ArchivePolicy), LimitBytes: s.cfg.ArchiveLimitBytes,
		Sync: s.cfg.ArchiveMode == ArchiveSync, Fenced: s.epoch.on, Reluctant: s.busyLeading, Clock: s.cfg.Clock, Logger: s.log.Named("archive"),
		OnAlarm: s.raise, BasePause: s.basePause,
	})
	if err != nil {
		return err
	}
	s.archive.writer.Store(w)
	close(s.archive.begun)
	if s.cfg.ArchiveDrillInterval > 0 {
		s.group.Go("drill", func(ctx context.Context) error { return s.drillAll(ctx, store, archive.UUID(cluster.Uuid)) })
	}
	return w.Run(ctx)
}

// busyLeading reports whether another member would do better to archive.
func (s *Server) busyLeading() bool {
	return s.IsLeader() && len(s.replica.Machine.Members.List()) > 1
}

// openArchive opens the store, which is asked nothing yet.
func (s *Server) openArchive(ctx context.Context) (err error) {
	if s.cfg.ArchiveURL == "" {
		return nil
	}
	s.metrics.watchArchive(s.core)
	s.archive.store, err = blobstore.Open(ctx, s.cfg.ArchiveURL, blobstore.Config{FS: s.cfg.FS, Clock: s.cfg.Clock, Create: true})
	if err != nil {
		return fmt.Errorf("--archive-url: %w", err)
	}
	return nil
}

// awaitCluster returns the facts of the cluster, once it has them.
func (s *Server) awaitCluster(ctx context.Context) (*holdfastpb.Cluster, error) {
	for {
		if c := s.replica.Machine.Cluster(); len(c.GetUuid()) == len(archive.UUID{}) {
			return c, nil
		}
		select {
		case <-s.cfg.Clock.After(archiveRetry):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// conditionsHold races writes in the store until it answers. A store that does
// not keep conditions cannot have one owner, and is not used.
func (s *Server) conditionsHold(ctx context.Context, store blobstore.Store) bool {
	for {
		h, err := blobstore.Probe(ctx, store)
		switch {
		case err == nil && h.Absent && h.Match:
			return true
		case err == nil:
			s.archive.refused.Store(true)
			s.log.Error("NOTHING IS ARCHIVED: the store does not keep conditional writes, which the archive stands on; use another store", "store", store.String(), "seen", h.Why)
			return false
		}
		s.log.Warn("the archive does not answer", "store", store.String(), "error", err)
		select {
		case <-s.cfg.Clock.After(archiveRetry):
		case <-ctx.Done():
			return false
		}
	}
}

// archived waits, in sync mode, until all that has been applied so far is in the
// archive: the write whose answer waits was.
func (c *core) archived(ctx context.Context) error {
	if c.cfg.ArchiveMode != ArchiveSync {
		return nil
	}
	index := c.replica.Store().Applied().Position.Index
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := c.cfg.Clock.AfterFunc(c.timeout(), cancel)
	defer timer.Stop()
	select {
	case <-c.archive.begun:
	case <-ctx.Done():
		return errTimeout
	}
	if err := c.archive.writer.Load().Wait(ctx, index); err != nil {
		return errTimeout // Its outcome is unknown, as that of every write that timed out.
	}
	return nil
}

// archiveFull reports whether writes are refused because too much waits for the archive.
func (c *core) archiveFull() bool {
	w := c.archive.writer.Load()
	return w != nil && w.StopWrites()
}

// archiveSource is the state of a member as its archive reads it.
type archiveSource struct{ core *core }

// Applied implements archive.Source.
func (a archiveSource) Applied() (ident.Index, <-chan struct{}) {
	store := a.core.replica.Store()
	changed := store.Notify()
	return store.Applied().Position.Index, changed
}

// Records implements archive.Source.
func (a archiveSource) Records(after ident.Index) (archive.Records, error) {
	if a.core.fenced.Load() {
		return nil, errDiverged // Its state is wrong: nothing of it is to be archived.
	}
	held, err := a.core.replica.Use()
	if err != nil {
		return nil, err
	}
	r, err := archive.RecordsOf(held.Store, after)
	if err != nil {
		held.Release()
		return nil, err
	}
	return &heldRecords{r, held, a.core}, nil
}

// Freeze implements archive.Source.
func (a archiveSource) Freeze() (*mvcc.Frozen, func() error, error) {
	if a.core.fenced.Load() {
		return nil, nil, errDiverged
	}
	return a.core.replica.FreezeState()
}

var errStoreReplaced = errors.New("a snapshot has replaced the state")

// heldRecords keep their store open. Where a snapshot has put another in its
// place nothing new comes from them.
type heldRecords struct {
	archive.Records
	held *replica.Held
	core *core
}

func (r *heldRecords) Next() (*history.Record, error) {
	if r.core.fenced.Load() {
		return nil, errDiverged
	}
	rec, err := r.Records.Next()
	if errors.Is(err, io.EOF) && r.core.replica.Store() != r.held.Store {
		return nil, errStoreReplaced
	}
	return rec, err
}

func (r *heldRecords) Close() {
	r.Records.Close()
	r.held.Release()
}

// drillAll restores the newest point into a scratch folder now and then, on the
// member that archives.
func (s *Server) drillAll(ctx context.Context, store blobstore.Store, cluster archive.UUID) error {
	for {
		select {
		case <-s.cfg.Clock.After(s.cfg.ArchiveDrillInterval):
		case <-ctx.Done():
			return nil
		}
		if !s.archive.writer.Load().Metrics().Owner.Load() {
			continue
		}
		d, err := s.drill(ctx, store, cluster)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.archive.drillFailures.Add(1)
			s.archive.alarm.Store(&archiveAlarm{fmt.Errorf("the drill failed: %w", err), s.cfg.Clock.Mono()})
			s.log.Error("the drill failed: the archive does not restore", "error", err)
		default:
			s.archive.drills.Add(1)
			s.archive.drilled.Store(s.cfg.Clock.Wall().Unix())
			s.log.Info("the drill restored the archive", "index", d.To.Index, "keys", d.Keys, "bytes", d.Bytes, "took", d.Took)
		}
	}
}

func (s *Server) drill(ctx context.Context, store blobstore.Store, cluster archive.UUID) (*archive.Drill, error) {
	a, err := archive.Open(ctx, store, cluster, nil)
	if err != nil {
		return nil, err
	}
	scratch := filepath.Join(s.cfg.DataDir, replica.ScratchPrefix+"drill")
	if err := s.cfg.FS.RemoveAll(scratch); err != nil { // Of a drill whose end failed.
		return nil, err
	}
	if err := s.cfg.FS.MkdirAll(scratch); err != nil {
		return nil, err
	}
	d, err := a.Drill(ctx, archive.DrillConfig{
		FS: s.cfg.FS, Scratch: scratch, Clock: s.cfg.Clock, Logger: s.log, Timeline: s.id.Timeline, By: "member " + s.id.Member.String(),
	})
	return d, errors.Join(err, s.cfg.FS.RemoveAll(scratch))
}

// watchArchive registers what the archive tells monitoring.
func (m *metrics) watchArchive(c *core) {
	of := func(read func(a *archive.Metrics) int64) func() float64 {
		return func() float64 {
			if w := c.archive.writer.Load(); w != nil {
				return float64(read(w.Metrics()))
			}
			return 0
		}
	}
	m.gauges(map[string]gauge{
		"holdfast_archive_owner":                        {"1 while this member ships to the archive.", of(func(a *archive.Metrics) int64 { return int64(truth(a.Owner.Load())) })},
		"holdfast_archive_epoch_open":                   {"1 while this member may acknowledge as far as epochs go; 0: its cluster was given up, or the archive did not tell in time that it was not.", func() float64 { return truth(c.epoch.open() == nil) }},
		"holdfast_archive_refused":                      {"1 while nothing is archived because the store keeps no conditions.", func() float64 { return truth(c.archive.refused.Load()) }},
		"holdfast_archive_index":                        {"Entry of the log up to which everything is in the archive, as far as this member knows.", of(func(a *archive.Metrics) int64 { return a.Archived.Load() })},
		"holdfast_archive_behind_bytes":                 {"Bytes of history that wait for the archive.", of(func(a *archive.Metrics) int64 { return a.BehindBytes.Load() })},
		"holdfast_archive_last_base_timestamp_seconds":  {"When this member last completed a base; 0: not since the start.", of(func(a *archive.Metrics) int64 { return a.BaseUnix.Load() })},
		"holdfast_archive_last_drill_timestamp_seconds": {"When a drill of this member last succeeded; 0: not since the start.", func() float64 { return float64(c.archive.drilled.Load()) }},
	})
	m.counters(map[string]gauge{
		"holdfast_archive_segments_total":        {"Segments of the log that this member has shipped.", of(func(a *archive.Metrics) int64 { return a.Segments.Load() })},
		"holdfast_archive_segment_bytes_total":   {"Bytes of these.", of(func(a *archive.Metrics) int64 { return a.SegmentBytes.Load() })},
		"holdfast_archive_bases_total":           {"Bases that this member has shipped.", of(func(a *archive.Metrics) int64 { return a.Bases.Load() })},
		"holdfast_archive_base_bytes_total":      {"Bytes of these.", of(func(a *archive.Metrics) int64 { return a.BaseBytes.Load() })},
		"holdfast_archive_failures_total":        {"How often archiving failed and was begun again.", of(func(a *archive.Metrics) int64 { return a.Failures.Load() })},
		"holdfast_archive_gaps_total":            {"Stretches of history that are not in the archive.", of(func(a *archive.Metrics) int64 { return a.Gaps.Load() })},
		"holdfast_archive_alarms_total":          {"What an operator had to be told.", of(func(a *archive.Metrics) int64 { return a.Alarms.Load() })},
		"holdfast_archive_ceilings_missed_total": {"Reservations of revisions that failed.", of(func(a *archive.Metrics) int64 { return a.CeilingsUnmet.Load() })},
		"holdfast_archive_drills_total":          {"Drills that succeeded.", func() float64 { return float64(c.archive.drills.Load()) }},
		"holdfast_archive_drill_failures_total":  {"Drills that failed.", func() float64 { return float64(c.archive.drillFailures.Load()) }},
	})
}

// archiveRetry is how long the member waits before it asks again what it needs to archive.
const archiveRetry = time.Second

const (
	archiveAlarmShown = time.Hour

	basePauseSyncs = 4
	basePauseMax   = 2 * time.Second
)
