package mvcc

import (
	"flag"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

var roundsFlag = flag.Int("mvcc.rounds", 10, "rounds of a second with a merge and a second without")

// BenchmarkTheLogBesideAMerge answers what a merge costs the syncs of the Raft
// log, which lies on the same disk: seconds with a merge of keys written once
// and seconds without take turns, so that whatever else the machine does falls
// on both.
func BenchmarkTheLogBesideAMerge(b *testing.B) {
	cfg := figuresConfig(b)
	cfg.Manual = true
	s := mustCreate(b, cfg)
	index := fillKeys(b, s, 1, 0, *figuresFlag, make([]byte, 256))
	compactAt(b, s, index, s.Head())
	for s.background.merge == nil { // All that is not the merge.
		if _, err := s.Step(); err != nil {
			b.Fatal(err)
		}
	}
	log := newSyncedLog(b, cfg.Dir)
	defer log.Close()
	var alone, beside []time.Duration
	steps := 0
	before := s.background.merge.keys
	for range *roundsFlag {
		alone = append(alone, log.second()...)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for s.background.merge != nil {
				began := time.Now()
				if _, err := s.stepMerge(); err != nil {
					b.Error(err)
					return
				}
				steps++
				select {
				case <-stop:
					return
				case <-time.After(mergeRest * time.Since(began)):
				}
			}
		}()
		beside = append(beside, log.second()...)
		close(stop)
		<-stopped
	}
	if s.background.merge == nil {
		b.Fatal("the merge ended too soon: take more keys with -mvcc.figures")
	}
	seconds := float64(*roundsFlag)
	b.ReportMetric(float64(s.background.merge.keys-before)/seconds, "keys/s")
	b.ReportMetric(float64(steps)/seconds, "transactions/s")
	b.ReportMetric(float64(len(alone))/seconds, "syncs/s-alone")
	b.ReportMetric(float64(len(beside))/seconds, "syncs/s-beside")
	b.ReportMetric(100*float64(len(beside))/float64(len(alone)), "%kept")
	for name, took := range map[string][]time.Duration{"alone": alone, "beside": beside} {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us-"+name)
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us-"+name)
	}
	s.background.merge = nil
	mustClose(b, s)
}

// syncedLog is a file that is written as the Raft log is.
type syncedLog struct {
	vfs.File
	b  *testing.B
	at int64
}

const (
	logBytes   = 64 << 20
	batchBytes = 12 << 10 // Of some thirty puts.
)

func newSyncedLog(b *testing.B, dir string) *syncedLog {
	f, err := vfs.OS().Create(filepath.Join(dir, "log"))
	if err == nil {
		err = f.Allocate(logBytes)
	}
	if err != nil {
		b.Fatal(err)
	}
	return &syncedLog{File: f, b: b}
}

// second writes and syncs for a second, and tells how long each took.
func (l *syncedLog) second() (took []time.Duration) {
	batch := make([]byte, batchBytes)
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		began := time.Now()
		if _, err := l.WriteAt(batch, l.at); err != nil {
			l.b.Fatal(err)
		}
		if err := l.SyncData(); err != nil {
			l.b.Fatal(err)
		}
		took = append(took, time.Since(began))
		l.at = (l.at + batchBytes) % (logBytes - batchBytes)
	}
	return took
}

// Rule 12: transactions stay small by the pages they change, and are few where
// keys share pages.
func TestAMergeIsCutByThePagesThatItChanges(t *testing.T) {
	s := mustCreate(t, testConfig(t))
	defer mustClose(t, s)
	const keys = 20_000
	index := ident.Index(1)
	for _, c := range []struct {
		what     string
		min, max uint64 // Transactions.
	}{
		{"keys that are new", 4, 8},
		{"keys that have rows", 20, 30},
	} {
		index = fillKeys(t, s, index, 0, keys, make([]byte, 256))
		index = compactAt(t, s, index, s.Head())
		for s.background.merge == nil {
			if _, err := s.Step(); err != nil {
				t.Fatal(err)
			}
		}
		began := s.db.TxID() - 1 // The step that began it did the first.
		for s.background.merge != nil {
			if _, err := s.stepMerge(); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.db.TxID() - began; n < c.min || n > c.max {
			t.Errorf("%d %s were merged in %d transactions, want %d to %d", keys, c.what, n, c.min, c.max)
		}
		stepAll(t, s)
	}
}
