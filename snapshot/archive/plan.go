package archive

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// Plan is what a restore will read, and what it will make of it. It was made
// from lists, heads, manifests and the one segment that holds the target.
type Plan struct {
	Cluster  UUID
	Timeline ident.Timeline
	Target   Target
	To       Point    // Where the restored state stands.
	Base     Manifest // It begins here.
	Log      []Segment
	Objects  []Planned // All that is read, in order.
	Bytes    int64     // Of Objects.
	End      Point     // Where the archive ends on this timeline: what lies between To and here is given up.
	Window   Window

	// Ceiling is the highest revision that may have been used. Where it lies above
	// To, the restored cluster begins above it, and what is older is compacted:
	// no revision ever has two contents.
	Ceiling ident.Revision
	outage  time.Duration // More may have been used in it than was reserved; 0: no.

	// Conf is Raft's configuration at To, where somebody knows it; nil: the base's,
	// which a restore replaces anyway. Records do not tell.
	Conf []byte

	folder string // Of the base.
}

// Planned is an object to read.
type Planned struct {
	Name  string
	Bytes int64
}

// Bump is what the revision has to rise by, for snapshot.RestoreOptions.
func (p *Plan) Bump() int64 { return max(int64(p.Ceiling-p.To.Revision), 0) }

// Outage raises the ceiling by what the cluster may have used since the archive
// ends: reservations reach far ahead, and may have run out in a long outage.
func (p *Plan) Outage(now time.Time) {
	since := now.Sub(time.Unix(0, p.End.Time))
	if used := p.End.Revision + ident.Revision(since/time.Second*revisionsPerSecondMax); used > p.Ceiling {
		p.Ceiling, p.outage = used, since
	}
}

// Plan decides what leads to a target on a timeline; timeline 0 is the newest.
func (a *Archive) Plan(ctx context.Context, timeline ident.Timeline, target Target) (*Plan, error) {
	c, err := a.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	t := c.Latest()
	if timeline != 0 {
		t = c.find(timeline)
	}
	if t == nil {
		return nil, fmt.Errorf("cluster %s has no timeline %d in the archive: %w", a.cluster, timeline, ErrNoArchive)
	}
	window, ok := t.Window()
	if !ok {
		return nil, fmt.Errorf("timeline %d of cluster %s has no complete base: %w", t.Number, a.cluster, ErrOutside)
	}
	p := &planner{archive: a, ctx: ctx, timeline: t.Number, target: target}
	plan, err := p.plan(t.Runs())
	if errors.Is(err, ErrOutside) {
		return nil, fmt.Errorf("%s: %w: %s", target, err, p.describe(window))
	}
	if err != nil {
		return nil, err
	}
	plan.Window = window
	plan.Ceiling = max(c.Ceiling, plan.End.Revision)
	return plan, nil
}

// planner looks for a target.
type planner struct {
	archive     *Archive
	ctx         context.Context
	timeline    ident.Timeline
	target      Target
	first, last Point // Of the whole archive, as far as they were read.
}

func (p *planner) plan(runs []Run) (*Plan, error) {
	newest := runs[len(runs)-1]
	end, err := p.end(newest)
	if err != nil {
		return nil, err
	}
	p.last = end
	// From the newest base back to the first one that lies before the target. One
	// that stands at it will do, where nothing older is left.
	var at *Plan
	for i := len(runs) - 1; i >= 0; i-- {
		m, err := p.archive.Manifest(p.ctx, p.timeline, runs[i].Base)
		if err != nil {
			return nil, err
		}
		p.first = m.At
		plan := &Plan{Cluster: p.archive.cluster, Timeline: p.timeline, Target: p.target, To: m.At, Base: *m, End: end, folder: runs[i].Base.Name}
		if p.target.kind == toLatest || p.target.after(m.At) {
			return plan, p.within(plan, runs[i], i == len(runs)-1)
		}
		if p.target.at(m.At) || m.Last <= p.target.position.Index && p.target.position.Index <= m.At.Index && p.target.kind == toIndex {
			at = plan
		}
	}
	if at == nil {
		return nil, ErrOutside
	}
	return at, p.list(at)
}

// end is where a run ends.
func (p *planner) end(r Run) (Point, error) {
	if n := len(r.Log); n > 0 {
		return p.headOf(r.Log[n-1])
	}
	m, err := p.archive.Manifest(p.ctx, p.timeline, r.Base)
	if err != nil {
		return Point{}, err
	}
	return m.At, nil
}

// headOf reads what a segment says of its end.
func (p *planner) headOf(s Segment) (Point, error) {
	data, err := p.archive.store.GetRange(p.ctx, p.archive.path(s.Name), 0, fixedHeadBytes+headBytesMax)
	if err != nil {
		return Point{}, fmt.Errorf("object %s: %w", s.Name, err)
	}
	h, _, _, err := decodeHead(s.Name, data)
	if err != nil {
		return Point{}, err
	}
	if h.Log == nil || h.Log.End.Index != s.Last || h.Log.End.Digest != s.Digest {
		return Point{}, fmt.Errorf("object %s is another than its name says: %w", s.Name, ErrForeign)
	}
	return h.Log.End, nil
}

