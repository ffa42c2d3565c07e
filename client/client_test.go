package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/clienttest"
	"github.com/holdfast-db/holdfast/internal/leak"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func newClient(t *testing.T, cluster *clienttest.Cluster, change ...func(*client.Config)) *client.Client {
	t.Helper()
	cfg := client.Config{Endpoints: cluster.Endpoints(), Dial: cluster.Dial, Logger: hclog.NewNullLogger()}
	for _, f := range change {
		f(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// within bounds a test that hangs.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestPutGetDeleteTxnAndCompactReachTheStore(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	c, ctx := newClient(t, cluster), within(t)

	for _, key := range []string{"a", "b", "c"} {
		if _, err := c.Put(ctx, client.Put{Key: key, Value: []byte("1")}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.Get(ctx, client.Get{Range: client.Between("a", "c"), Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != 1 || string(got.Kvs[0].Key) != "a" || !got.More || got.Count != 2 || got.Header.Revision != 4 {
		t.Errorf("first of [a, c) is %v", got)
	}
	txn := client.Txn{
		If:   []client.Compare{client.IfValue("a", client.Equal, []byte("1")), client.IfVersion("d", client.Equal, 0)},
		Then: []client.Op{client.Put{Key: "d"}, client.Delete{Range: client.One("a")}, client.Get{Range: client.From("")}},
		Else: []client.Op{client.Put{Key: "e"}},
	}
	first, err := c.Txn(ctx, txn)
	if err != nil {
		t.Fatal(err)
	}
	if kvs := first.Responses[2].GetResponseRange().Kvs; !first.Succeeded || len(kvs) != 3 {
		t.Errorf("after the transaction: %v", first)
	}
	if second, err := c.Txn(ctx, txn); err != nil || second.Succeeded {
		t.Errorf("the same conditions held again: %v, %v", second, err)
	}
	if d, err := c.Delete(ctx, client.Delete{Range: client.Prefix("")}); err != nil || d.Deleted != 4 {
		t.Errorf("deleting all: %v, %v", d, err)
	}
	if _, err := c.Compact(ctx, 6, false); err != nil {
		t.Fatal(err)
	}
	_, err = c.Get(ctx, client.Get{Range: client.One("a"), Revision: 2})
	if !errors.Is(err, client.ErrCompacted) || errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("reading what is compacted: %v", err)
	}
}

func TestACallGoesToTheMembersThatRun(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 3)
	c, ctx := newClient(t, cluster), within(t)
	for i := range 6 {
		cluster.Stop(i % 3)
		for range 4 {
			if _, err := c.Get(ctx, client.Get{Range: client.One("k")}); err != nil {
				t.Fatalf("member %d is down: %v", i%3, err)
			}
			if _, err := c.MemberList(ctx, true); err != nil {
				t.Fatalf("member %d is down: %v", i%3, err)
			}
		}
		cluster.Start(i % 3)
	}
}

func TestAWriteWhoseAnswerIsLostIsNotRepeated(t *testing.T) {
	for name, err := range map[string]error{
		"the member stops": status.Error(codes.Unavailable, "etcdserver: server stopped"),
		"time is up":       status.Error(codes.Unavailable, "etcdserver: request timed out"),
		"stream is reset":  status.Error(codes.Internal, "stream terminated by RST_STREAM"),
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cluster := clienttest.New(t, 3)
			c := newClient(t, cluster)
			cluster.SetFaults(clienttest.Faults{After: func(context.Context, int, string) error { return err }})
			_, got := c.Put(within(t), client.Put{Key: "k"})
			if !errors.Is(got, client.ErrUnknownOutcome) {
				t.Errorf("got %v, want an unknown outcome", got)
			}
			if n := cluster.Calls("Put"); n != 1 || cluster.Revision() != 2 {
				t.Errorf("%d puts arrived and made revision %d", n, cluster.Revision())
			}
		})
	}
}

func TestAWriteOnABrokenConnectionIsNotRepeated(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	c := newClient(t, cluster)
	arrived := make(chan struct{})
	cluster.SetFaults(clienttest.Faults{Before: func(ctx context.Context, _ int, method string) error {
		close(arrived)
		<-ctx.Done()
		return ctx.Err()
	}})
	done, ctx := make(chan error), within(t)
	go func() {
		_, err := c.Put(ctx, client.Put{Key: "k"})
		done <- err
	}()
	<-arrived
	cluster.Stop(0)
	if err := <-done; !errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("got %v, want an unknown outcome", err)
	}
	if n := cluster.Calls("Put"); n != 1 {
		t.Errorf("%d puts arrived", n)
	}
}

func TestAReadWhoseAnswerIsLostIsRepeated(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 3)
	c := newClient(t, cluster)
	cluster.SetFaults(clienttest.Faults{After: func(_ context.Context, member int, _ string) error {
		if member == 2 {
			return nil
		}
		return status.Error(codes.Unavailable, "etcdserver: leader changed")
	}})
	for range 3 {
		if _, err := c.Get(within(t), client.Get{Range: client.One("k")}); err != nil {
			t.Error(err)
		}
	}
}

