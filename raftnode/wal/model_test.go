package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

const testDir = "wal"

func testConfig(fs vfs.FS) Config {
	return Config{FS: fs, Dir: testDir, SegmentBytes: SegmentBytesMin, Logger: hclog.NewNullLogger()}
}

func newMem(t testing.TB) *vfstest.Mem {
	t.Helper()
	m := vfstest.NewMem()
	must(t, m.MkdirAll(testDir))
	must(t, m.SyncDir("."))
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func makeEntry(index ident.Index, term ident.Term, size int) *raftpb.Entry {
	i, tm, typ := uint64(index), uint64(term), raftpb.EntryNormal
	e := &raftpb.Entry{Index: &i, Term: &tm, Type: &typ}
	if size > 0 {
		e.Data = bytes.Repeat([]byte{byte(index) ^ byte(term)<<4 | 1}, size)
	}
	return e
}

func makeEntries(first ident.Index, term ident.Term, count, size int) []*raftpb.Entry {
	out := make([]*raftpb.Entry, count)
	for i := range out {
		out[i] = makeEntry(first+ident.Index(i), term, size)
	}
	return out
}

// view is what a log holds, in plain form.
type view struct {
	start   Mark
	entries []string // After start.
	hs      HardState
	notes   string
}

func (v view) last() ident.Index { return v.start.Index + ident.Index(len(v.entries)) }

func (v view) String() string {
	return fmt.Sprintf("start %s, %d entries, %s, notes %s", v.start, len(v.entries), v.hs, v.notes)
}

func entryText(e *raftpb.Entry) string {
	return fmt.Sprintf("%d@%d %d %x", e.GetIndex(), e.GetTerm(), e.GetType(), e.GetData())
}

func notesText(notes []Note) string {
	s := ""
	for _, n := range notes {
		if n.Kind != NoteCut {
			s += fmt.Sprintf("%d=%x;", n.Kind, n.Data)
		}
	}
	return s
}

// same compares all but the commit index, which the log may lower.
func (v view) same(o view) bool {
	if v.start != o.start || len(v.entries) != len(o.entries) || v.notes != o.notes || v.hs.Term != o.hs.Term || v.hs.Vote != o.hs.Vote {
		return false
	}
	for i := range v.entries {
		if v.entries[i] != o.entries[i] {
			return false
		}
	}
	return true
}

// viewOf reads a freshly opened log.
func viewOf(l *Log, r *Recovered) (view, error) {
	v := view{start: r.Start, hs: r.HardState, notes: notesText(r.Notes)}
	if l.Start() != r.Start || l.Last() != r.Last {
		return v, fmt.Errorf("log from %s to %s, recovered %s to %s", l.Start(), l.Last(), r.Start, r.Last)
	}
	for lo := r.Start.Index + 1; lo <= r.Last.Index; {
		entries, err := l.Entries(lo, r.Last.Index+1, 1000)
		if err != nil {
			return v, err
		}
		for _, e := range entries {
			term, err := l.Term(ident.Index(e.GetIndex()))
			if err != nil || term != ident.Term(e.GetTerm()) || ident.Index(e.GetIndex()) != lo {
				return v, fmt.Errorf("entry %d of term %d in place %d, log says term %d: %v", e.GetIndex(), e.GetTerm(), lo, term, err)
			}
			v.entries = append(v.entries, entryText(e))
			lo++
		}
	}
	if v.hs.Commit > v.last() {
		return v, fmt.Errorf("commit %d above last %d", v.hs.Commit, v.last())
	}
	return v, nil
}

// model runs a workload on a log and knows every state that a crash may leave:
// states[0] is durable, each later one has one record more.
type model struct {
	log     *Log
	created bool
	states  []view
	before  []view // As states was when the last sync ended: what a mark may not yet cover.
}

func (m *model) now() view { return m.states[len(m.states)-1] }

func (m *model) push(v view) { m.states = append(m.states, v) }

func (m *model) durable() {
	m.before = m.states
	m.states = []view{m.now()}
}

func (m *model) create(cfg Config, start Mark) error {
	m.states = []view{{start: start, hs: HardState{Commit: start.Index}}}
	l, err := Create(cfg, start)
	m.log, m.created = l, err == nil
	return err
}

func (m *model) append(entries []*raftpb.Entry, hs *HardState) error {
	v := m.now()
	if hs != nil && len(entries) > 0 && (hs.Term != v.hs.Term || hs.Vote != v.hs.Vote) {
		v.hs.Term, v.hs.Vote = hs.Term, hs.Vote
		m.push(v)
	}
	for _, e := range entries {
		v.entries = append(append([]string(nil), v.entries[:ident.Index(e.GetIndex())-v.start.Index-1]...), entryText(e))
		m.push(v)
	}
	if hs != nil {
		v.hs = *hs
		m.push(v)
	}
	return m.log.Append(entries, hs)
}

func (m *model) note(n Note) error {
	v := m.now()
	v.notes = notesText([]Note{n}) // Workloads use one kind.
	m.push(v)
	return m.log.Note(n)
}

func (m *model) sync() error {
	err := m.log.Sync()
	if err == nil {
		m.durable()
	}
	return err
}

func (m *model) compact(index ident.Index) error {
	v := m.now()
	term, err := m.log.Term(index)
	if err != nil {
		return err
	}
	v.entries = v.entries[index-v.start.Index:]
	v.start = Mark{index, term}
	m.push(v)
	if err := m.log.Compact(index); err != nil {
		return err
	}
	m.durable()
	return nil
}

func (m *model) reset(start Mark) error {
	v := m.now()
	v.start, v.entries, v.hs.Commit = start, nil, start.Index
	m.push(v)
	if err := m.log.Reset(start); err != nil {
		return err
	}
	m.durable()
	return nil
}

func (m *model) prepare() error { return m.log.Prepare() }

func (m *model) close() error {
	err := m.log.Close()
	if err == nil {
		m.durable()
	}
	return err
}

// reopen ends the process, without a power loss, and starts it again.
func (m *model) reopen(cfg Config) error {
	if err := m.close(); err != nil {
		return err
	}
	l, r, err := Open(cfg)
	if err != nil {
		return err
	}
	m.log = l
	v, err := viewOf(l, r)
	if err == nil && !v.same(m.now()) {
		err = fmt.Errorf("reopened as %s, was %s", v, m.now())
	}
	return err
}

// allows tells whether an Open may find v.
func (m *model) allows(v view) error {
	for _, s := range m.states {
		if s.same(v) && v.hs.Commit <= max(s.hs.Commit, v.start.Index) {
			return nil
		}
	}
	return fmt.Errorf("found %s, allowed are %d states from\n%s to\n%s", v, len(m.states), m.states[0], m.now())
}

// step is one call of a workload.
type step func(m *model, cfg Config) error

func appendStep(first ident.Index, term ident.Term, count, size int, hs *HardState) step {
	return func(m *model, _ Config) error { return m.append(makeEntries(first, term, count, size), hs) }
}

func syncStep(m *model, _ Config) error     { return m.sync() }
func prepareStep(m *model, _ Config) error  { return m.prepare() }
func reopenStep(m *model, cfg Config) error { return m.reopen(cfg) }
func closeStep(m *model, _ Config) error    { return m.close() }
func compactStep(i ident.Index) step        { return func(m *model, _ Config) error { return m.compact(i) } }
func resetStep(i ident.Index, t ident.Term) step {
	return func(m *model, _ Config) error { return m.reset(Mark{i, t}) }
}
func noteStep(data string) step {
	return func(m *model, _ Config) error { return m.note(Note{Kind: 3, Data: []byte(data)}) }
}

type workload struct {
	name  string
	start Mark
	steps []step
}

func workloads() []workload {
	hs := func(term ident.Term, vote ident.MemberID, commit ident.Index) *HardState {
		return &HardState{term, vote, commit}
	}
	return []workload{
		{"one batch", Mark{}, []step{appendStep(1, 1, 3, 100, hs(1, 7, 0)), syncStep}},
		{"batches with commits, closed in order", Mark{}, []step{
			appendStep(1, 1, 1, 10, hs(1, 7, 0)), syncStep,
			appendStep(2, 1, 5, 300, hs(1, 7, 1)), syncStep,
			appendStep(7, 1, 0, 0, hs(1, 7, 6)), syncStep, closeStep,
		}},
		{"entries are superseded, in place of some that were never synced", Mark{10, 2}, []step{
			appendStep(11, 2, 5, 200, hs(2, 7, 10)), syncStep,
			appendStep(16, 2, 3, 200, nil),
			appendStep(14, 3, 2, 100, hs(3, 8, 12)), syncStep,
			appendStep(15, 4, 4, 700, hs(4, 0, 13)), syncStep,
		}},
		{"segments are made inline and ahead", Mark{}, []step{
			appendStep(1, 1, 4, 900, nil), syncStep,
			appendStep(5, 1, 4, 900, nil), prepareStep, syncStep,
			appendStep(9, 1, 9, 900, hs(1, 1, 9)), syncStep, prepareStep,
		}},
		{"compaction recycles segments", Mark{}, []step{
			noteStep("base 1"), appendStep(1, 1, 12, 900, hs(1, 1, 0)), syncStep,
			noteStep("base 2"), compactStep(9), prepareStep,
			appendStep(13, 1, 9, 900, hs(1, 1, 12)), syncStep,
			compactStep(20), prepareStep, appendStep(22, 2, 4, 900, nil), syncStep, reopenStep,
			appendStep(26, 2, 1, 50, nil), syncStep,
		}},
		{"a snapshot empties the log", Mark{}, []step{
			appendStep(1, 1, 6, 900, hs(1, 1, 3)), syncStep, noteStep("kept"),
			resetStep(50, 3), prepareStep,
			appendStep(51, 3, 6, 900, hs(3, 2, 50)), syncStep, prepareStep,
			resetStep(100, 4), appendStep(101, 4, 2, 100, nil), syncStep,
		}},
		{"compaction to the end, supersession after it", Mark{}, []step{
			appendStep(1, 1, 8, 600, nil), syncStep, compactStep(8), prepareStep,
			appendStep(9, 1, 3, 600, nil), syncStep, appendStep(9, 2, 1, 600, hs(2, 2, 8)), syncStep,
			reopenStep, reopenStep, appendStep(10, 2, 6, 600, nil), syncStep, compactStep(9), prepareStep,
		}},
	}
}

// run does the workload and stops at the first error.
func (w workload) run(cfg Config, m *model) error {
	if err := m.create(cfg, w.start); err != nil {
		return err
	}
	for _, s := range w.steps {
		if err := s(m, cfg); err != nil {
			return err
		}
	}
	return nil
}

// openView opens, reads everything and closes without adding anything: as
// a process that was killed.
func openView(fs vfs.FS) (view, *Recovered, error) {
	l, r, err := Open(testConfig(fs))
	if err != nil {
		return view{}, nil, err
	}
	v, err := viewOf(l, r)
	return v, r, errors.Join(err, l.closeFiles())
}

func seededRand(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, seed))
}
