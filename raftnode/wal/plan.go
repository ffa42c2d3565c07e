package wal

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// cutSampleBytes is kept of a torn place whose extent nothing tells.
const cutSampleBytes = 4 << 10

// plan is what is in a folder and what Open will do about it. Making one
// changes nothing, so it also serves Verify.
type plan struct {
	cfg   Config
	visit func(Info) error

	scanners map[uint64]*scanner
	order    []uint64 // Of scanners, ascending.
	begins   map[uint64]begin

	path     []uint64 // The segments that make the log, oldest first.
	outdated []uint64 // Before the path: given up earlier.
	unused   []uint64 // After the path, never begun.
	torn     []uint64 // After the path, begun and broken off.
	spares   []string
	junk     []string // Half-made files.
	failed   bool     // FAILED is there.
	mark     syncMark // Of SYNCED.
	sequence uint64   // The next.

	index   index
	floor   ident.Index // Entries up to here lie in segments that are gone.
	state   state
	tip     chainEnd     // The end of the log in the last segment of path.
	durable int64        // The highest mark for that segment.
	cuts    []pendingCut // In the order of the log.
}

// pendingCut is a cut to be made.
type pendingCut struct {
	sequence uint64
	from, to int64
	seen     ident.Index
}

func makePlan(cfg Config, visit func(Info) error) (*plan, error) {
	p := &plan{cfg: cfg, visit: visit, scanners: make(map[uint64]*scanner), begins: make(map[uint64]begin), sequence: 1}
	err := p.list()
	for _, step := range []func() error{p.readBegins, p.findPath, p.replay, p.judgeRest, p.finish} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *plan) close() error {
	var errs []error
	for _, sequence := range p.order {
		errs = append(errs, p.scanners[sequence].file.Close())
	}
	return errors.Join(errs...)
}

// list opens every segment and sorts the other files by name.
func (p *plan) list() error {
	names, err := p.cfg.FS.List(p.cfg.Dir)
	if err != nil {
		return fmt.Errorf("open raft log: %w", err)
	}
	for _, name := range names {
		sequence, numbered := sequenceOf(name)
		if numbered {
			p.sequence = max(p.sequence, sequence+1)
		}
		switch {
		case name == failedName:
			p.failed = true
		case name == markFileName:
			if p.mark, err = readSyncMark(p.cfg.FS, p.cfg.path(name)); err != nil {
				return err
			}
		case strings.HasSuffix(name, ".tmp"), strings.HasPrefix(name, newPrefix):
			p.junk = append(p.junk, name)
		case strings.HasPrefix(name, sparePrefix):
			p.spares = append(p.spares, name)
		case numbered && name == segmentName(sequence):
			s, err := openScanner(p.cfg.FS, p.cfg.path(name), sequence)
			if err != nil {
				return err
			}
			p.scanners[sequence] = s
			p.order = append(p.order, sequence)
		}
	}
	sort.Slice(p.order, func(i, j int) bool { return p.order[i] < p.order[j] })
	return nil
}

// readBegins reads the first record of each segment that was begun.
func (p *plan) readBegins() error {
	for _, sequence := range p.order {
		s := p.scanners[sequence]
		r, ok, err := s.record(headerBytes)
		if err != nil {
			return err
		}
		if !ok || r.header.kind != kindBegin || r.header.prev != s.seed {
			continue
		}
		g, err := decodeBegin(r.payload)
		if err != nil {
			return s.damaged(headerBytes, err.Error())
		}
		if g.contradictory() {
			return s.damaged(headerBytes, "begin contradicts itself: "+g.String())
		}
		p.begins[sequence] = g
	}
	return nil
}

// findPath follows the links between segments back from the newest begun.
func (p *plan) findPath() error {
	for _, sequence := range p.order {
		if _, begun := p.begins[sequence]; begun {
			p.path = []uint64{sequence}
		}
	}
	if len(p.path) == 0 {
		if len(p.order) > 0 {
			return p.scanners[p.order[0]].damaged(headerBytes, "the first record does not hold, and no other segment has one")
		}
		return fmt.Errorf("%s: %w", p.cfg.Dir, ErrNotFound)
	}
	for first := p.path[0]; !p.begins[first].reset && p.begins[first].prevSequence != 0; first = p.path[0] {
		prev := p.begins[first].prevSequence
		if prev >= first {
			return p.scanners[first].damaged(headerBytes, fmt.Sprintf("follows segment %x", prev))
		}
		s := p.scanners[prev]
		if s == nil {
			break // Gone; replay finds out whether it may be.
		}
		if _, begun := p.begins[prev]; !begun {
			return s.damaged(headerBytes, fmt.Sprintf("the first record does not hold, and segment %x follows", first))
		}
		p.path = append([]uint64{prev}, p.path...)
	}
	return nil
}

