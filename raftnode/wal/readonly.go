package wal

import (
	"errors"
	"fmt"
)

// OpenRead opens a log to look at: nothing in the folder is changed, and every
// write is refused. What Open would cut is reported in the same way, but Copy
// names a file that nobody has made.
func OpenRead(cfg Config) (*Log, *Recovered, error) {
	if err := cfg.validate(); err != nil {
		return nil, nil, err
	}
	p, err := makePlan(cfg, nil)
	if err != nil {
		return nil, nil, err
	}
	l := &Log{cfg: cfg}
	l.mu.index, l.mu.readable, l.mu.failed = p.index, p.index.last.Index, ErrReadOnly
	l.w.state = p.state
	for _, seg := range l.mu.index.segments {
		if seg.file, err = cfg.FS.Open(cfg.path(segmentName(seg.sequence))); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("open raft log: %w", err), p.close(), l.closeFiles())
		}
	}
	_, err = l.noteCut(p)
	if err = errors.Join(err, p.close()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open raft log: %w", err), l.closeFiles())
	}
	r, err := l.recovered()
	if err != nil {
		return nil, nil, errors.Join(err, l.closeFiles())
	}
	r.Failed = p.failed
	return l, r, nil
}
