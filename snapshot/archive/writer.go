package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// Policy says what happens when more history waits for the archive than may.
type Policy string

const (
	// PolicyGap lets history go: an alarm, and a new base after the gap.
	PolicyGap Policy = "gap"
	// PolicyStopWrites keeps history, and asks for writes to be refused.
	PolicyStopWrites Policy = "stop-writes"
)

// Config of a Writer. Zero means the default where one is named.
type Config struct {
	Store      blobstore.Store // Required, as are Source, Clock and Logger.
	Source     Source
	Cluster    UUID
	History    History // Of the timeline: parent and fork. Format and Cluster are filled in.
	Member     ident.MemberID
	Recipients Recipients // None: objects are not encrypted.

	// Sync cuts a segment as soon as there is a record: somewhere a client waits for
	// it, perhaps at another member. While one is on its way the next one gathers.
	Sync bool

	Policy     Policy // PolicyGap.
	LimitBytes int64  // Of history that waits; LimitBytesDefault.

	BaseInterval       time.Duration // Between two bases; BaseIntervalDefault.
	BaseBytesPerSecond int64         // Of a base on its way; 0: as fast as it goes.

	// BasePause is how long a base waits after each of its pieces: members let it
	// follow what their disk takes for a write, so that a base gives way. Nil: not.
	BasePause func() time.Duration

	// Fenced says that the member looks for epochs: whoever takes one later reads
	// that from the lease.
	Fenced bool

	// Reluctant members take the ownership only when nobody else does: leaders are.
	// Nil: never.
	Reluctant func() bool
	// OnAlarm is told what an operator must know: another past in the archive, a
	// gap, a ceiling that could not be reserved. It must not block. May be nil.
	OnAlarm func(error)

	Clock  clock.Clock
	Logger hclog.Logger
}

// Defaults of a Config.
const (
	LimitBytesDefault   = 4 << 30
	BaseIntervalDefault = 24 * time.Hour
)

// Validate reports all that is wrong, after filling in defaults.
func (c *Config) Validate() error {
	c.Policy = cmp.Or(c.Policy, PolicyGap)
	c.LimitBytes = cmp.Or(c.LimitBytes, LimitBytesDefault)
	c.BaseInterval = cmp.Or(c.BaseInterval, BaseIntervalDefault)
	c.History.Format, c.History.Cluster = FormatVersion, c.Cluster
	var wrong []error
	if c.Store == nil || c.Source == nil || c.Clock == nil || c.Logger == nil || c.Cluster == (UUID{}) || c.Member == 0 {
		wrong = append(wrong, errors.New("each of Store, Source, Clock, Logger, Cluster and Member is required"))
	}
	if c.Policy != PolicyGap && c.Policy != PolicyStopWrites {
		wrong = append(wrong, fmt.Errorf("policy %q is neither %s nor %s", c.Policy, PolicyGap, PolicyStopWrites))
	}
	if c.LimitBytes < SegmentBytes || c.BaseInterval < 0 || c.BaseBytesPerSecond < 0 {
		wrong = append(wrong, fmt.Errorf("limit of %d bytes is below %d, or base interval %s or rate %d is negative", c.LimitBytes, SegmentBytes, c.BaseInterval, c.BaseBytesPerSecond))
	}
	if len(wrong) > 0 {
		return fmt.Errorf("archive: %w: %w", ErrInvalid, errors.Join(wrong...))
	}
	return nil
}

// Writer ships what a member has applied, as long as it owns the archive, and
// otherwise keeps what its successor would need. It never stands in the way of
// applying: it reads history like everybody else.
//
// It has more fields than most because the shipping, the base on its way and
// those who wait meet in it.
type Writer struct {
	cfg     Config
	archive *Archive
	at      place
	sealer  *sealer       // Owned by run.
	lease   *lease        // Owned by run.
	renewed time.Duration // Owned by run: when the lease was last to be renewed.
	metrics Metrics

	// Owned by run, as is base.
	introduced   bool          // META.json and HISTORY.json are there.
	last         Point         // End of the log in the archive, as far as known.
	lastName     string        // Of the segment that ends it; empty: it is a base, or not known.
	records      *joined       // After last; holds what is not archived. Nil: nothing is held.
	shipped      ident.Index   // Everything up to here is there, but for a base that is needed.
	oldest       time.Duration // When the first record of the segment under way was read.
	ceiling      ident.Revision
	ceilingRetry time.Duration

	base struct { // The one on its way, and the last complete one.
		busy   chan error // Receives when it is through; nil when none is on its way.
		cancel context.CancelFunc
		retry  time.Duration // Not before.
		have   bool
		need   bool // The log cannot be restored before it is complete: nothing counts as archived.
		made   time.Time
	}

	mu struct {
		sync.Mutex
		through  ident.Index // Archived: everything up to here.
		want     ident.Index // Somebody waits for it.
		stop     bool        // Writes are to be refused.
		progress chan struct{}
		wanted   chan struct{}
	}
}

