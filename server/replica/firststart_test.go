package replica

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

var first = datadir.Identity{Cluster: member.ClusterID([]ident.MemberID{1}), Member: 1, Timeline: 1, Incarnation: 5}

// startFirst is a start as the server makes it: create, unless somebody lives
// there, then open log and store. Base lies in baseDir, on a real disk.
func startFirst(fsys vfs.FS, walDir, baseDir string) error {
	dir, err := datadir.Open(fsys, "/member/data")
	if err != nil {
		return err
	}
	defer dir.Close()
	cfg := Config{FS: fsys, Dir: dir, WALDir: walDir, WALBytes: 64 << 10, Clock: clock.Real(), Logger: hclog.NewNullLogger(), Tune: func(_ int, c *mvcc.Config) {
		c.Manual, c.BaseFS, c.BaseDir, c.BaseNoSync = true, vfs.OS(), baseDir, true
	}}
	switch id, err := dir.Identity(); {
	case errors.Is(err, datadir.ErrEmpty):
		if err := Create(cfg, first, []*holdfastpb.Member{{Id: 1}}); err != nil {
			return err
		}
	case err != nil:
		return err
	case id != first:
		return errors.New("somebody else lives here")
	}
	log, recovered, err := wal.Open(cfg.WAL())
	if err != nil {
		return err
	}
	defer log.Close()
	r, err := Open(cfg, recovered.Notes)
	if err != nil {
		return err
	}
	return r.Close()
}

// A power cut after every operation of the first start, with one image after the
// other of what it may leave: the next start comes up.
func TestAFirstStartThatWasCutShortIsMadeGoodByTheNext(t *testing.T) {
	for _, walDir := range []string{"", "/disk/log"} {
		cuts := 0
		for stop := 0; ; stop++ {
			fsys := vfstest.NewMem()
			if err := errors.Join(fsys.MkdirAll("/disk/log/lost+found"), fsys.SyncDir("/"), fsys.SyncDir("/disk"), fsys.SyncDir("/disk/log")); err != nil {
				t.Fatal(err)
			}
			ops, cut := 0, errors.New("power is off")
			fsys.Inject(func(vfstest.Op) error {
				if ops++; ops > stop {
					return cut
				}
				return nil
			})
			base := t.TempDir()
			err := startFirst(fsys, walDir, base)
			if err != nil && !errors.Is(err, cut) {
				t.Fatalf("after %d operations: %v", stop, err)
			}
			image := vfstest.Images[stop%len(vfstest.Images)]
			left := fsys.Crash(vfstest.Crash{Image: image})
			if named, _ := vfs.Exists(left, "/member/data/IDENTITY"); !named {
				base = t.TempDir() // Base is made anew.
			}
			if again := startFirst(left, walDir, base); again != nil {
				t.Fatalf("log in %q, a start after a cut after %d operations, %v: %v", walDir, stop, image, again)
			}
			cuts++
			if err == nil {
				break
			}
		}
		t.Logf("log in %q: %d images", walDir, cuts)
	}
}

func TestALogOfSomebodyElseIsLeftAlone(t *testing.T) {
	for name, want := range map[string]error{
		"0000000000000001.wal": wal.ErrExists,
		"notes.txt":            wal.ErrForeign,
	} {
		fsys := vfstest.NewMem()
		if err := fsys.MkdirAll("/disk/log"); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("/disk/log", name)
		if err := vfs.ReplaceFile(fsys, file, []byte("precious")); err != nil {
			t.Fatal(err)
		}
		for range 2 { // A second attempt knows no better.
			if err := startFirst(fsys, "/disk/log", t.TempDir()); !errors.Is(err, want) || !strings.Contains(err.Error(), "/disk/log") {
				t.Fatalf("%s: %v, want %v", name, err, want)
			}
		}
		if b, err := vfs.ReadFile(fsys, file); err != nil || string(b) != "precious" {
			t.Fatalf("%s holds %q, %v", name, b, err)
		}
	}
}
