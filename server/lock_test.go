package server_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	electionpb "github.com/holdfast-db/holdfast/proto/v3electionpb"
	lockpb "github.com/holdfast-db/holdfast/proto/v3lockpb"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// waitKeys returns once so many keys have a prefix.
func waitKeys(t *testing.T, conn *grpc.ClientConn, prefix string, n int64) {
	t.Helper()
	for {
		r, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte(prefix), RangeEnd: []byte(prefix + "\xff"), CountOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.Count == n {
			return
		}
	}
}

func grantLease(t *testing.T, conn *grpc.ClientConn) int64 {
	t.Helper()
	r, err := pb.NewLeaseClient(conn).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 600})
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

type locked struct {
	key string
	err error
}

func lockLater(ctx context.Context, conn *grpc.ClientConn, name string, lease int64) <-chan locked {
	done := make(chan locked, 1)
	go func() {
		r, err := lockpb.NewLockClient(conn).Lock(ctx, &lockpb.LockRequest{Name: []byte(name), Lease: lease})
		done <- locked{string(r.GetKey()), err}
	}()
	return done
}

func unlock(t *testing.T, conn *grpc.ClientConn, key string) {
	t.Helper()
	if _, err := lockpb.NewLockClient(conn).Unlock(t.Context(), &lockpb.UnlockRequest{Key: []byte(key)}); err != nil {
		t.Fatal(err)
	}
}

func TestALockIsHeldByOneAtATime(t *testing.T) {
	conn := dial(t, servertest.New(t, 1, nil).Members[0])
	first := <-lockLater(t.Context(), conn, "l", 0)
	if first.err != nil {
		t.Fatal(first.err)
	}
	got, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte(first.key)})
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("key %q of a lock: %v, %v", first.key, got, err)
	}
	ttl, err := pb.NewLeaseClient(conn).LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: got.Kvs[0].Lease})
	if err != nil || ttl.GrantedTTL != 60 {
		t.Fatalf("lease of a lock without one: %v, %v", ttl, err)
	}

	lease := grantLease(t, conn)
	second := lockLater(t.Context(), conn, "l", lease)
	waitKeys(t, conn, "l/", 2)
	third := lockLater(t.Context(), conn, "l", 0)
	waitKeys(t, conn, "l/", 3)
	unlock(t, conn, first.key)
	got2 := <-second
	if got2.err != nil {
		t.Fatal(got2.err)
	}
	if again := <-lockLater(t.Context(), conn, "l", lease); again != got2 {
		t.Fatalf("who holds the lock asks again with its lease: %v, had %v", again, got2)
	}
	select {
	case r := <-third:
		t.Fatalf("two hold the lock: %v", r)
	default:
	}
	if _, err := pb.NewLeaseClient(conn).LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: lease}); err != nil {
		t.Fatal(err)
	}
	if r := <-third; r.err != nil {
		t.Fatalf("after the end of the holder's lease: %v", r.err)
	}
}

func TestWhoStopsWaitingForALockLeavesNothing(t *testing.T) {
	conn := dial(t, servertest.New(t, 1, nil).Members[0])
	first := <-lockLater(t.Context(), conn, "l", 0)
	ctx, cancel := context.WithCancel(t.Context())
	waiting := lockLater(ctx, conn, "l", grantLease(t, conn))
	waitKeys(t, conn, "l/", 2)
	cancel()
	if r := <-waiting; status.Code(r.err) != codes.Canceled {
		t.Fatalf("a lock that is no longer wanted: %v", r.err)
	}
	waitKeys(t, conn, "l/", 1)

	lease := grantLease(t, conn)
	lost := lockLater(t.Context(), conn, "l", lease)
	waitKeys(t, conn, "l/", 2)
	if _, err := pb.NewLeaseClient(conn).LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: lease}); err != nil {
		t.Fatal(err)
	}
	unlock(t, conn, first.key)
	if r := <-lost; status.Convert(r.err).Message() != "mutex: session is expired" {
		t.Fatalf("a lease that ended while it waited: %v", r.err)
	}
	if r := <-lockLater(t.Context(), conn, "l", 12345); status.Convert(r.err).Message() != "etcdserver: requested lease not found" {
		t.Fatalf("a lease that there is not: %v", r.err)
	}
}

// Who asks again for what its lease has, and is cut off, loses nothing by it.
func TestWhoAsksAgainAndIsCutOffKeepsItsClaim(t *testing.T) {
	conn := dial(t, servertest.New(t, 1, nil).Members[0])
	first := <-lockLater(t.Context(), conn, "l", 0)
	lease := grantLease(t, conn)
	waiting := lockLater(t.Context(), conn, "l", lease)
	waitKeys(t, conn, "l/", 2)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if r := <-lockLater(ctx, conn, "l", lease); status.Code(r.err) != codes.DeadlineExceeded {
		t.Fatalf("a lock that somebody else has: %v", r.err)
	}
	unlock(t, conn, first.key)
	if r := <-waiting; r.err != nil {
		t.Fatalf("who waited all along: %v", r.err)
	}
	waitKeys(t, conn, "l/", 1)
}

func TestAWaitForALockEndsWithTheServer(t *testing.T) {
	m := servertest.New(t, 1, nil).Members[0]
	conn := dial(t, m)
	if first := <-lockLater(t.Context(), conn, "l", 0); first.err != nil {
		t.Fatal(first.err)
	}
	waiting := lockLater(t.Context(), conn, "l", 0)
	waitKeys(t, conn, "l/", 2)
	m.Stop()
	if r := <-waiting; status.Code(r.err) != codes.Unavailable {
		t.Fatalf("the server stops: %v", r.err)
	}
}

