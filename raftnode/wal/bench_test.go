package wal

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// unwritten is a file system whose segments take no time, so that what is left
// is the work of the log itself.
type unwritten struct{ vfs.FS }

type unwrittenFile struct{ vfs.File }

func (u unwritten) OpenWrite(name string) (vfs.File, error) {
	f, err := u.FS.OpenWrite(name)
	return unwrittenFile{f}, err
}

func (unwrittenFile) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (unwrittenFile) SyncData() error                        { return nil }

func benchLog(b *testing.B, fs vfs.FS) *Log {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "wal")
	must(b, vfs.OS().MkdirAll(dir))
	l, err := Create(Config{FS: fs, Dir: dir, Logger: hclog.NewNullLogger()}, Mark{})
	must(b, err)
	b.Cleanup(func() { must(b, l.Close()) })
	return l
}

// appendBatch reuses entries, and gives up what was written now and then.
func appendBatch(b *testing.B, l *Log, entries []*raftpb.Entry) {
	next := uint64(l.w.state.last.Index) + 1
	for i, e := range entries {
		*e.Index = next + uint64(i)
	}
	must(b, l.Append(entries, &HardState{Term: 1, Commit: ident.Index(next - 1)}))
	must(b, l.Sync())
	if !l.Prepared() {
		must(b, l.Compact(ident.Index(next-1)))
		must(b, l.Prepare())
	}
}

// What does the log itself cost an entry, and does it allocate?
func BenchmarkAppendWithoutDisk(b *testing.B) {
	for _, count := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("%d entries of 300 B", count), func(b *testing.B) {
			l := benchLog(b, unwritten{vfs.OS()})
			entries := makeEntries(1, 1, count, 300)
			b.ReportAllocs()
			b.SetBytes(int64(count) * 300)
			for b.Loop() {
				appendBatch(b, l, entries)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*count), "ns/entry")
		})
	}
}

// What does a durable batch cost on this disk?
func BenchmarkAppendSynced(b *testing.B) {
	for _, count := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("%d entries of 300 B", count), func(b *testing.B) {
			l := benchLog(b, vfs.OS())
			entries := makeEntries(1, 1, count, 300)
			b.ReportAllocs()
			for b.Loop() {
				appendBatch(b, l, entries)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*count), "ns/entry")
		})
	}
}

// What does a follower that is behind cost the leader?
func BenchmarkEntries(b *testing.B) {
	l := benchLog(b, vfs.OS())
	must(b, l.Append(makeEntries(1, 1, 20000, 300), nil))
	must(b, l.Sync())
	b.ReportAllocs()
	lo, n := ident.Index(1), 0
	for b.Loop() {
		entries, err := l.Entries(lo, 20001, 1<<20)
		must(b, err)
		n += len(entries)
		if lo += ident.Index(len(entries)); lo > 20000 {
			lo = 1
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/entry")
}

// How long does a restart take with a full segment?
func BenchmarkOpen(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "wal")
	must(b, vfs.OS().MkdirAll(dir))
	cfg := Config{FS: vfs.OS(), Dir: dir, Logger: hclog.NewNullLogger()}
	l, err := Create(cfg, Mark{})
	must(b, err)
	for i := range ident.Index(160) {
		must(b, l.Append(makeEntries(i*1000+1, 1, 1000, 300), nil))
		must(b, l.Sync())
	}
	must(b, l.Close())
	b.ReportAllocs()
	for b.Loop() {
		l, r, err := Open(cfg)
		must(b, err)
		if r.Last.Index != 160000 {
			b.Fatal(r.Last)
		}
		must(b, l.closeFiles())
	}
}
