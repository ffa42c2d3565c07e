package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
	"github.com/holdfast-db/holdfast/snapshot/archive"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// archiveOf opens a folder that a cluster archives to.
func archiveOf(t *testing.T, folder string) *archive.Archive {
	t.Helper()
	store, err := blobstore.Open(t.Context(), "file://"+folder, blobstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	a, err := archive.Open(t.Context(), store, archive.UUID{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// latest is where an archive ends, its base included.
func latest(t *testing.T, a *archive.Archive) (ident.Revision, error) {
	t.Helper()
	target, err := archive.ParseTarget("latest")
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Plan(t.Context(), 0, target)
	if err != nil {
		return 0, err
	}
	return p.To.Revision, nil
}

// putArchived puts until that is acknowledged: on a slow disk an archive takes longer to
// begin than a request waits.
func putArchived(t *testing.T, m *servertest.Member, key string) (resp *pb.PutResponse) {
	t.Helper()
	kv := pb.NewKVClient(dial(t, m))
	eventually(t, "a put is acknowledged", func() bool {
		var err error
		resp, err = kv.Put(t.Context(), &pb.PutRequest{Key: []byte(key), Value: []byte("1")})
		if err != nil && status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		return err == nil
	})
	return resp
}

func TestInSyncModeWhatWasAcknowledgedIsInTheArchive(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel()
	for _, members := range []int{1, 3} {
		t.Run(fmt.Sprintf("members=%d", members), func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "archive")
			c := servertest.New(t, members, func(_ int, cfg *server.Config) {
				cfg.ArchiveURL, cfg.ArchiveMode = "file://"+folder, server.ArchiveSync
			})
			var a *archive.Archive
			for i := range 30 {
				resp := putArchived(t, c.Members[0], fmt.Sprintf("key-%d", i%7))
				if a == nil {
					a = archiveOf(t, folder)
				}
				if rev, err := latest(t, a); err != nil || rev < ident.Revision(resp.Header.Revision) {
					t.Fatalf("revision %d was acknowledged, the archive ends at %d: %v", resp.Header.Revision, rev, err)
				}
			}
			d, err := a.Drill(t.Context(), archive.DrillConfig{FS: vfs.OS(), Scratch: t.TempDir(), Clock: clock.Real(), Logger: hclog.NewNullLogger()})
			if err != nil || d.Keys != 7 {
				t.Errorf("the drill finds %+v: %v", d, err)
			}
		})
	}
}

func TestAnArchiveThatIsDownCostsNoWriteInAsyncMode(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "nobody")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "nothing")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	c := servertest.New(t, 1, func(_ int, cfg *server.Config) {
		cfg.ArchiveURL = "s3://nowhere/x?region=r&endpoint=http://127.0.0.1:1"
	})
	conn := pb.NewKVClient(dial(t, c.Members[0]))
	for i := range 50 {
		if _, err := conn.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "key-%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsWrongWithTheArchiveIsToldAtTheStart(t *testing.T) {
	for _, x := range []struct {
		set  func(c *server.Config)
		want string
	}{
		{func(c *server.Config) { c.ArchiveMode = server.ArchiveSync }, "need --archive-url"},
		{func(c *server.Config) { c.ArchiveURL, c.ArchiveMode = "file:///x", "maybe" }, `use async or sync`},
		{func(c *server.Config) { c.ArchiveURL, c.ArchivePolicy = "file:///x", "maybe" }, `use gap or stop-writes`},
		{func(c *server.Config) { c.ArchiveURL, c.ArchiveEpoch = "file:///x", "maybe" }, `use auto or strict or off`},
		{func(c *server.Config) { c.ArchiveEpoch = server.EpochStrict }, "need --archive-url"},
		{func(c *server.Config) { c.ArchiveURL, c.ArchiveLimitBytes = "file:///x", 1 }, "--archive-limit-bytes"},
		{func(c *server.Config) { c.ArchiveURL, c.ArchiveRecipients = "file:///x", []string{"me"} }, `recipient "me"`},
		{func(c *server.Config) { c.ArchiveURL = "ftp://x" }, `scheme "ftp" is not known`},
	} {
		cfg := server.DefaultConfig(hclog.NewNullLogger())
		cfg.DataDir = t.TempDir()
		cfg.ListenPeerURLs, cfg.ListenClientURLs = []string{"http://127.0.0.1:0"}, []string{"http://127.0.0.1:0"}
		x.set(&cfg)
		s, err := server.Start(t.Context(), cfg)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%v does not say %s", err, x.want)
		}
	}
}

