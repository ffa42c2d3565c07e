package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// Modes of auto-compaction.
const (
	compactPeriodic = "periodic"
	compactRevision = "revision"
)

// retention is how much history auto-compaction keeps: one of the two, or
// neither when it is off.
type retention struct {
	period    time.Duration
	revisions ident.Revision
}

func parseRetention(mode, s string) (retention, error) {
	if s == "0" || s == "" {
		return retention{}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	switch mode {
	case compactRevision:
		if err != nil || n < 0 {
			return retention{}, fmt.Errorf("--auto-compaction-retention is %q: mode revision wants a number of revisions, as in 1000", s)
		}
		return retention{revisions: ident.Revision(n)}, nil
	case compactPeriodic:
		if err == nil && n >= 0 {
			return retention{period: time.Duration(n) * time.Hour}, nil
		}
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return retention{}, fmt.Errorf("--auto-compaction-retention is %q: mode periodic wants hours or a duration, as in 1 or 30m", s)
		}
		return retention{period: d}, nil
	}
	return retention{}, fmt.Errorf("--auto-compaction-mode is %q: use %s or %s", mode, compactPeriodic, compactRevision)
}

// compactor compacts the store by itself, while this member leads.
//
// By revision: every five minutes up to so many below the head. By time: the
// head is noted at least ten times a period, and what was the head a period ago
// is compacted.
type compactor struct {
	*core
	keep  retention
	notes []headNote // By time, oldest first.
}

type headNote struct {
	at   time.Duration
	head ident.Revision
}

const (
	compactRevisionInterval = 5 * time.Minute
	compactPeriodicPartMax  = time.Hour

	// compactPeriodicIntervalMin keeps a period of next to nothing from taking all of a CPU.
	compactPeriodicIntervalMin = 100 * time.Millisecond
)

func (c *compactor) interval() time.Duration {
	if c.keep.revisions > 0 {
		return compactRevisionInterval
	}
	return max(min(c.keep.period, compactPeriodicPartMax)/10, compactPeriodicIntervalMin)
}

func (c *compactor) run(ctx context.Context) error {
	return every(ctx, c.cfg.Clock, c.interval(), func() {
		if target := c.target(c.cfg.Clock.Mono(), c.replica.Store().Head()); target > c.replica.Store().Compacted() && c.node.Status().Leader == c.id.Member {
			c.compact(ctx, target)
		}
	})
}

// target is the revision to compact to; one that is compacted already, or none
// at all, is no matter of this method.
func (c *compactor) target(now time.Duration, head ident.Revision) ident.Revision {
	if c.keep.revisions > 0 {
		return head - c.keep.revisions
	}
	c.notes = append(c.notes, headNote{now, head})
	var target ident.Revision
	for len(c.notes) > 0 && now-c.notes[0].at >= c.keep.period {
		target = c.notes[0].head
		c.notes = c.notes[1:]
	}
	return target
}

func (c *compactor) compact(ctx context.Context, target ident.Revision) {
	start := c.cfg.Clock.Mono()
	_, err := c.propose(asMember(ctx), &holdfastpb.Command{Command: &holdfastpb.Command_Compaction{
		Compaction: &pb.CompactionRequest{Revision: int64(target)},
	}})
	switch {
	case err == nil:
		c.log.Info("completed auto compaction", "revision", int64(target), "took", c.cfg.Clock.Mono()-start)
	case errors.Is(err, mvcc.ErrCompacted): // Somebody was quicker.
	default:
		c.log.Warn("auto compaction failed, trying again later", "revision", int64(target), "error", err)
	}
}