// NewWriter checks a configuration. Run does the work.
func NewWriter(cfg Config) (*Writer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s, err := newSealer(cfg.Recipients)
	if err != nil {
		return nil, err
	}
	w := &Writer{cfg: cfg, at: place{cfg.Cluster, cfg.History.Timeline}, sealer: s, archive: &Archive{store: cfg.Store, cluster: cfg.Cluster}}
	w.lease = &lease{store: cfg.Store, name: w.archive.path(ownerName), member: cfg.Member, ttl: leaseTTL, clock: cfg.Clock, fenced: cfg.Fenced}
	w.mu.progress, w.mu.wanted = make(chan struct{}), make(chan struct{}, 1)
	return w, nil
}

// Run archives until the context ends. What goes wrong is logged and tried
// again; a disagreement with the archive raises an alarm and is not written over.
func (w *Writer) Run(ctx context.Context) error {
	tasks := task.New(ctx)
	tasks.Go("archive", func(ctx context.Context) error {
		defer w.letGo()
		pause := time.Duration(0)
		for {
			shipped := w.metrics.Segments.Load()
			err := w.round(ctx, tasks)
			if ctx.Err() != nil {
				return nil
			}
			if w.metrics.Segments.Load() != shipped {
				pause = 0
			}
			pause = min(max(2*pause, retryMin), retryMax)
			w.failed(err)
			select {
			case <-w.cfg.Clock.After(pause):
			case <-ctx.Done():
				return nil
			}
		}
	})
	return tasks.Wait()
}

// letGo gives back what is held of history.
func (w *Writer) letGo() {
	if w.records != nil {
		w.records.Close()
		w.records = nil
	}
}

// failed tells of what ended a round, and lets history go when too much waits.
func (w *Writer) failed(err error) {
	w.metrics.Failures.Add(1)
	if w.tooFarBehind() && w.cfg.Policy == PolicyGap {
		w.letGo() // There is a gap only if compaction takes it before the archive is back.
	}
	switch {
	case errors.Is(err, errLostLease):
		w.cfg.Logger.Info("another member archives", "archived", w.last.Index)
	case errors.Is(err, ErrDisagree):
		w.cfg.Logger.Error("the archive holds another past than this member", "error", err)
		w.alarm(err)
	default:
		w.cfg.Logger.Warn("archive is behind", "archived", w.last.Index, "error", err)
	}
}

func (w *Writer) alarm(err error) {
	w.metrics.Alarms.Add(1)
	if w.cfg.OnAlarm != nil {
		w.cfg.OnAlarm(err)
	}
}

// Wait returns once everything up to an index is in the archive: what an answer
// waits for in sync mode. It makes the writer cut a segment at once; those who
// wait together share it.
func (w *Writer) Wait(ctx context.Context, index ident.Index) error {
	for {
		w.mu.Lock()
		through, progress := w.mu.through, w.mu.progress
		w.mu.want = max(w.mu.want, index)
		w.mu.Unlock()
		if through >= index {
			return nil
		}
		select {
		case w.mu.wanted <- struct{}{}:
		default:
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return fmt.Errorf("entry %d is not in the archive, which has %d: %w", index, through, ctx.Err())
		}
	}
}

// Archived is the index up to which everything is in the archive.
func (w *Writer) Archived() ident.Index {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.through
}

// StopWrites reports whether writes are to be refused: too much waits for the
// archive, and the policy is to keep it.
func (w *Writer) StopWrites() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.stop
}

// reached notes that everything up to an index is in the archive, or will be
// with the base on its way.
func (w *Writer) reached(index ident.Index) {
	w.shipped = max(w.shipped, index)
	if w.base.need {
		return
	}
	index = w.shipped
	w.mu.Lock()
	defer w.mu.Unlock()
	if index > w.mu.through {
		w.mu.through = index
		close(w.mu.progress)
		w.mu.progress = make(chan struct{})
	}
	w.metrics.Archived.Store(int64(w.mu.through))
}

// hurried reports whether somebody waits for more than is archived.
func (w *Writer) hurried() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.want > w.mu.through
}
