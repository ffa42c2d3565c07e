package server_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// hanging is a disk that can hang with what is below gen-…: the state, but not the log.
type hanging struct {
	vfs.FS
	hang sync.RWMutex // Locked while it hangs.
}

func (h *hanging) wait(name string) {
	if strings.Contains(name, "gen-") {
		h.hang.RLock()
		defer h.hang.RUnlock()
	}
}

func (h *hanging) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &hangingFile{f, h}, nil
}

func (h *hanging) Create(name string) (vfs.File, error) {
	h.wait(name)
	return h.wrap(h.FS.Create(name))
}

func (h *hanging) Open(name string) (vfs.File, error) { return h.wrap(h.FS.Open(name)) }

func (h *hanging) OpenWrite(name string) (vfs.File, error) { return h.wrap(h.FS.OpenWrite(name)) }

type hangingFile struct {
	vfs.File
	on *hanging
}

func (f *hangingFile) WriteAt(b []byte, at int64) (int, error) {
	f.on.wait(f.Name())
	return f.File.WriteAt(b, at)
}

func (f *hangingFile) ReadAt(b []byte, at int64) (int, error) {
	f.on.wait(f.Name())
	return f.File.ReadAt(b, at)
}

func (f *hangingFile) SyncData() error {
	f.on.wait(f.Name())
	return f.File.SyncData()
}

// A leader whose log works and whose state hangs commits what it is told, and answers
// nobody: without a word of its own it would lead for ever.
func TestALeaderWhoseStateHangsHandsOver(t *testing.T) {
	quick.LeaveOut(t)
	disks := make([]*hanging, 3)
	c := servertest.New(t, 3, func(i int, cfg *server.Config) {
		disks[i] = &hanging{FS: vfs.OS()}
		cfg.FS, cfg.QuotaBytes = disks[i], 64<<20 // So a segment of history has 4 MiB, and soon another one is needed.
	})
	old := slices.Index(c.Members, c.Leader())
	kv := pb.NewKVClient(dial(t, c.Members[(old+1)%3]))
	disks[old].hang.Lock()
	t.Cleanup(sync.OnceFunc(disks[old].hang.Unlock)) // Before the members stop.
	value := make([]byte, 500<<10)
	put := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: value})
		return err
	}
	eventually(t, "another leader", func() bool {
		_ = put(time.Second) // The first few are answered by members that hear of their commit; then none is known to be.
		return !c.Members[old].IsLeader()
	})
	eventually(t, "a write under it", func() bool { return put(readyMax) == nil })
}
