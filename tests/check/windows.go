package check

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// SearchOptions say which windows to search.
type SearchOptions struct {
	Windows int           // How many. 0: as many as it takes to see everything.
	Ops     int           // In a window. 0: 2,000.
	Clients int           // In a window. 0: 8.
	Limit   time.Duration // For each. 0: 10 s.
	Seed    uint64        // Chooses the windows when not all are searched.
}

// SearchCounts say what became of the windows. Unknown ones are no verdict.
type SearchCounts struct {
	Searched, Ops, Unknown int
}

const unknownMax = 0.01 // Of windows.

// Windows is the second opinion: it has porcupine search windows of a history
// for an order, and adds what it finds to the report. A window is what was
// answered at some revisions in a row, from the state before; requests without
// an answer are in it if the log says that they took effect, and what leases
// did by running out is too. Serializable reads and requests that are not about
// keys are left out.
func (r *Report) Windows(o SearchOptions) {
	o.Ops, o.Clients = orDefault(o.Ops, 2000), orDefault(o.Clients, 8)
	if o.Limit == 0 {
		o.Limit = 10 * time.Second
	}
	windows := r.checker.cut(o.Ops)
	if o.Windows > 0 && len(windows) > o.Windows {
		rand.New(rand.NewPCG(o.Seed, 0)).Shuffle(len(windows), func(i, j int) { windows[i], windows[j] = windows[j], windows[i] })
		windows = windows[:o.Windows]
	}
	slices.SortFunc(windows, func(a, b window) int { return cmp.Compare(a.from, b.from) })
	var e *engine
	for _, w := range windows {
		if e == nil {
			e = newEngine()
		}
		e.forward(r.checker, w.from)
		if !r.search(e, w, &o) {
			e = nil // The search that was given up still has it.
		}
	}
	if n := r.Searched.Unknown; float64(n) > unknownMax*float64(r.Searched.Searched) {
		r.Vacuous = append(r.Vacuous, fmt.Sprintf("%d of %d windows have no verdict", n, r.Searched.Searched))
	}
}

func orDefault(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// search looks through one window. It is false if it had to be given up.
func (r *Report) search(e *engine, w window, o *SearchOptions) bool {
	history := r.checker.window(w, o.Clients)
	r.Searched.Searched++
	r.Searched.Ops += len(history)
	m := e.porcupine()
	verdict, found, ended := watched(m, history, o.Limit)
	illegal := verdict == porcupine.Illegal
	if verdict == porcupine.Unknown {
		r.Searched.Unknown++
	}
	if illegal {
		r.add(Violation{Rule: "K1", Revision: w.from, Text: fmt.Sprintf("no order explains the answers at revisions %d to %d (porcupine)", w.from, w.to)})
	}
	if ended && (r.drawn == nil || illegal && !r.drawnWrong) {
		var page bytes.Buffer
		if err := porcupine.Visualize(m, found, &page); err == nil { // A buffer takes all.
			r.drawn, r.drawnWrong = page.Bytes(), illegal
		}
	}
	return ended
}

// watched searches under a watchdog: the limit of the search is looked at
// between steps, and nothing bounds a step.
func watched(m porcupine.Model, history []porcupine.Operation, limit time.Duration) (verdict porcupine.CheckResult, found porcupine.LinearizationInfo, ended bool) {
	type result struct {
		verdict porcupine.CheckResult
		found   porcupine.LinearizationInfo
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit+limit/2)
	defer cancel()
	done := make(chan result, 1)
	go func() {
		verdict, found := porcupine.CheckOperationsVerbose(m, history, limit)
		done <- result{verdict, found}
	}()
	select {
	case got := <-done:
		return got.verdict, got.found, true
	case <-ctx.Done():
		return porcupine.Unknown, found, false
	}
}

// window is the revisions from and to, and those between.
type window struct{ from, to int64 }

// cut divides all revisions into windows of at most so many operations. Each
// begins with the revision that the one before ended with, whose reads are in
// both: its state is where the next begins.
func (c *checker) cut(opsMax int) (all []window) {
	w, n := window{1, 1}, len(c.slot[1])
	for rev := int64(2); rev <= c.head; rev++ {
		if more := len(c.slot[rev]) + 1; n+more > opsMax && w.to > w.from {
			all = append(all, w)
			w, n = window{rev - 1, rev - 1}, len(c.slot[rev-1])
		}
		n += len(c.slot[rev]) + 1
		w.to = rev
	}
	return append(all, w)
}

// window lists the operations of a window for porcupine.
func (c *checker) window(w window, clientsMax int) []porcupine.Operation {
	var list []porcupine.Operation
	begin, end := never, -never
	for rev := w.from; rev <= w.to; rev++ {
		if rev > w.from {
			list = append(list, c.made(rev)...)
		}
		for _, i := range c.slot[rev] {
			op, in := &c.h.Ops[i], &c.info[i]
			begin, end = min(begin, op.Call), max(end, op.Return)
			if in.serializable || in.wrote || in.kind != read && in.kind != write {
				continue
			}
			list = append(list, porcupine.Operation{ClientId: op.Client, Input: step{op: op}, Call: op.Call, Return: op.Return})
		}
	}
	for i := range list {
		end = max(end, list[i].Call)
	}
	begin = min(begin, end) // Nobody asked anything.
	for i := range list {
		list[i].Call, list[i].Return = max(list[i].Call, begin-1), min(list[i].Return, end+1)
	}
	list = fewer(list, clientsMax)
	// The log itself, read when all is over.
	return append(list, porcupine.Operation{ClientId: clientsMax, Input: step{all: c.m.Events(w.from+1, w.to), from: w.from, rev: w.to}, Call: end + 2, Return: end + 3})
}

// made is the operation that made a revision: a request, or the cluster by
// itself.
func (c *checker) made(rev int64) []porcupine.Operation {
	i := c.owner[rev]
	if i == none || c.info[i].kind != write {
		return []porcupine.Operation{{ClientId: 0, Input: step{cluster: true, all: c.log[rev], rev: rev}, Call: -never, Return: never}}
	}
	op := &c.h.Ops[i]
	made := porcupine.Operation{ClientId: op.Client, Input: step{op: op, rev: rev}, Call: op.Call, Return: never}
	if op.Outcome == Acknowledged {
		made.Return = op.Return
	}
	return []porcupine.Operation{made}
}

// fewer keeps the reads of a few clients only, those with the most; writes all
// stay. What is left of a right history is right.
func fewer(list []porcupine.Operation, clientsMax int) []porcupine.Operation {
	ops := map[int]int{}
	for i := range list {
		ops[list[i].ClientId]++
	}
	if len(ops) <= clientsMax {
		return list
	}
	var clients []int
	for id := range ops {
		clients = append(clients, id)
	}
	slices.SortFunc(clients, func(a, b int) int { return 2*(ops[b]-ops[a]) + sign(a-b) })
	return slices.DeleteFunc(list, func(op porcupine.Operation) bool {
		s := op.Input.(step)
		return s.rev == 0 && !slices.Contains(clients[:clientsMax], op.ClientId)
	})
}

func sign(n int) int { return max(-1, min(1, n)) }

// step is one thing that happens in a window: a request, or something that
// the log says.
type step struct {
	op      *Op
	cluster bool            // The cluster did it by itself, at rev.
	all     []*mvccpb.Event // That happened from from on, up to rev.
	from    int64
	rev     int64 // That the log names. 0: none.
}
