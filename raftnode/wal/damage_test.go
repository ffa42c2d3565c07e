package wal

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

var flipsFlag = flag.Int("flips", 5, "flip one bit in every so many bytes")

// refusedOrCut opens a damaged log. It may be refused by name, or be whole, or
// have lost what no mark covers and say so.
func refusedOrCut(fs *vfstest.Mem, m *model) (refused bool, err error) {
	v, r, err := openView(fs)
	var damage *DamageError
	switch {
	case errors.As(err, &damage):
		if !strings.HasPrefix(damage.File, testDir) || damage.Reason == "" {
			return true, fmt.Errorf("refused without saying where and why: %w", err)
		}
		return true, nil
	case err != nil:
		return false, err
	case v.same(m.now()):
		return false, nil
	case r.Cut == nil:
		return false, fmt.Errorf("found %s without a word, was %s", v, m.now())
	}
	whole := model{states: append(append([]view(nil), m.before...), m.states...)}
	return false, whole.allows(v)
}

func TestOneFlippedBitIsRefusedOrCutAboveTheMark(t *testing.T) {
	total, refusals := 0, 0
	apart := *flipsFlag * quick.Stride()
	for _, w := range workloads() {
		t.Run(w.name, func(t *testing.T) {
			rnd := seededRand(t, 2)
			fs := newMem(t)
			m := &model{}
			must(t, w.run(testConfig(fs), m))
			names, err := fs.List(testDir)
			must(t, err)
			for _, name := range names {
				name = testDir + "/" + name
				for at := int64(rnd.IntN(apart)); at < SegmentBytesMin; at += 1 + int64(rnd.IntN(2*apart)) {
					damaged := fs.Crash(vfstest.Crash{Image: vfstest.Everything})
					bit := uint(rnd.IntN(8))
					must(t, damaged.Flip(name, at, bit))
					refused, err := refusedOrCut(damaged, m)
					if err != nil {
						t.Fatalf("bit %d of %s at %d: %v", bit, name, at, err)
					}
					total++
					if refused {
						refusals++
					}
				}
			}
		})
	}
	t.Logf("%d flips, %d refused", total, refusals)
}

func TestALogThatWasSyncedRefusesEveryFlipInItsRecords(t *testing.T) {
	for name, end := range map[string]func(m *model) error{
		"and closed in order": func(m *model) error { return m.close() },
		"and killed":          func(m *model) error { return m.log.closeFiles() },
	} {
		t.Run(name, func(t *testing.T) {
			fs := newMem(t)
			m := &model{}
			must(t, m.create(testConfig(fs), Mark{}))
			must(t, m.append(makeEntries(1, 1, 3, 100), &HardState{Term: 1, Vote: 1}))
			must(t, m.sync())
			length := m.log.w.pos
			must(t, end(m))
			for at := int64(0); at < length; at++ {
				for bit := range uint(8) {
					damaged := fs.Crash(vfstest.Crash{Image: vfstest.Everything})
					must(t, damaged.Flip(testDir+"/"+segmentName(1), at, bit))
					if refused, err := refusedOrCut(damaged, m); err != nil || !refused {
						t.Fatalf("bit %d at %d of %d: refused %v, %v", bit, at, length, refused, err)
					}
				}
			}
		})
	}
}

// The mark only adds to what records say: without it, or with half of it, a log
// opens as well.
func TestAMarkThatDoesNotHoldSaysNothing(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, fs *vfstest.Mem, mark string){
		"removed":   func(t *testing.T, fs *vfstest.Mem, mark string) { must(t, fs.Remove(mark)) },
		"cut short": func(t *testing.T, fs *vfstest.Mem, mark string) { must(t, vfs.ReplaceFile(fs, mark, []byte("hfsync"))) },
		"flipped": func(t *testing.T, fs *vfstest.Mem, mark string) {
			must(t, fs.Flip(mark, 25, 3))
			must(t, fs.Flip(mark, markSlotStep+25, 3))
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := newMem(t)
			m := &model{}
			must(t, m.create(testConfig(fs), Mark{}))
			for i := range 3 {
				must(t, m.append(makeEntries(ident.Index(i+1), 1, 1, 100), nil))
				must(t, m.sync())
			}
			must(t, m.log.closeFiles())
			damage(t, fs, testDir+"/"+markFileName)
			v, r, err := openView(fs)
			if err != nil || r.Cut != nil || !v.same(m.now()) {
				t.Fatalf("found %s, cut %v, %v", v, r, err)
			}
		})
	}
}

func TestTheMarkNamesASegmentThatIsGone(t *testing.T) {
	fs := newMem(t)
	m := &model{}
	must(t, m.create(testConfig(fs), Mark{}))
	must(t, m.append(makeEntries(1, 1, 8, 900), nil))
	must(t, m.sync())
	must(t, m.log.closeFiles())
	must(t, fs.Remove(testDir+"/"+segmentName(2)))
	_, _, err := openView(fs)
	var damage *DamageError
	if !errors.As(err, &damage) || !strings.Contains(err.Error(), segmentName(2)+" at offset 0: is missing") {
		t.Fatalf("got %v", err)
	}
}

