package snapshot

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
)

// full is a store of keys of 64 B with values of 256 B, half of them in base
// and half in history.
func full(b *testing.B, keys int) *mvcc.Store {
	cfg := mvcc.Config{FS: vfs.OS(), Dir: b.TempDir(), Clock: clock.Real(), Logger: hclog.NewNullLogger()}
	s, err := mvcc.Create(cfg, oldIdentity)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	sc := &script{}
	sc.begin(b, s)
	r := rand.New(rand.NewPCG(1, 1))
	value := make([]byte, 256)
	put := func(from, to int) {
		for i := from; i < to; {
			sc.index++
			e := s.Begin(sc.index, sc.term, int64(sc.index)*1000)
			for range 100 {
				for j := range value {
					value[j] = "0123456789abcdef"[r.IntN(16)]
				}
				tx := e.Tx()
				if _, err := tx.Put(mvcc.PutArgs{Key: fmt.Appendf(nil, "/registry/pods/namespace-%03d/pod-with-a-long-name-%016d", i%300, i), Value: value}); err != nil {
					b.Fatal(err)
				}
				tx.Commit()
				i++
			}
			if err := e.Commit(); err != nil {
				b.Fatal(err)
			}
		}
	}
	put(0, keys/2)
	sc.index++
	e := s.Begin(sc.index, sc.term, int64(sc.index)*1000)
	tx := e.Tx()
	if err := tx.Compact(s.Head()); err != nil {
		b.Fatal(err)
	}
	tx.Commit()
	if err := e.Commit(); err != nil {
		b.Fatal(err)
	}
	if err := s.WaitMerged(b.Context()); err != nil {
		b.Fatal(err)
	}
	put(keys/2, keys)
	return s
}

const benchKeys = 200_000

// How fast is a snapshot written, verified, and restored to one and to three members?
func BenchmarkSnapshot(b *testing.B) {
	s := full(b, benchKeys)
	var whole bytes.Buffer
	f, err := s.Freeze()
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := Write(b.Context(), &whole, f, WriteOptions{}); err != nil {
		b.Fatal(err)
	}
	const content = benchKeys * (64 + 256)
	path := filepath.Join(b.TempDir(), "x.snap")
	if err := os.WriteFile(path, whole.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, plain := range []bool{false, true} {
		b.Run(fmt.Sprintf("write/plain=%v", plain), func(b *testing.B) {
			b.SetBytes(content)
			for b.Loop() {
				if _, err := Write(b.Context(), io.Discard, f, WriteOptions{NoCompression: plain}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("status", func(b *testing.B) {
		b.SetBytes(content)
		for b.Loop() {
			if _, err := StatusOf(b.Context(), vfs.OS(), path, StatusOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	for members := range 3 {
		if members == 1 {
			continue
		}
		b.Run(fmt.Sprintf("restore/members=%d", members+1), func(b *testing.B) {
			b.SetBytes(content)
			for b.Loop() {
				o := RestoreOptions{Members: three(b.TempDir())[:members+1]}
				restore(b, path, o)
			}
		})
	}
}