func TestAnElectionHasOneLeaderAtATime(t *testing.T) {
	conn := dial(t, servertest.New(t, 1, nil).Members[0])
	c := electionpb.NewElectionClient(conn)
	name := []byte("e")
	if _, err := c.Leader(t.Context(), &electionpb.LeaderRequest{Name: name}); status.Convert(err).Message() != "election: no leader" {
		t.Fatalf("leader of none: %v", err)
	}
	seen, err := c.Observe(t.Context(), &electionpb.LeaderRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	see := func(want string) {
		t.Helper()
		if r, err := seen.Recv(); err != nil || string(r.Kv.Value) != want || r.Header.Revision != r.Kv.ModRevision {
			t.Fatalf("observed %v, %v, not %s", r, err, want)
		}
	}
	one, err := c.Campaign(t.Context(), &electionpb.CampaignRequest{Name: name, Value: []byte("one"), Lease: grantLease(t, conn)})
	if err != nil {
		t.Fatal(err)
	}
	see("one")
	won := make(chan *electionpb.CampaignResponse, 1)
	go func() {
		r, err := c.Campaign(t.Context(), &electionpb.CampaignRequest{Name: name, Value: []byte("two")})
		if err != nil {
			t.Error(err)
		}
		won <- r
	}()
	waitKeys(t, conn, "e/", 2)
	if _, err := c.Proclaim(t.Context(), &electionpb.ProclaimRequest{Leader: one.Leader, Value: []byte("still one")}); err != nil {
		t.Fatal(err)
	}
	see("still one")
	if r, err := c.Leader(t.Context(), &electionpb.LeaderRequest{Name: name}); err != nil || string(r.Kv.Value) != "still one" || string(r.Kv.Key) != string(one.Leader.Key) {
		t.Fatalf("leader: %v, %v", r, err)
	}
	again, err := c.Campaign(t.Context(), &electionpb.CampaignRequest{Name: name, Value: []byte("one again"), Lease: one.Leader.Lease})
	if err != nil || again.Leader.Rev != one.Leader.Rev {
		t.Fatalf("who leads stands again: %v, %v", again, err)
	}
	see("one again")
	if _, err := c.Resign(t.Context(), &electionpb.ResignRequest{Leader: one.Leader}); err != nil {
		t.Fatal(err)
	}
	two := <-won
	if seen, err := seen.Recv(); err != nil || string(seen.Kv.Value) != "two" {
		t.Fatalf("observed %v, %v", seen, err)
	}
	if _, err := c.Proclaim(t.Context(), &electionpb.ProclaimRequest{Leader: one.Leader, Value: []byte("me")}); status.Convert(err).Message() != "election: not leader" {
		t.Fatalf("who has resigned proclaims: %v", err)
	}
	if _, err := c.Resign(t.Context(), &electionpb.ResignRequest{Leader: one.Leader}); err != nil {
		t.Fatalf("to resign twice: %v", err)
	}
	if _, err := c.Resign(t.Context(), &electionpb.ResignRequest{Leader: two.Leader}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		func() error { _, err := c.Proclaim(t.Context(), &electionpb.ProclaimRequest{}); return err }(),
		func() error { _, err := c.Resign(t.Context(), &electionpb.ResignRequest{}); return err }(),
	} {
		if status.Convert(err).Message() != `"leader" field must be provided` {
			t.Errorf("without a leader: %v", err)
		}
	}
}

// A candidate whose lease has ended leads nothing, though nobody is before it.
func TestACandidateWhoseLeaseEndedDoesNotLead(t *testing.T) {
	conn := dial(t, servertest.New(t, 1, nil).Members[0])
	c := electionpb.NewElectionClient(conn)
	name := []byte("e")
	leads, err := c.Campaign(t.Context(), &electionpb.CampaignRequest{Name: name, Value: []byte("one")})
	if err != nil {
		t.Fatal(err)
	}
	lease := grantLease(t, conn)
	lost := make(chan error, 1)
	go func() {
		_, err := c.Campaign(t.Context(), &electionpb.CampaignRequest{Name: name, Value: []byte("two"), Lease: lease})
		lost <- err
	}()
	waitKeys(t, conn, "e/", 2)
	if _, err := pb.NewLeaseClient(conn).LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: lease}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resign(t.Context(), &electionpb.ResignRequest{Leader: leads.Leader}); err != nil {
		t.Fatal(err)
	}
	if err := <-lost; status.Convert(err).Message() != "election: not leader" {
		t.Fatalf("a lease that ended while its owner stood: %v", err)
	}
}

// Who stood first leads, wherever its key is among those of the others.
func TestTheLeaderOfManyIsWhoStoodFirst(t *testing.T) {
	conn := dial(t, servertest.New(t, 1, nil).Members[0])
	c := electionpb.NewElectionClient(conn)
	name := []byte("e")
	for _, lease := range []int64{0x50, 0x40, 0x10, 0x20, 0x30} { // Not in the order of their keys.
		if _, err := pb.NewLeaseClient(conn).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: lease, TTL: 600}); err != nil {
			t.Fatal(err)
		}
		key, value := fmt.Appendf(nil, "e/%x", lease), fmt.Appendf(nil, "%x", lease)
		if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: key, Value: value, Lease: lease}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := c.Leader(t.Context(), &electionpb.LeaderRequest{Name: name}); err != nil || string(r.Kv.Value) != "50" {
		t.Errorf("leader: %v, %v", r, err)
	}
	seen, err := c.Observe(t.Context(), &electionpb.LeaderRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := seen.Recv(); err != nil || string(r.Kv.Value) != "50" {
		t.Errorf("observed: %v, %v", r, err)
	}
}