// replay reads the records of the path in order.
func (p *plan) replay() error {
	for i, sequence := range p.path {
		s, g := p.scanners[sequence], p.begins[sequence]
		seg := &segment{sequence: sequence, seed: s.seed, size: s.size}
		p.index.segments = append(p.index.segments, seg)
		if i == 0 {
			p.state = g.state
			p.floor = g.state.last.Index
			p.index.start, p.index.last = g.state.start, g.state.last
		} else if g.state.last != p.index.last || g.state.hs != p.state.hs || g.state.start != p.state.start {
			return s.damaged(headerBytes, fmt.Sprintf("goes on after %s, the segment before ends at %s", g.state.last, p.index.last))
		}
		p.state.notes = g.state.notes
		if err := p.show(Info{File: s.name, Bytes: headerBytes, Kind: "segment", Detail: fmt.Sprintf("%x", sequence)}); err != nil {
			return err
		}
		var next *begin
		if i+1 < len(p.path) {
			g := p.begins[p.path[i+1]]
			next = &g
		}
		if err := p.replaySegment(s, seg, next); err != nil {
			return err
		}
	}
	if p.index.start.Index < p.floor {
		return p.scanners[p.path[0]].damaged(0, fmt.Sprintf("entries %d to %d were in segment %x, which is missing",
			p.index.start.Index+1, p.floor, p.begins[p.path[0]].prevSequence))
	}
	return nil
}

// replaySegment reads to the end that the next segment names, or else as far
// as the chain holds.
func (p *plan) replaySegment(s *scanner, seg *segment, next *begin) error {
	end := chainEnd{offset: headerBytes, chain: s.seed}
	p.durable = headerBytes
	for next == nil || end.offset < int64(next.prevEnd) {
		r, ok, err := s.record(end.offset)
		if err != nil {
			return err
		}
		if !ok || r.header.prev != end.chain {
			break
		}
		if err := p.apply(s, seg, r); err != nil {
			return err
		}
		p.durable = max(p.durable, int64(r.header.synced))
		end = chainEnd{offset: r.end, chain: r.header.crc}
	}
	if next != nil && end != (chainEnd{offset: int64(next.prevEnd), chain: next.prevChain}) {
		return s.damaged(end.offset, fmt.Sprintf("no record that continues the log, the next segment says it goes on to %d", next.prevEnd))
	}
	p.tip = end
	return nil
}

// apply takes in one record. What the writer never writes is damage, though
// its checksum holds.
func (p *plan) apply(s *scanner, seg *segment, r found) error {
	var err error
	switch r.header.kind {
	case kindBegin:
		if r.at != headerBytes {
			err = errors.New("a second begin")
		}
	case kindEntry:
		err = p.applyEntry(seg, r)
	case kindHardState:
		err = p.applyHardState(r.payload)
	case kindStart:
		err = p.applyStart(r.payload)
	case kindNote:
		var n Note
		if n, err = decodeNote(r.payload); err == nil {
			p.state.notes = setNote(p.state.notes, n)
		}
	case kindEnd:
		if len(r.payload) > 0 {
			err = fmt.Errorf("end with %d bytes: %w", len(r.payload), errPayload)
		}
	default:
		err = fmt.Errorf("%s is unknown in version %d", r.header.kind, formatVersion)
	}
	if err != nil {
		return s.damaged(r.at, err.Error())
	}
	if p.visit == nil {
		return nil
	}
	return p.visit(p.describe(s, r))
}

func (p *plan) applyHardState(payload []byte) error {
	hs, err := decodeHardState(payload)
	if err != nil {
		return err
	}
	if now := p.state.hs; hs.Term < now.Term || hs.Commit < now.Commit || hs.Commit > p.index.last.Index {
		return fmt.Errorf("hard state goes from %s to %s with a last entry %s", now, hs, p.index.last)
	}
	p.state.hs = hs
	return nil
}

func (p *plan) applyStart(payload []byte) error {
	start, err := decodeMark(payload)
	if err != nil {
		return err
	}
	if start.Index <= p.state.start.Index || start.Index > p.index.last.Index {
		return fmt.Errorf("start moves from %s to %s with a last entry %s", p.state.start, start, p.index.last)
	}
	p.state.start, p.index.start = start, start
	return nil
}

