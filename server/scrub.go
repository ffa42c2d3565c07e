package server

import (
	"context"
	"sync/atomic"
	"time"
)

// scrubbing is what the scrubber has done since the start.
type scrubbing struct {
	passes, bytes, damages atomic.Int64
	ended                  atomic.Int64 // Wall clock at the end of the last pass, in seconds.
}

// scrub reads the state's files again, pass after pass, slowly. What it finds is
// damage as if a client had met it.
func (s *Server) scrub(ctx context.Context) error {
	for {
		select {
		case <-s.cfg.Clock.After(s.cfg.ScrubInterval):
		case <-ctx.Done():
			return nil
		}
		s.scrubOnce(ctx)
	}
}

func (s *Server) scrubOnce(ctx context.Context) {
	store, err := s.replica.Use()
	if err != nil {
		return // The member is stopping.
	}
	defer store.Release()
	pass := store.Scrub()
	defer pass.Close()
	began := s.cfg.Clock.Mono()
	for s.replica.Store() == store.Store { // Else a snapshot has replaced what we read.
		read, done, err := pass.Step(scrubStepBytes)
		s.scrubs.bytes.Add(read)
		p := pass.Progress
		if err != nil {
			s.scrubs.damages.Add(1)
			s.log.Error("the scrubber could not read the state", "base-bytes", p.BaseBytes, "history-bytes", p.HistoryBytes, "segments", p.Segments, "error", err)
			s.onDamage(err)
			return
		}
		if done {
			s.scrubs.passes.Add(1)
			s.scrubs.ended.Store(s.cfg.Clock.Wall().Unix())
			s.log.Info("read all of the state again, it is intact", "base-bytes", p.BaseBytes, "history-bytes", p.HistoryBytes,
				"segments", p.Segments, "hash-compared", p.Whole, "key-indexes-mended", p.Tables, "took", s.cfg.Clock.Mono()-began)
			return
		}
		select {
		case <-s.cfg.Clock.After(time.Duration(read) * time.Second / scrubBytesPerSecond):
		case <-ctx.Done():
			return
		}
	}
}
