package mvcc

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

const goldenDir = "testdata/v1"

// story fills a store with everything a generation can hold: merged and young
// keys, deletions, leases, a long key, small rows, a configuration, a sealed
// segment with its index and a last one without.
func story(t *testing.T, s *Store) {
	w := writer{t: t, s: s}
	long := strings.Repeat("long/", 300)
	for i := range 12 {
		w.put(fmt.Sprintf("key/%02d", i), strings.Repeat("v", 20*i))
	}
	w.put(long, "a key of over a KiB")
	w.do(func(tx *Tx) error {
		_, err := tx.Put(PutArgs{Key: []byte("leased"), Value: []byte("x"), Lease: 77})
		return err
	})
	w.do(func(tx *Tx) error {
		tx.SetRow(backend.TableLease, []byte("77"), []byte("ttl 60"))
		tx.SetRow(backend.TableMember, []byte("m1"), []byte("http://127.0.0.1:2380"))
		return nil
	})
	w.delete("key/03")
	w.compact(s.Head() - 2)
	stepAll(t, s)
	w.put("key/03", "again")
	w.put("key/05", strings.Repeat("w", 3000))
	w.do(func(tx *Tx) error {
		tx.DeleteRow(backend.TableLease, []byte("77"))
		tx.SetRow(backend.TableUser, []byte("root"), []byte{})
		return nil
	})
	w.delete(long)
	w.compact(s.Head() - 3)
	if err := s.checkpoint(); err != nil { // The second compaction is not merged.
		t.Fatal(err)
	}
	w.put("last", "of all")
	e := s.Begin(w.index+1, 2, 5000)
	e.SetConfState([]byte("a configuration"))
	if err := e.Commit(); err != nil {
		t.Fatal(err)
	}
}

// describe says in words what a store holds.
func describe(t *testing.T, s *Store) string {
	var b strings.Builder
	st := s.Applied()
	fmt.Fprintf(&b, "entry %s, term %d, time %d, digest %s\nrevision %d, compacted %d, merged %d\nconfiguration %q, cluster %s, timeline %d\n",
		st.Position, st.Term, st.Time, st.Digest, st.Revision, st.Compacted, st.Merged, st.ConfState, st.Cluster, st.Timeline)
	for rev := st.Compacted; rev <= st.Revision; rev++ {
		v := s.View()
		res, err := v.Range(context.Background(), RangeArgs{Key: []byte{0}, End: []byte{0}, Revision: rev})
		v.Release()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "revision %d: %d keys\n", rev, res.Count)
		for _, kv := range res.KVs {
			r, err := parseKV(kv)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "  %.30s create %d mod %d version %d lease %d value %d bytes, crc %08x\n",
				r.key, r.create, r.mod, r.version, r.lease, len(r.value), crc32.Checksum(r.value, castagnoli))
		}
	}
	for table := backend.Table(1); int(table) < tablesMax; table++ {
		if err := s.Rows(table, func(key, value []byte) error {
			fmt.Fprintf(&b, "row %d %s = %q\n", table, key, value)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	v := s.View()
	defer v.Release()
	keys, err := v.LeaseKeys(77)
	h, hashErr := s.HashKV(context.Background(), 0)
	if err := errors.Join(err, hashErr); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "keys of lease 77: %q\nhash %08x\n", keys, h.Hash)
	return b.String()
}

func TestTheDirectoryOfVersion1Opens(t *testing.T) {
	if rewriting() {
		if err := errors.Join(os.RemoveAll(goldenDir), os.MkdirAll(goldenDir, 0o755)); err != nil {
			t.Fatal(err)
		}
		cfg := diskConfig(t)
		cfg.Dir = goldenDir
		s := mustCreate(t, cfg)
		story(t, s)
		mustClose(t, s)
	}
	cfg := copyOfGolden(t)
	s := mustOpen(t, cfg)
	golden.File(t, filepath.Join(goldenDir, "state.txt"), describe(t, s))
	w := writer{t: t, s: s}
	stepAll(t, s)
	w.put("and it goes on", "yes")
	mustClose(t, s)
	s = mustOpen(t, cfg)
	wantValue(t, s, "and it goes on", 0, "yes")
	if _, err := s.Base().Verify(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
}

func rewriting() bool { return flag.Lookup("rewrite").Value.String() == "true" }

func copyOfGolden(t *testing.T) Config {
	t.Helper()
	cfg := diskConfig(t)
	if err := os.CopyFS(cfg.Dir, os.DirFS(goldenDir)); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Base refuses newer formats in its own tests.
func TestHistoryOfANewerVersionIsRefusedByName(t *testing.T) {
	cfg := copyOfGolden(t)
	names, err := cfg.FS.List(filepath.Join(cfg.Dir, historyName))
	if err != nil {
		t.Fatal(err)
	}
	var last string
	for _, name := range names {
		if strings.HasSuffix(name, ".seg") {
			last = filepath.Join(cfg.Dir, historyName, name)
		}
	}
	patch(t, last, 8, 2)
	patch(t, last, 12, 7) // The checksum of version 2 is another.
	if s, err := Open(cfg); !errors.Is(err, history.ErrVersion) || !strings.Contains(err.Error(), last) {
		t.Fatalf("opened %v: %v", s, err)
	}
}

func patch(t *testing.T, name string, at int64, v uint32) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(binary.LittleEndian.AppendUint32(nil, v), at); err != nil {
		t.Fatal(err)
	}
}
