package server_test

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// Whoever may not start is told what is wrong and what mends it, before anything
// is written here or changed there.
func TestWhoMayNotJoinIsRefusedBeforeAnythingChanges(t *testing.T) {
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
