package mvcc

import (
	"errors"
	"testing"
)

// Rule 8: what waits for a state that is being sent has a bound.
func TestAFrozenStateIsOverdueOnceACompactionWaitsAndTheQuotaComesNear(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes, cfg.QuotaBytes = 64<<10, 1<<20
	s := mustCreate(t, cfg)
	w := writer{t: t, s: s}
	fill := func(bytes int64) {
		t.Helper()
		for s.Bytes() < bytes {
			w.put("k", string(make([]byte, 1000)))
		}
	}
	freeze := func() *Frozen {
		t.Helper()
		f, err := s.Freeze()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	check := func(f *Frozen, when string, overdue bool) {
		t.Helper()
		if err := f.Overdue(); errors.Is(err, ErrOverdue) != overdue || !overdue && err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	fill(cfg.QuotaBytes / 2)
	f := freeze()
	w.compact(s.Head())
	fill(cfg.QuotaBytes * 3 / 4)
	stepAll(t, s)
	check(f, "a compaction waits and there is room", false)
	late := freeze()
	fill(cfg.QuotaBytes * 15 / 16)
	stepAll(t, s)
	check(f, "there is little room", true)
	check(late, "the same since later", true)
	last := freeze()
	check(last, "nothing has grown since", false)
	for _, f := range []*Frozen{f, late, last} {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	stepAll(t, s)
	f = freeze()
	fill(cfg.QuotaBytes * 15 / 16)
	check(f, "no compaction waits", false)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
}

// Rule 11: an archive that is down holds history, and must not fill the quota.
func TestHistoryThatOnlyOthersHoldIsNotCounted(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 64 << 10
	s := mustCreate(t, cfg)
	w := writer{t: t, s: s}
	release := s.History().Hold(1)
	for range 3 {
		for range 300 {
			w.put("k", string(make([]byte, 1000)))
		}
		w.compact(s.Head())
		stepAll(t, s)
		if size, bytes := s.Sizes().Total, s.Bytes(); size != bytes || size > cfg.SegmentBytes*5/2 {
			t.Errorf("%d bytes and %d are counted after a compaction, segments have %d", size, bytes, cfg.SegmentBytes)
		}
	}
	held := s.History().Bytes()
	if held < 900_000 {
		t.Fatalf("%d bytes are left of what is held", held)
	}
	s.cfg.HeldBytesMax = 300_000
	if bytes := s.Bytes(); bytes < held-s.cfg.HeldBytesMax {
		t.Errorf("%d bytes are counted of %d, where %d may be held", bytes, held, s.cfg.HeldBytesMax)
	}
	release()
	stepAll(t, s)
	if left, bytes := s.History().Bytes(), s.Bytes(); left > cfg.SegmentBytes*5/2 || bytes < left {
		t.Errorf("%d bytes are left that nobody holds, %d are counted", left, bytes)
	}
	mustClose(t, s)
}
