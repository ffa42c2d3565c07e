package wal

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Open finds the log in a folder and makes it ready for more. It changes
// nothing unless all that was ever synced is there; a *DamageError says what
// is not. A torn tail is copied, cut and reported. Each step may be cut off by
// a crash and is then done again.
func Open(cfg Config) (*Log, *Recovered, error) {
	if err := cfg.validate(); err != nil {
		return nil, nil, err
	}
	p, err := makePlan(cfg, nil)
	if err != nil {
		return nil, nil, err
	}
	l := &Log{cfg: cfg}
	if err := l.execute(p); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open raft log: %w", err), p.close(), l.closeFiles())
	}
	if err := p.close(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open raft log: %w", err), l.closeFiles())
	}
	r, err := l.recovered()
	if err != nil {
		return nil, nil, errors.Join(err, l.closeFiles())
	}
	return l, r, nil
}

func (l *Log) execute(p *plan) error {
	l.mu.index, l.mu.readable, l.mu.salt = p.index, p.index.last.Index, p.tip.chain
	l.prep.sequence = p.sequence
	l.w.state = p.state
	for i, seg := range l.mu.index.segments {
		open := l.cfg.FS.Open
		if i == len(l.mu.index.segments)-1 {
			open = l.cfg.FS.OpenWrite
		}
		f, err := open(l.cfg.path(segmentName(seg.sequence)))
		if err != nil {
			return err
		}
		seg.file = f
	}
	l.w.seg = l.mu.index.segments[len(l.mu.index.segments)-1]
	l.w.pos, l.w.synced, l.w.chain = p.tip.offset, p.tip.offset, p.tip.chain
	if err := l.rewriteTail(p); err != nil {
		return err
	}
	if err := l.tidyFolder(p); err != nil {
		return err
	}
	l.openSyncMarks()
	if len(p.cuts) > 0 {
		if err := l.recordCut(p); err != nil {
			return err
		}
	}
	if len(p.cuts) == 0 && !p.failed {
		return nil
	}
	// Never go on in a file that holds traces of what was cut, or that failed.
	if err := l.roll(); err != nil {
		return err
	}
	if err := l.Sync(); err != nil {
		return err
	}
	return l.dropMark(p)
}

// rewriteTail writes again what no mark covers. After a failed sync the cache
// shows it though the disk may not have it, and no later sync would notice.
func (l *Log) rewriteTail(p *plan) error {
	if p.durable == p.tip.offset {
		return nil
	}
	s := p.scanners[l.w.seg.sequence]
	b, err := s.bytes(p.durable, int(p.tip.offset-p.durable))
	if err != nil {
		return err
	}
	if _, err := l.w.seg.file.WriteAt(b, p.durable); err != nil {
		return l.fail("write again", err)
	}
	if err := l.w.seg.file.SyncData(); err != nil {
		return l.fail("sync again", err)
	}
	return nil
}

// tidyFolder makes a spare of what is not part of the log, and all names
// durable. Earlier spares go: if the sync that took their old name failed, the
// name may come back, and must not lead to a file with a new life.
func (l *Log) tidyFolder(p *plan) error {
	drop := append(append([]string(nil), p.spares...), p.junk...)
	for _, sequence := range append(append([]uint64(nil), p.unused...), p.outdated...) {
		name, spare := segmentName(sequence), spareName(sequence)
		// After a failure no file but the log's own is trusted.
		if p.failed || p.scanners[sequence].size != l.cfg.SegmentBytes || len(l.prep.spares) >= sparesMax {
			drop = append(drop, name)
			continue
		}
		if err := l.cfg.FS.Rename(l.cfg.path(name), l.cfg.path(spare)); err != nil {
			return err
		}
		l.prep.spares = append(l.prep.spares, spare)
	}
	for _, name := range drop {
		if err := l.cfg.FS.Remove(l.cfg.path(name)); err != nil {
			return err
		}
	}
	if err := l.cfg.FS.SyncDir(l.cfg.Dir); err != nil {
		return l.fail("sync folder", err)
	}
	return nil
}

// recordCut copies what is to be cut and puts the cut into the state, which
// the next segment begins with. There is more than one place when an earlier
// Open was cut off while it began that segment.
func (l *Log) recordCut(p *plan) error {
	for _, cut := range p.cuts {
		b, err := p.scanners[cut.sequence].bytes(cut.from, int(cut.to-cut.from))
		if err != nil {
			return err
		}
		if err := vfs.ReplaceFile(l.cfg.FS, l.cfg.path(cutName(cut.sequence, cut.from)), b); err != nil {
			return fmt.Errorf("keep a copy of a torn tail: %w", err)
		}
	}
	c, err := l.noteCut(p)
	if err != nil {
		return err
	}
	l.cfg.Logger.Warn("cut the torn tail of the raft log", "segment", c.Segment, "offset", c.Offset, "bytes", c.Bytes,
		"last", c.Last.Index, "seen", c.Seen, "copy", c.Copy)
	return nil
}

// noteCut puts what is to be cut into the state; nil when nothing is.
func (l *Log) noteCut(p *plan) (*Cut, error) {
	if len(p.cuts) == 0 {
		return nil, nil
	}
	first := p.cuts[0]
	c := Cut{
		Segment: first.sequence, Offset: first.from, Bytes: first.to - first.from,
		Last: p.state.last, Copy: cutName(first.sequence, first.from),
	}
	for _, cut := range p.cuts {
		c.Seen = max(c.Seen, cut.seen)
	}
	earlier, err := l.pendingCut()
	if err != nil {
		return nil, err
	}
	if earlier != nil {
		c.Seen = max(c.Seen, earlier.Seen)
	}
	l.w.state.notes = setNote(l.w.state.notes, Note{Kind: NoteCut, Data: encodeCut(&c)})
	return &c, nil
}

func (l *Log) pendingCut() (*Cut, error) {
	for _, n := range l.w.state.notes {
		if n.Kind == NoteCut {
			return decodeCut(n.Data)
		}
	}
	return nil, nil
}

// dropMark removes what only the cut or the failure needed, once the new
// segment is durable.
func (l *Log) dropMark(p *plan) error {
	for _, sequence := range p.torn {
		if err := l.cfg.FS.Remove(l.cfg.path(segmentName(sequence))); err != nil {
			return err
		}
	}
	if p.failed {
		l.cfg.Logger.Warn("raft log had failed, its end was written again", "dir", l.cfg.Dir, "last", l.w.state.last.Index)
		if err := l.cfg.FS.Remove(l.cfg.path(failedName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := l.cfg.FS.SyncDir(l.cfg.Dir); err != nil {
		return l.fail("sync folder", err)
	}
	return nil
}

func (l *Log) recovered() (*Recovered, error) {
	r := &Recovered{HardState: l.w.state.hs, Start: l.w.state.start, Last: l.w.state.last}
	for _, n := range l.w.state.notes {
		if n.Kind != NoteCut {
			r.Notes = append(r.Notes, Note{Kind: n.Kind, Data: append([]byte(nil), n.Data...)})
		}
	}
	for _, seg := range l.mu.index.segments {
		r.Bytes += seg.size
	}
	var err error
	r.Cut, err = l.pendingCut()
	return r, err
}