func TestAWriteRefusedForWantOfALeaderGoesToAnotherMember(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 3)
	c, ctx := newClient(t, cluster), within(t)
	cluster.SetFaults(clienttest.Faults{Before: func(_ context.Context, member int, _ string) error {
		if member != 1 {
			return status.Error(codes.Unavailable, "etcdserver: no leader")
		}
		return nil
	}})
	for range 3 {
		if _, err := c.Put(ctx, client.Put{Key: "k"}); err != nil {
			t.Fatal(err)
		}
	}
	if cluster.Revision() != 4 {
		t.Errorf("3 puts made revision %d", cluster.Revision())
	}
	if v := cluster.Metadata().Get("hasleader"); !slices.Equal(v, []string{"true"}) {
		t.Errorf("a write carries hasleader %q", v)
	}
}

func TestATransactionWithinTheProcessIsRepeatedOnlyIfNothingWasDone(t *testing.T) {
	cluster := clienttest.New(t, 1)
	var answers []error
	asked := 0
	c := newClient(t, cluster, func(cfg *client.Config) {
		cfg.Txn = func(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
			asked++
			return &pb.TxnResponse{Succeeded: true}, answers[asked-1]
		}
	})
	write := client.Txn{Then: []client.Op{client.Put{Key: "a"}}}
	answers = []error{status.Error(codes.Unavailable, "etcdserver: no leader"), nil}
	if r, err := c.Txn(within(t), write); err != nil || !r.Succeeded || asked != 2 {
		t.Errorf("a member that was not there yet: asked %d times, %v", asked, err)
	}
	answers, asked = []error{status.Error(codes.Unavailable, "it has ended")}, 0
	if _, err := c.Txn(within(t), write); !errors.Is(err, client.ErrUnknownOutcome) || asked != 1 {
		t.Errorf("a member that ended meanwhile: asked %d times, %v", asked, err)
	}
}

func TestACallWaitsForAMemberUntilItsDeadline(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	cluster.Stop(0)
	c := newClient(t, cluster)
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := c.Put(short, client.Put{Key: "k"})
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("with nobody there: %v", err)
	}
	limited := newClient(t, cluster, func(cfg *client.Config) { cfg.RequestTimeout = 50 * time.Millisecond })
	if _, err := limited.Get(t.Context(), client.Get{Range: client.One("k")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a deadline: %v", err)
	}
	cluster.Start(0)
	if _, err := c.Put(within(t), client.Put{Key: "k"}); err != nil {
		t.Errorf("with somebody there: %v", err)
	}
}

func TestACallThatFailsFastWaitsForNobody(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 2)
	fast := func(cfg *client.Config) { cfg.FailFast = true }
	cluster.Stop(0)
	if _, err := newClient(t, cluster, fast).Status(within(t)); err != nil {
		t.Errorf("one of two is there: %v", err)
	}
	cluster.Stop(1)
	c := newClient(t, cluster, fast)
	_, read := c.Status(within(t))
	_, write := c.Put(within(t), client.Put{Key: "k"})
	_, stream := c.Snapshot(within(t))
	for name, err := range map[string]error{"a read": read, "a write": write, "a snapshot": stream} {
		if !errors.Is(err, client.ErrUnreachable) || errors.Is(err, client.ErrUnknownOutcome) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s with nobody there: %v", name, err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	hangs := newClient(t, cluster, fast, func(cfg *client.Config) {
		cfg.DialTimeout = 10 * time.Millisecond
		cfg.Dial = func(ctx context.Context, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	})
	if _, err := hangs.Status(short); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrUnreachable) {
		t.Errorf("whoever only takes long is refused: %v", err)
	}
	cluster.Start(1)
	if _, err := newClient(t, cluster, fast).Put(within(t), client.Put{Key: "k"}); err != nil {
		t.Errorf("with somebody there: %v", err)
	}
}

