package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/quick"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// Whoever may not start is told what is wrong and what mends it, before anything
// is written here or changed there.
func TestWhoMayNotJoinIsRefusedBeforeAnythingChanges(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := servertest.New(t, 3, nil)
	lost, kept := c.Members[1], c.Members[0]
	lost.Stop()
	if err := os.RemoveAll(lost.Config.DataDir); err != nil {
		t.Fatal(err)
	}
	members := func() *pb.MemberListResponse {
		r, err := pb.NewClusterClient(dial(t, kept)).MemberList(t.Context(), &pb.MemberListRequest{Linearizable: true})
		if err != nil {
			t.Fatal(err)
		}
		r.Header = nil
		return r
	}
	before := members()
	elsewhere := "http://127.0.0.1:1" // Nobody listens there, and nobody will.
	for _, test := range []struct {
		name string
		set  func(*server.Config)
		want string
	}{
		{"a member whose data is gone", func(*server.Config) {}, "remove it with `member remove` and add it again"},
		{"the same, as if it joined", func(c *server.Config) { c.InitialClusterState = server.StateExisting }, "remove it with `member remove` and add it again"},
		{"another token", func(c *server.Config) { c.InitialClusterToken = "other" }, "another cluster than --initial-cluster and --initial-cluster-token make"},
		{"one member too many", func(c *server.Config) {
			c.InitialCluster += ",m9=" + elsewhere
		}, "another cluster than --initial-cluster"},
		{"a joiner that nobody has added", func(c *server.Config) {
			c.InitialClusterState = server.StateExisting
			c.InitialCluster = strings.Replace(c.InitialCluster, lost.PeerURL, elsewhere, 1)
			c.AdvertisePeerURLs = []string{elsewhere}
		}, "knows no member with peer URLs http://127.0.0.1:1; add it first with `member add`"},
		{"a joiner that knows nobody", func(c *server.Config) {
			c.InitialClusterState = server.StateExisting
			c.InitialCluster = "m1=" + lost.PeerURL + ",m0=" + elsewhere
		}, "no member of the cluster answers"},
		{"a name that is not in the list", func(c *server.Config) { c.Name = "m7" }, `--name is "m7", the names are m0, m1, m2`},
		{"other addresses than in the list", func(c *server.Config) { c.AdvertisePeerURLs = []string{elsewhere} }, "make them equal"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := lost.Config
			test.set(&cfg)
			s, err := server.Start(t.Context(), cfg)
			if err == nil {
				s.Close()
				t.Fatal("it starts")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v\nlacks %q", err, test.want)
			}
			if s, err := server.Start(t.Context(), cfg); err == nil { // Nothing was left that would let it in.
				s.Close()
				t.Error("it starts the second time")
			}
			if after := members(); !proto.Equal(before, after) {
				t.Errorf("the members were %v and are %v", before, after)
			}
		})
	}
}

func TestFilesOfTheRaftLogAreAsLargeAsIsAskedFor(t *testing.T) {
	const size = 2 << 20
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.WALSegmentBytes = size }).Members[0]
	m.Stop()
	files, err := filepath.Glob(filepath.Join(m.Config.DataDir, "wal", "*"))
	must(t, err)
	largest := int64(0)
	for _, name := range files {
		f, err := os.Stat(name)
		must(t, err)
		largest = max(largest, f.Size())
	}
	if largest != size {
		t.Errorf("the largest of %q has %d bytes", files, largest)
	}
}

// A log that was moved, and a start that was not told so.
func TestALogThatIsNotThereIsAskedFor(t *testing.T) {
	c := servertest.New(t, 1, func(_ int, c *server.Config) { c.WALDir = filepath.Join(t.TempDir(), "log") })
	m := c.Members[0]
	m.Stop()
	cfg := m.Config
	cfg.WALDir = ""
	s, err := server.Start(t.Context(), cfg)
	if err == nil {
		s.Close()
		t.Fatal("a member starts without its log")
	}
	if !strings.Contains(err.Error(), filepath.Join(cfg.DataDir, "wal")) || !strings.Contains(err.Error(), "--wal-dir") {
		t.Error(err)
	}
	m.Start()
	m.WaitReady()
}

// Two members of one cluster hold the same entries, so that each could go on from
// the log of the other, with a vote that is not its own.
func TestTheLogOfAnotherMemberIsRefused(t *testing.T) {
	root := t.TempDir()
	c := servertest.New(t, 2, func(i int, c *server.Config) { c.WALDir = filepath.Join(root, strconv.Itoa(i)) })
	for _, m := range c.Members {
		m.Stop()
	}
	for i, m := range c.Members {
		cfg := m.Config
		cfg.WALDir = c.Members[1-i].Config.WALDir
		s, err := server.Start(t.Context(), cfg)
		if err == nil {
			s.Close()
			t.Fatalf("%s starts with the log of the other", cfg.Name)
		}
		if !errors.Is(err, replica.ErrLogOfAnother) || !strings.Contains(err.Error(), cfg.WALDir) {
			t.Error(err)
		}
	}
	for _, m := range c.Members {
		m.Start()
	}
	for _, m := range c.Members {
		m.WaitReady()
	}
}
