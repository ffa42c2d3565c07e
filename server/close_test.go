package server_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/vfs"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// slowPeers is a disk on which it takes long to note the other members.
type slowPeers struct {
	vfs.FS
	once    sync.Once
	entered chan struct{}
	written atomic.Bool
}

func (s *slowPeers) Create(name string) (vfs.File, error) {
	if strings.Contains(name, "PEERS") {
		s.once.Do(func() { close(s.entered) })
		<-time.After(300 * time.Millisecond)
		defer s.written.Store(true)
	}
	return s.FS.Create(name)
}

func TestNothingIsWrittenIntoTheDirectoryAfterClose(t *testing.T) {
	slow := &slowPeers{FS: vfs.OS(), entered: make(chan struct{})}
	m := servertest.New(t, 1, func(_ int, c *server.Config) { c.FS = slow }).Members[0]
	conn, err := m.DialInside()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := pb.NewClusterClient(conn).MemberAdd(t.Context(), &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true}); err != nil {
		t.Fatal(err)
	}
	<-slow.entered
	m.Stop()
	if !slow.written.Load() {
		t.Error("the member is closed, its directory unlocked, and the other members are still to be noted in it")
	}
}