func TestErrorsOfTheProtocolKeepCodeAndText(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	c, ctx := newClient(t, cluster), within(t)
	for _, want := range []client.Error{
		{codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded"},
		{codes.FailedPrecondition, "etcdserver: too many learner members in cluster"},
	} {
		cluster.SetFaults(clienttest.Faults{Before: func(context.Context, int, string) error {
			return status.Error(want.Code, want.Text)
		}})
		_, err := c.Put(ctx, client.Put{Key: "k"})
		if !errors.Is(err, want) || err.Error() != want.Text || status.Code(err) != want.Code {
			t.Errorf("got %v, want %v", err, want)
		}
		if errors.Is(err, client.ErrUnknownOutcome) {
			t.Errorf("%v is a definite answer", err)
		}
	}
}

func TestEndpointsCanBeReplacedAndAsked(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 3)
	ctx := within(t)
	c := newClient(t, cluster, func(cfg *client.Config) { cfg.Endpoints = []string{clienttest.Endpoint(0)} })
	if err := c.SyncEndpoints(ctx); err != nil {
		t.Fatal(err)
	}
	if got := c.Endpoints(); !slices.Equal(got, cluster.Endpoints()) {
		t.Errorf("endpoints are %q", got)
	}
	cluster.Stop(0)
	if _, err := c.Get(ctx, client.Get{Range: client.One("k")}); err != nil {
		t.Error(err)
	}
	only, err := c.At(clienttest.Endpoint(2))
	if err != nil {
		t.Fatal(err)
	}
	defer only.Close()
	for range 3 {
		if s, err := only.Status(ctx); err != nil || s.Header.MemberId != 3 {
			t.Errorf("member 3 was asked: %v, %v", s, err)
		}
	}
	if err := c.SetEndpoints([]string{"https://member-1:2379"}); !errors.Is(err, client.ErrMixedSecurity) {
		t.Errorf("from plain to encrypted: %v", err)
	}
}

func TestSnapshotIsReadWhole(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	for range 9 {
		cluster.Put("k", "v")
	}
	s, err := newClient(t, cluster).Snapshot(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Remaining != 10240-1000 || s.Version != "3.7.0" {
		t.Errorf("at the start: %d bytes remain of version %q", s.Remaining, s.Version)
	}
	data, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	body := data[:len(data)-sha256.Size]
	if sum := sha256.Sum256(body); len(body) != 10240 || !bytes.Equal(sum[:], data[len(body):]) || s.Remaining != 0 {
		t.Errorf("read %d bytes, %d remain", len(data), s.Remaining)
	}
}

func TestAClosedClientRefuses(t *testing.T) {
	leak.Check(t)
	c := newClient(t, clienttest.New(t, 1))
	w := c.Watch(t.Context(), client.Watch{Range: client.One("k"), Created: true})
	<-w.Reports()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-w.Reports(); open || !errors.Is(w.Err(), client.ErrClosed) {
		t.Errorf("a watch before: %v", w.Err())
	}
	after := c.Watch(t.Context(), client.Watch{Range: client.One("k")})
	if _, open := <-after.Reports(); open || !errors.Is(after.Err(), client.ErrClosed) {
		t.Errorf("a watch after: %v", after.Err())
	}
	if _, err := c.Get(t.Context(), client.Get{Range: client.One("k")}); err == nil {
		t.Error("a read after: no error")
	}
}

func TestRangesAreWhatTheirNamesSay(t *testing.T) {
	for _, c := range []struct{ got, want client.Range }{
		{client.One("a"), client.Range{Key: "a"}},
		{client.Prefix("ab"), client.Range{Key: "ab", End: "ac"}},
		{client.Prefix("a\xff\xff"), client.Range{Key: "a\xff\xff", End: "b"}},
		{client.Prefix("\xff"), client.Range{Key: "\xff", End: "\x00"}},
		{client.Prefix(""), client.Range{Key: "\x00", End: "\x00"}},
		{client.From("a"), client.Range{Key: "a", End: "\x00"}},
		{client.Between("a", "b"), client.Range{Key: "a", End: "b"}},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestComparisonsCarryTheirTarget(t *testing.T) {
	leak.Check(t)
	cluster := clienttest.New(t, 1)
	c, ctx := newClient(t, cluster), within(t)
	cluster.Put("k", "v1")
	cluster.Put("k", "v2")
	for _, holds := range []client.Compare{
		client.IfValue("k", client.Equal, []byte("v2")), client.IfValue("k", client.Less, []byte("v3")),
		client.IfVersion("k", client.Equal, 2), client.IfCreated("k", client.NotEqual, 3),
		client.IfModified("k", client.Greater, 2), client.IfLease("k", client.Equal, 0),
	} {
		r, err := c.Txn(ctx, client.Txn{If: []client.Compare{holds}, Then: []client.Op{client.Txn{}}})
		if err != nil || !r.Succeeded {
			t.Errorf("%v does not hold: %v", holds, err)
		}
	}
}
