package client

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func TestEndpointsAreReadInAllTheirForms(t *testing.T) {
	for _, c := range []struct {
		endpoints string
		haveTLS   bool
		addresses string
		secure    bool
		err       string
	}{
		{endpoints: "host:1", addresses: "host:1"},
		{endpoints: "host:1", haveTLS: true, addresses: "host:1", secure: true},
		{endpoints: "http://a:1 http://b:2", haveTLS: true, addresses: "a:1 b:2"},
		{endpoints: "https://a:1 b:2", haveTLS: true, addresses: "a:1 b:2", secure: true},
		{endpoints: "https://[::1]:2379/path", addresses: "[::1]:2379", secure: true},
		{endpoints: "unix:///run/s unix:/run/t", addresses: "unix:/run/s unix:/run/t"},
		{endpoints: "unixs:///run/s", addresses: "unix:/run/s", secure: true},
		{endpoints: "https://a:1 http://b:2", err: "cannot be mixed"},
		{endpoints: "ftp://a:1", err: "unknown scheme"},
		{endpoints: "http://a", err: "want host:port"},
		{endpoints: "a", err: "want host:port"},
		{endpoints: "a:", err: "want host:port"},
		{endpoints: "", err: "no endpoints"},
	} {
		addresses, secure, err := parseEndpoints(strings.Fields(c.endpoints), c.haveTLS)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: got %v, want an error with %q", c.endpoints, err, c.err)
			}
			continue
		}
		var got []string
		for _, a := range addresses {
			got = append(got, a.Addr)
		}
		if err != nil || strings.Join(got, " ") != c.addresses || secure != c.secure {
			t.Errorf("%q: got %q, secure %v, %v", c.endpoints, got, secure, err)
		}
	}
}

func TestWhatAFailureMeansForReadsAndWrites(t *testing.T) {
	broken := status.Error(codes.Unavailable, "connection reset")
	for _, c := range []struct {
		err   error
		sent  bool
		read  verdict
		write verdict
	}{
		{ErrNoLeader, true, verdict{again: true}, verdict{again: true}},
		{ErrTooManyRequests, true, verdict{again: true}, verdict{again: true}},
		{ErrNotForLearner, true, verdict{again: true}, verdict{again: true}},
		{ErrLeaderChanged, true, verdict{again: true}, verdict{unknown: true}},
		{ErrTimeout, true, verdict{again: true}, verdict{unknown: true}},
		{ErrServerStopped, true, verdict{again: true}, verdict{unknown: true}},
		{ErrUnhealthy, true, verdict{}, verdict{}},
		{ErrCompacted, true, verdict{}, verdict{}},
		{ErrNoSpace, true, verdict{}, verdict{}},
		{ErrMembersNotStarted, true, verdict{}, verdict{}},
		{Error{codes.Unknown, "etcdserver: some refusal"}, true, verdict{}, verdict{}},
		{status.Error(codes.Unknown, "disk failed"), true, verdict{}, verdict{unknown: true}},
		{broken, false, verdict{again: true}, verdict{again: true}},
		{broken, true, verdict{again: true}, verdict{unknown: true}},
		{status.Error(codes.DeadlineExceeded, "no connection"), false, verdict{}, verdict{}},
		{status.Error(codes.DeadlineExceeded, "no answer"), true, verdict{}, verdict{unknown: true}},
		{errors.New("not of gRPC"), true, verdict{}, verdict{unknown: true}},
	} {
		if got := judge(c.err, reads, c.sent); got != c.read {
			t.Errorf("%v, sent %v, of a read: got %+v, want %+v", c.err, c.sent, got, c.read)
		}
		if got := judge(c.err, writes, c.sent); got != c.write {
			t.Errorf("%v, sent %v, of a write: got %+v, want %+v", c.err, c.sent, got, c.write)
		}
	}
}

func TestAReaderOfRenewalsThatIsSlowSeesTheLatest(t *testing.T) {
	k := &KeepAlive{renewals: make(chan *pb.LeaseKeepAliveResponse, 1)}
	for ttl := range int64(3) {
		k.report(&pb.LeaseKeepAliveResponse{TTL: ttl})
	}
	if m := <-k.Renewals(); m.TTL != 2 {
		t.Errorf("renewal %d is seen, want the last", m.TTL)
	}
}

// Nothing wakes a lane for those who wait behind many that have gone.
func TestWhoWaitsBehindManyThatHaveGoneIsTaken(t *testing.T) {
	l := &lane{wake: make(chan struct{}, 1)}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 * renewalsTogether {
		l.add(&renewal{ctx: gone, done: make(chan struct{})})
	}
	for id := range int64(renewalsTogether + 1) {
		l.add(&renewal{ctx: t.Context(), id: id, done: make(chan struct{})})
	}
	for _, want := range []int{renewalsTogether, 1, 0} {
		if taken := l.take(); len(taken) != want {
			t.Fatalf("%d are taken, not %d", len(taken), want)
		}
	}
}
