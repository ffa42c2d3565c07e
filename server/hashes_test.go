package server_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/quick"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

func TestAMemberWithOtherKeysDoesNotServe(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := compactedWith(t, 3, func(_ int, c *server.Config) { c.InitialCorruptCheck = true })
	m := c.Members[2]
	m.Stop()
	m.Start()
	m.WaitReady() // As long as the keys are the same.
	m.Stop()
	rot(t, m)
	m.Start()
	select {
	case <-m.Done():
	case <-m.Ready():
		t.Fatal("a member whose keys differ serves")
	case <-time.After(readyMax):
		t.Fatal("a member whose keys differ neither serves nor ends")
	}
	if err := m.Err(); err == nil || !strings.Contains(err.Error(), "the keys of this member differ") {
		t.Fatalf("it ended because of %v", err)
	}
}

func TestKeysThatDifferAreFoundByTime(t *testing.T) {
	quick.LeaveOut(t)
	for name, set := range map[string]func(int, *server.Config){
		"each interval":    func(_ int, c *server.Config) { c.CorruptCheckTime = 100 * time.Millisecond },
		"after compaction": func(_ int, c *server.Config) { c.CompactHashCheck, c.CompactHashCheckTime = true, 100*time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // It mostly waits.
			c := compactedWith(t, 3, set)
			wrong := c.Members[2]
			wrong.Stop()
			rot(t, wrong)
			wrong.Start()
			wrong.WaitReady()
			if name == "after compaction" { // Another one, where that before was compared while this member was away.
				kv := pb.NewKVClient(dial(t, c.Leader()))
				put, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("c"), Value: []byte("2")}) // Not the key that has rotted.
				if err == nil {
					_, err = kv.Compact(t.Context(), &pb.CompactionRequest{Revision: put.Header.Revision})
				}
				if err != nil && status.Code(err) != codes.DataLoss { // Found already.
					t.Fatal(err)
				}
			}
			eventually(t, "the alarm names it", func() bool {
				if wrong.Err() != nil { // It led for a while, and found itself.
					return strings.Contains(wrong.Err().Error(), "the keys of this member differ")
				}
				return slices.Equal(corruptAlarms(t, c.Members[0]), []uint64{uint64(wrong.MemberID())})
			})
		})
	}
}

func TestALearnerThatKeepsUpGetsItsVote(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	c := servertest.New(t, 1, func(_ int, c *server.Config) { c.LearnerAutoPromote, c.StrictReconfigCheck = true, false })
	learner, _ := join(t, c)
	mustPut(t, dial(t, c.Members[0]), "a", "1")
	eventually(t, "the learner votes", func() bool {
		r, err := pb.NewClusterClient(dial(t, c.Members[0])).MemberList(t.Context(), &pb.MemberListRequest{})
		must(t, err)
		for _, m := range r.Members {
			if m.ID == uint64(learner.MemberID()) {
				return !m.IsLearner
			}
		}
		return false
	})
	for { // It learns of that a little later.
		_, err := pb.NewKVClient(dial(t, learner)).Put(t.Context(), &pb.PutRequest{Key: []byte("b")})
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "not supported for learner") {
			t.Fatal(err)
		}
	}
}

func TestADowngradeIsJudged(t *testing.T) {
	conn := pb.NewMaintenanceClient(dial(t, servertest.New(t, 1, func(_ int, c *server.Config) { c.ProtocolVersion = "3.7.3" }).Members[0]))
	for _, c := range []struct {
		action  pb.DowngradeRequest_DowngradeAction
		version string
		code    codes.Code
		text    string
	}{
		{pb.DowngradeRequest_VALIDATE, "3.6.0", codes.OK, ""},
		{pb.DowngradeRequest_VALIDATE, "3.6", codes.OK, ""},
		{pb.DowngradeRequest_ENABLE, "3.6.0", codes.OK, ""},
		{pb.DowngradeRequest_VALIDATE, "", codes.InvalidArgument, "etcdserver: wrong downgrade target version format"},
		{pb.DowngradeRequest_ENABLE, "x.y", codes.InvalidArgument, "etcdserver: wrong downgrade target version format"},
		{pb.DowngradeRequest_VALIDATE, "3.5.0", codes.InvalidArgument, "etcdserver: invalid downgrade target version"},
		{pb.DowngradeRequest_VALIDATE, "3.7.0", codes.InvalidArgument, "etcdserver: invalid downgrade target version"},
		{pb.DowngradeRequest_CANCEL, "", codes.OK, ""},
		{7, "3.6.0", codes.Unknown, "etcdserver: unknown method"},
	} {
		r, err := conn.Downgrade(t.Context(), &pb.DowngradeRequest{Action: c.action, Version: c.version})
		if status.Code(err) != c.code || status.Convert(err).Message() != c.text || err == nil && r.Version != "3.7" {
			t.Errorf("%v %q: %v, %v", c.action, c.version, r, err)
		}
	}
}