func TestDamagedPlacesAreNamed(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, fs *vfstest.Mem)
		want   string // "" when the log opens.
	}{
		{"a zeroed page in the middle", func(t *testing.T, fs *vfstest.Mem) { zero(t, fs, 2, 512, 512) }, "0000000000000002.wal at offset 176: no record that continues"},
		{"a segment is missing", func(t *testing.T, fs *vfstest.Mem) { must(t, fs.Remove(testDir+"/"+segmentName(2))) }, "entries 1 to 8 were in segment 2, which is missing"},
		{"the first segment is missing", func(t *testing.T, fs *vfstest.Mem) { must(t, fs.Remove(testDir+"/"+segmentName(1))) }, "entries 1 to 4 were in segment 1, which is missing"},
		{"a segment stands under the name of another", func(t *testing.T, fs *vfstest.Mem) {
			must(t, fs.Rename(testDir+"/"+segmentName(1), testDir+"/"+segmentName(2)))
		}, "holds segment 1, its name says 2"},
		{"the newest segment lost all its records", func(t *testing.T, fs *vfstest.Mem) { zero(t, fs, 3, 64, 2000) }, "but all up to 3064 was synced"},
		{"a segment shrank", func(t *testing.T, fs *vfstest.Mem) {
			f, err := fs.OpenWrite(testDir + "/" + segmentName(2))
			must(t, err)
			must(t, f.Truncate(1000))
			must(t, f.Close())
		}, "no record that continues"},
		{"bytes beyond the end of an old segment", func(t *testing.T, fs *vfstest.Mem) { zero(t, fs, 1, 4000, 96) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := newMem(t)
			m := &model{}
			must(t, m.create(testConfig(fs), Mark{}))
			must(t, m.append(makeEntries(1, 1, 10, 900), nil))
			must(t, m.sync())
			must(t, m.append(makeEntries(11, 1, 1, 900), nil))
			must(t, m.sync())
			must(t, m.close())
			c.damage(t, fs)
			_, _, err := openView(fs)
			if c.want == "" {
				must(t, err)
				return
			}
			var damage *DamageError
			if !errors.As(err, &damage) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A record may hold by itself and yet be none of this history: one that a disk
// kept from an earlier write to the same place.
func TestARecordOfAnotherHistoryBreaksTheChain(t *testing.T) {
	make := func(size int, first byte) (*vfstest.Mem, *model) {
		fs := newMem(t)
		m := &model{}
		must(t, m.create(testConfig(fs), Mark{}))
		e := makeEntry(1, 1, size)
		e.Data[0] = first
		must(t, m.append([]*raftpb.Entry{e}, nil))
		must(t, m.append(makeEntries(2, 1, 2, size), nil))
		must(t, m.sync())
		must(t, m.close())
		return fs, m
	}
	ours, _ := make(100, 1)
	theirs, m := make(100, 2)
	name := testDir + "/" + segmentName(1)
	b, err := vfs.ReadFile(theirs, name)
	must(t, err)
	at := int64(m.log.mu.index.segments[0].offsets[0])
	f, err := ours.OpenWrite(name)
	must(t, err)
	_, err = f.WriteAt(b[at:at+int64(recordBytes(entryBytes+100))], at)
	must(t, err)
	must(t, f.Close())
	var damage *DamageError
	if _, _, err := openView(ours); !errors.As(err, &damage) || damage.Offset != int64(m.log.mu.index.segments[0].offsets[1]) {
		t.Fatalf("got %v", err)
	}
}

func zero(t *testing.T, fs *vfstest.Mem, sequence uint64, at int64, n int) {
	t.Helper()
	f, err := fs.OpenWrite(testDir + "/" + segmentName(sequence))
	must(t, err)
	_, err = f.WriteAt(make([]byte, n), at)
	must(t, err)
	must(t, f.Close())
}

// A record that a crash left behind the torn one must not be taken for the
// continuation when the torn one is written again, byte for byte.
func TestALeftoverIsNotTakenUpWhenTheGapIsWrittenAgain(t *testing.T) {
	fs := newMem(t)
	m := &model{}
	must(t, m.create(testConfig(fs), Mark{}))
	must(t, m.append(makeEntries(1, 1, 1, 100), nil))
	must(t, m.sync())
	gap, end := m.log.w.pos, m.log.w.pos+int64(recordBytes(entryBytes+100))
	must(t, m.append(makeEntries(2, 1, 2, 100), nil))
	must(t, m.log.flush()) // The power goes before the sync.
	zero(t, fs, 1, gap, int(end-gap))
	must(t, m.log.closeFiles())

	l, r, err := Open(testConfig(fs))
	must(t, err)
	if r.Last.Index != 1 || r.Cut == nil || r.Cut.Seen != 3 || r.Cut.Offset != gap {
		t.Fatalf("recovered %+v, cut %+v", r, r.Cut)
	}
	must(t, l.Append(makeEntries(2, 1, 1, 100), nil))
	must(t, l.Sync())
	must(t, l.closeFiles())
	l, r, err = Open(testConfig(fs))
	must(t, err)
	if r.Last.Index != 2 || r.Cut == nil {
		t.Fatalf("recovered %+v", r)
	}

	// The cut is reported until it is cleared, and its copy stays.
	must(t, l.ClearCut())
	must(t, l.Sync())
	must(t, l.Close())
	l, r, err = Open(testConfig(fs))
	must(t, err)
	if r.Cut != nil {
		t.Fatalf("a cleared cut came back: %+v", r.Cut)
	}
	must(t, l.Close())
	if info, err := fs.Stat(testDir + "/" + cutName(1, gap)); err != nil || info.Size == 0 {
		t.Fatalf("copy of the cut bytes: %+v, %v", info, err)
	}
}