func TestDrillsAreHeldByTheMemberThatArchives(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "archive")
	c := servertest.New(t, 1, func(_ int, cfg *server.Config) {
		cfg.ArchiveURL, cfg.ArchiveMode, cfg.ArchiveDrillInterval = "file://"+folder, server.ArchiveSync, 10*time.Millisecond
	})
	putArchived(t, c.Members[0], "a")
	a := archiveOf(t, folder)
	for good := false; !good; {
		cat, err := a.Catalogue(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		drills, err := a.Drills(t.Context(), cat)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range drills {
			good = good || d.OK && d.Keys == 1
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// A drill makes a folder, and a process may be killed in it.
func TestWhatADrillLeftInACrashIsNoHindrance(t *testing.T) {
	m := servertest.New(t, 1, nil).Members[0]
	m.Stop()
	left := filepath.Join(m.Config.DataDir, "scratch-drill")
	must(t, os.MkdirAll(filepath.Join(left, "state"), 0o700))
	must(t, os.WriteFile(filepath.Join(left, "state", "base.db"), []byte("half"), 0o600))
	m.Start()
	m.WaitReady()
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Fatalf("it is left: %v", err)
	}
}

// More waits for the archive than may: with the policy stop-writes writes are
// refused, with gap they go on. Both end by themselves when the archive is back.
func TestWhenTooMuchWaitsForTheArchiveThePolicyDecides(t *testing.T) {
	t.Parallel()
	for _, policy := range []archive.Policy{archive.PolicyStopWrites, archive.PolicyGap} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			folder := filepath.Join(t.TempDir(), "archive")
			c := servertest.New(t, 1, func(_ int, cfg *server.Config) {
				cfg.ArchiveURL, cfg.ArchivePolicy, cfg.ArchiveLimitBytes = "file://"+folder, string(policy), archive.SegmentBytes
			})
			conn := pb.NewKVClient(dial(t, c.Members[0]))
			put := func(i int) error {
				_, err := conn.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "key-%d", i), Value: make([]byte, 256<<10)})
				return err
			}
			pause := func() {
				select {
				case <-time.After(10 * time.Millisecond):
				case <-t.Context().Done():
				}
			}
			must(t, put(0))
			for begun := false; !begun; pause() {
				if _, err := os.Stat(folder); err == nil {
					found, err := filepath.Glob(filepath.Join(folder, "*", "tl", "*", "base", "*", "MANIFEST.json"))
					must(t, err)
					begun = len(found) > 0
				}
			}
			must(t, os.Rename(folder, folder+"-gone"))
			var err error
			for i := 0; err == nil && i < 40; i++ { // 10 MiB.
				err = put(i)
			}
			for i := 0; err == nil && policy == archive.PolicyStopWrites && t.Context().Err() == nil; i++ {
				pause() // The writer measures now and then.
				if i%100 == 0 {
					err = put(i)
				}
			}
			if refused := status.Code(err) == codes.ResourceExhausted; refused != (policy == archive.PolicyStopWrites) || !refused && err != nil {
				t.Fatalf("writes end with %v", err)
			}
			must(t, os.Rename(folder+"-gone", folder))
			for err = put(1); status.Code(err) == codes.ResourceExhausted; err = put(1) {
				pause()
			}
			must(t, err)
		})
	}
}
