// Package check tells whether what clients saw of a cluster was right.
//
// A harness writes down a History: each request with its answer or the lack of
// one, what watchers saw, and at the end the log, which is every event there
// ever was. Check replays it.
//
// The replay goes by revision, not by guessing an order: each write made a
// revision of its own, and says which, so the log is the order, and one pass
// over a model decides. What is checked of an order that the cluster itself
// names is that it respects real time: whatever had returned before a request
// was sent has the lower revision.
//
// Requests without an answer are looked up in the log. That narrowing is
// checked too: each acknowledged write is in the log exactly once, and each
// revision in the log was asked for by somebody, or is a lease running out.
// Windows is the second opinion: it has porcupine search for an order, which
// trusts no revision, but can only look at a few thousand operations.
package check

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/tests/model"
)

// Options say what is asked of a history beyond being right.
type Options struct {
	// Acknowledged operations that there must be at least: before the first fault
	// began, while one went on, and after the last. Without them a run proves
	// little. Faults are the Spans marked so.
	Before, During, After int

	// ElectionTimeout bounds how late a lease may run out: its time, two of these
	// and a second. 0: that is not checked. Spans, of faults and of leaders, begin
	// the time anew.
	ElectionTimeout time.Duration

	// ClockError is how wrong the rate of a clock may be. 0: 1 %.
	ClockError float64
}

const (
	clockErrorDefault = 0.01
	violationsMax     = 100 // Kept; all are counted.
)

// Violation is one thing that was not right.
type Violation struct {
	Rule     string // K1 to K8, W1 to W11, L1 to L7, A1, A3: see docs/testing.md.
	Text     string
	Ops      []int // IDs of operations.
	Watch    int   // ID of a watch; 0: none.
	Revision int64 // 0: none.
}

func (v Violation) String() string {
	s := v.Rule + ": " + v.Text
	if v.Revision != 0 {
		s += fmt.Sprintf(", revision %d", v.Revision)
	}
	if len(v.Ops) > 0 {
		s += fmt.Sprintf(", operations %v", v.Ops)
	}
	if v.Watch > 0 {
		s += fmt.Sprintf(", watch %d", v.Watch)
	}
	return s
}

// Counts say how much was looked at.
type Counts struct {
	Ops, Acknowledged, Refused, Unknown int
	Resolved                            int // Unknown ones whose effect was found.
	Expired                             int // Revisions that leases made by running out.
	Serializable                        int
	Watches, Events                     int // Events that watchers saw.
	Before, During, After               int // Acknowledged, by faults.
	Head                                int64
}

// Report is what Check found.
type Report struct {
	Violations []Violation
	Found      int // Of violations, those that were not kept included.
	Vacuous    []string
	Counts     Counts
	Searched   SearchCounts // What Windows added.

	history    *History
	checker    *checker
	drawn      []byte // A window for the page: one that has no order, if there is one.
	drawnWrong bool
}

// Err is nil if all is right and enough was done.
func (r *Report) Err() error {
	var lines []string
	for _, v := range r.Violations {
		lines = append(lines, v.String())
	}
	if more := r.Found - len(r.Violations); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	for _, v := range r.Vacuous {
		lines = append(lines, "too little: "+v)
	}
	if len(lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(lines, "\n"))
}

func (r *Report) add(v Violation) {
	r.Found++
	if len(r.Violations) < violationsMax {
		r.Violations = append(r.Violations, v)
	}
}

// checker is the work of one Check. All slices by revision have an element for
// each revision up to the head, and two more.
type checker struct {
	*Report
	h    *History
	opt  Options
	head int64
	m    *model.Store // While replaying at some revision, then at the head.
	log  [][]*mvccpb.Event
	info []info    // By operation.
	slot [][]int32 // Acknowledged operations by the revision of their header.

	exists  []int64 // By revision: when it can have come to be at the earliest.
	seenBy  []int64 // By revision: when somebody had seen it, or a later one.
	owner   []int32 // By revision: the operation that made it, or none.
	compact compactions
	leases  map[int64]*lease
	leased  bool // Some key hangs on a lease at some time.
	narrow  narrowing
	waiting []int32 // Refused operations whose reason is looked for.
}

const none = int32(-1)

// Check tells whether a history is right.
func Check(h *History, o Options) *Report {
	if o.ClockError == 0 {
		o.ClockError = clockErrorDefault
	}
	r := &Report{history: h}
	c := &checker{Report: r, h: h, opt: o, m: model.New()}
	r.checker = c
	c.m.TTLMin = math.MinInt64
	c.index()
	c.times()
	c.replay()
	c.realTime()
	c.sessions()
	c.checkCompactions()
	c.checkLeases()
	c.checkWatches()
	c.checkLocks()
	c.checkHashes()
	c.enough()
	slices.SortStableFunc(r.Violations, func(a, b Violation) int { return cmp.Compare(a.Revision, b.Revision) })
	return r
}

// enough counts what was acknowledged around faults.
func (c *checker) enough() {
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	var faults []Span
	for _, s := range c.h.Spans {
		if s.Fault {
			faults = append(faults, s)
			first, last = min(first, s.From), max(last, s.To)
		}
	}
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		if op.Outcome != Acknowledged {
			continue
		}
		switch {
		case op.Return < first:
			c.Counts.Before++
		case op.Call > last:
			c.Counts.After++
		}
		if slices.ContainsFunc(faults, func(s Span) bool { return op.Return >= s.From && op.Call <= s.To }) {
			c.Counts.During++
		}
	}
	for _, want := range []struct {
		when      string
		got, want int
	}{{"before", c.Counts.Before, c.opt.Before}, {"during", c.Counts.During, c.opt.During}, {"after", c.Counts.After, c.opt.After}} {
		if want.got < want.want {
			c.Vacuous = append(c.Vacuous, fmt.Sprintf("%d operations were acknowledged %s faults, want %d", want.got, want.when, want.want))
		}
	}
}

// checkHashes holds what members say of equal states against each other.
func (c *checker) checkHashes() {
	type state struct{ revision, compacted int64 }
	first := map[state]Hash{}
	for _, h := range c.h.Hashes {
		at := state{h.Revision, h.Compacted}
		switch before, ok := first[at]; {
		case !ok:
			first[at] = h
		case before.Hash != h.Hash:
			c.add(Violation{Rule: "A1", Revision: h.Revision, Text: fmt.Sprintf(
				"members %d and %d have hashes %08x and %08x, both compacted at %d", before.Member, h.Member, before.Hash, h.Hash, h.Compacted)})
		}
	}
}
