package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

func txnPut(key, value string) *pb.TxnRequest {
	return &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}}}
}

func TestATransactionNeedsNoConnectionWithinTheProcess(t *testing.T) {
	m := servertest.New(t, 1, nil).Members[0]
	r, err := m.Txn(t.Context(), txnPut("a", "1"))
	if err != nil || !r.Succeeded || r.Header.Revision != 2 || r.Header.MemberId == 0 {
		t.Fatalf("%v, %v", r, err)
	}
	if got := mustGet(t, dial(t, m), "a"); got != "1" {
		t.Errorf("a is %q", got)
	}
}

// Who embeds a member answers others: what these have shown is not shown to the store.
func TestATransactionWithinTheProcessIsNotMadeInTheNameOfWhomItAnswers(t *testing.T) {
	m := newGuarded(t, 1, func(_ int, c *server.Config) { c.ClientTLS.ClientCertAuth = true }).Members[0]
	shown := credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "root"}}}}}}
	for what, ctx := range map[string]context.Context{
		"certificate": peer.NewContext(t.Context(), &peer.Peer{AuthInfo: shown}),
		"token":       metadata.NewIncomingContext(t.Context(), metadata.Pairs("token", "of somebody")),
	} {
		if _, err := m.Txn(ctx, txnPut("a", "1")); status.Convert(err).Message() != "etcdserver: user name is empty" {
			t.Errorf("somebody else's %s counts: %v", what, err)
		}
	}
}

func TestATransactionWithinTheProcessEndsWithTheMember(t *testing.T) {
	t.Parallel() // It mostly waits.
	const patience = 20 * time.Second
	c := servertest.New(t, 3, func(_ int, cfg *server.Config) {
		cfg.ElectionTimeout = patience / 2 // A request may wait for two and five seconds more before it ends by itself.
	})
	m := c.Members[0]
	c.Members[1].Stop()
	c.Members[2].Stop() // So that nothing can be decided any more.
	ended := make(chan error, 1)
	go func() {
		_, err := m.Txn(t.Context(), txnPut("a", "1"))
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Fatalf("without a quorum it ended: %v", err)
	case <-time.After(100 * time.Millisecond): // It may have begun; it ends either way.
	}
	began := time.Now()
	m.Stop()
	if err := <-ended; err == nil {
		t.Error("it was decided without a quorum")
	}
	if took := time.Since(began); took > patience {
		t.Errorf("that the member ends took %v", took)
	}
	if _, err := m.Txn(context.Background(), txnPut("a", "1")); status.Code(err) != codes.Unavailable {
		t.Errorf("a member that has ended says %v", err)
	}
}