// within finds the target in the log after a base.
func (p *planner) within(plan *Plan, run Run, newest bool) error {
	n, err := p.search(run.Log)
	if err != nil {
		return err
	}
	if p.target.kind == toLatest || n == len(run.Log) {
		// Everything there is, if that is what was asked for.
		plan.Log = run.Log
		if len(run.Log) > 0 {
			if plan.To, err = p.end(run); err != nil {
				return err
			}
		}
		if !p.reaches(plan.To, newest) {
			return ErrOutside
		}
		return p.list(plan)
	}
	plan.Log = run.Log[:n+1]
	if plan.To, err = p.cutIn(run.Log[n], plan.Base.tail()); err != nil {
		return err
	}
	if plan.To.Index <= plan.Base.Last {
		plan.To = plan.Base.At // Nothing of the log is needed.
	}
	if !p.target.at(plan.To) {
		return ErrOutside
	}
	return p.list(plan)
}

// reaches reports whether a target that lies behind all segments of a run may
// be where it ends.
func (p *planner) reaches(end Point, newest bool) bool {
	switch p.target.kind {
	case toLatest:
		return newest
	case beforeRevision:
		return newest && end.Revision == p.target.revision-1
	}
	return false
}

// search finds the first segment in which the target may lie.
func (p *planner) search(log []Segment) (int, error) {
	lo, hi := 0, len(log)
	for lo < hi && p.target.kind != toLatest {
		mid := int(uint(lo+hi) / 2)
		end, err := p.headOf(log[mid])
		if err != nil {
			return 0, err
		}
		if p.target.ends(end) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo, nil
}

// cutIn reads the segment that holds the target and returns the state there.
func (p *planner) cutIn(s Segment, tail Point) (Point, error) {
	seg, err := p.archive.segment(p.ctx, p.timeline, s)
	if err != nil {
		return Point{}, err
	}
	to := seg.after
	stop := errors.New("there")
	err = seg.each(s.Name, func(rec *history.Record) error {
		if rec.Index <= tail.Index { // The base has it.
			next, err := advance(to, rec)
			to = next
			return err
		}
		n := 0
		at := to
		for ; n < len(rec.Groups) && !p.target.beyond(at, rec, &rec.Groups[n]); n++ {
			at.Revision = max(at.Revision, rec.Groups[n].Revision)
		}
		if n == 0 {
			return stop
		}
		short := *rec
		short.Groups = rec.Groups[:n]
		next, err := advance(to, &short)
		if to = next; err == nil && n < len(rec.Groups) {
			err = stop
		}
		return err
	})
	if errors.Is(err, stop) {
		err = nil
	}
	return to, err
}

// list writes down what is read.
func (p *planner) list(plan *Plan) error {
	for _, part := range plan.Base.Parts {
		plan.Objects = append(plan.Objects, Planned{plan.folder + part.Name, part.Stored})
	}
	for _, s := range plan.Log {
		plan.Objects = append(plan.Objects, Planned{s.Name, s.Bytes})
	}
	for _, o := range plan.Objects {
		plan.Bytes += o.Bytes
	}
	return nil
}

// describe is the window in all clocks, as far as it was read.
func (p *planner) describe(w Window) string {
	return fmt.Sprintf("the archive holds %s; it ends at %s, and the oldest base looked at is at %s", w, p.last, p.first)
}

// String is the plan for people to read before it is done.
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "from the archive of cluster %s, timeline %d, target %s\n", p.Cluster, p.Timeline, p.Target)
	fmt.Fprintf(&b, "base     %s, %d parts, made %s by member %s\n", p.Base.At, len(p.Base.Parts), p.Base.Made, p.Base.Member)
	if n := len(p.Log); n > 0 {
		fmt.Fprintf(&b, "log      %d segments, entries %d to %d\n", n, p.Log[0].First, p.Log[n-1].Last)
	}
	fmt.Fprintf(&b, "to read  %d objects, %d bytes\n", len(p.Objects), p.Bytes)
	fmt.Fprintf(&b, "to       %s, digest %s\n", p.To, p.To.Digest)
	if p.End.Index > p.To.Index || p.End.Revision > p.To.Revision {
		fmt.Fprintf(&b, "given up %d revisions and %d entries of the log after it, up to %s\n", p.End.Revision-p.To.Revision, p.End.Index-p.To.Index, p.End)
	}
	if p.outage > 0 {
		fmt.Fprintf(&b, "the cluster may have run %s without the archive, and used more revisions than were reserved\n", p.outage.Round(time.Second))
	}
	if p.Bump() > 0 {
		fmt.Fprintf(&b, "revision %d may have been used: the cluster begins above it, what is older is compacted\n", p.Ceiling)
	} else {
		b.WriteString("revision stays: nothing that was reserved lies above it\n")
	}
	return b.String()
}