func (p *plan) applyEntry(seg *segment, r found) error {
	m, err := entryMark(r.payload)
	if err != nil {
		return err
	}
	if m.Index > p.index.last.Index+1 || m.Index <= max(p.state.start.Index, p.state.hs.Commit) {
		return fmt.Errorf("entry %s onto a log from %s to %s, committed to %d", m, p.state.start, p.index.last, p.state.hs.Commit)
	}
	if before := m.Index - 1; before > p.floor && m.Term < p.index.term(before) {
		return fmt.Errorf("entry %s after one of term %d", m, p.index.term(before))
	}
	// The segments that held what this one supersedes may be gone.
	p.floor = min(p.floor, m.Index-1)
	p.index.add(seg, uint32(r.at), m)
	return nil
}

// describe tells people what apply took in.
func (p *plan) describe(s *scanner, r found) Info {
	i := Info{File: s.name, Offset: r.at, Bytes: r.end - r.at, Kind: r.header.kind.String(), Synced: int64(r.header.synced)}
	switch r.header.kind {
	case kindBegin:
		i.Mark, i.Detail = p.begins[s.sequence].state.last, p.begins[s.sequence].String()
	case kindEntry:
		i.Mark, i.Detail = p.index.last, fmt.Sprintf("%d bytes", len(r.payload)-entryBytes)
	case kindHardState:
		i.Detail = p.state.hs.String()
	case kindStart:
		i.Mark = p.state.start
	case kindNote:
		i.Detail = fmt.Sprintf("kind %d, %d bytes", r.payload[0], len(r.payload)-1)
	}
	return i
}

func (p *plan) show(i Info) error {
	if p.visit == nil {
		return nil
	}
	return p.visit(i)
}

// judgeRest tells the end of the log from a torn tail and a torn tail from
// damage, and sorts out the segments that are not on the path.
func (p *plan) judgeRest() error {
	tip := p.path[len(p.path)-1]
	if p.mark.sequence > tip && p.scanners[p.mark.sequence] == nil {
		name := p.cfg.path(segmentName(p.mark.sequence))
		return &DamageError{File: name, Reason: fmt.Sprintf("is missing, and all of it up to %d was synced", p.mark.offset)}
	}
	if err := p.judge(tip, p.tip.offset, p.durable, nil); err != nil {
		return err
	}
	for _, sequence := range p.order {
		switch {
		case sequence < p.path[0]:
			p.outdated = append(p.outdated, sequence)
		case sequence > tip:
			if err := p.judge(sequence, headerBytes, headerBytes, &p.torn); err != nil {
				return err
			}
		case !p.onPath(sequence):
			p.unused = append(p.unused, sequence) // Cut by an earlier Open.
		}
	}
	return nil
}

func (p *plan) onPath(sequence uint64) bool {
	for _, s := range p.path {
		if s == sequence {
			return true
		}
	}
	return false
}

// judge looks at what follows the last good record of a segment. Segments
// beyond the path go to torn, or to unused.
func (p *plan) judge(sequence uint64, at, durable int64, torn *[]uint64) error {
	s := p.scanners[sequence]
	clean, err := s.terminated(at)
	if err != nil {
		return err
	}
	t, err := s.tracesFrom(at)
	if err != nil {
		return err
	}
	if p.mark.sequence == sequence {
		durable = max(durable, int64(p.mark.offset))
	}
	if durable = max(durable, t.synced); at < durable {
		return s.damaged(at, fmt.Sprintf("no record that continues the log, but all up to %d was synced", durable))
	}
	info := Info{File: s.name, Offset: at, Kind: "clean end", Synced: durable}
	switch {
	case clean && !t.any:
		if torn != nil {
			info.Kind = "never used"
			p.unused = append(p.unused, sequence)
		}
	default:
		c := pendingCut{sequence: sequence, from: at, to: t.end, seen: t.seen}
		if c.to == c.from {
			c.to = min(at+cutSampleBytes, s.size)
		}
		p.cuts = append(p.cuts, c)
		if torn != nil {
			*torn = append(*torn, sequence)
		}
		info.Kind, info.Bytes = "torn tail", c.to-c.from
	}
	return p.show(info)
}

// finish completes the index.
func (p *plan) finish() error {
	for _, seg := range p.index.compact(p.state.start) {
		p.outdated = append(p.outdated, seg.sequence)
	}
	p.state.last = p.index.last
	return nil
}
