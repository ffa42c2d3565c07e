package state_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/authority"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// signer is an authority that answers what a test says.
type signer struct {
	sync.Mutex
	err   error
	roots string
}

func (s *signer) set(roots string, err error) {
	s.Lock()
	defer s.Unlock()
	s.roots, s.err = roots, err
}

func (s *signer) answer() ([]byte, []byte, error) {
	s.Lock()
	defer s.Unlock()
	return []byte("certificate"), []byte(s.roots), s.err
}

func (s *signer) Bootstrap(context.Context, string, string, []byte) ([]byte, []byte, error) {
	return s.answer()
}

func (s *signer) Sign(context.Context, pkix.Name, []byte, string) ([]byte, []byte, error) {
	return s.answer()
}

func (s *signer) Roots() ([]byte, error) {
	_, roots, err := s.answer()
	return roots, err
}

func TestARefusedCertificateHasTheCodeOfItsReason(t *testing.T) {
	ca := &signer{}
	cluster := kubetest.Start(t, func(c *state.Config) { c.Authority = ca })
	rpc := cluster.Client(auth.Node("n")).RPC()
	for is, want := range map[error]codes.Code{
		nil:                 codes.OK,
		authority.ErrDenied: codes.PermissionDenied,
		authority.ErrNoKey:  codes.FailedPrecondition,
		token.ErrFormat:     codes.InvalidArgument,
		token.ErrUnknown:    codes.PermissionDenied,
		token.ErrUsed:       codes.PermissionDenied,
		token.ErrExpired:    codes.PermissionDenied,
		token.ErrNode:       codes.PermissionDenied,
		pki.ErrNotAllowed:   codes.PermissionDenied,
		pki.ErrRequest:      codes.InvalidArgument,
		pki.ErrExpired:      codes.FailedPrecondition,
	} {
		var err error
		if is != nil {
			err = fmt.Errorf("of the test: %w", is)
		}
		ca.set("roots", err)
		_, err = rpc.Bootstrap(t.Context(), &kubepb.BootstrapRequest{Token: "a", Node: "n", Csr: []byte("c")})
		if status.Code(err) != want || is != nil && status.Convert(err).Message() != "of the test: "+is.Error() {
			t.Errorf("Bootstrap, %v: %v", is, err)
		}
		if _, err = rpc.SignRequest(t.Context(), &kubepb.SignRequestRequest{Csr: []byte("c")}); status.Code(err) != want {
			t.Errorf("SignRequest, %v: %v", is, err)
		}
	}
}

// ahead is the machine's clock, ahead by what a test says.
type ahead struct {
	clock.Clock
	by atomic.Int64
}

func (a *ahead) Mono() time.Duration { return a.Clock.Mono() + time.Duration(a.by.Load()) }

func TestHeartbeatsTellTheAuthoritiesOnceAndWhenTheyChange(t *testing.T) {
	ca, clk := &signer{roots: "one"}, &ahead{Clock: clock.Real()}
	cluster := kubetest.Start(t, func(c *state.Config) { c.Authority, c.Clock = ca, clk })
	create(t, cluster.Client(auth.Admin("ann")), nodeOf("n", "1"))
	open := func() func() string {
		stream, err := cluster.Client(auth.Node("n")).RPC().Heartbeat(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return func() string {
			t.Helper()
			if err := stream.Send(&kubepb.HeartbeatRequest{Node: "n", Instance: "i"}); err != nil {
				t.Fatal(err)
			}
			answer, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			return string(answer.Authority)
		}
	}
	beat := open()
	told := []string{beat(), beat()}
	ca.set("one and two", nil)
	clk.by.Add(int64(time.Minute))
	told = append(told, beat(), beat())
	ca.set("", errors.New("the disk is gone"))
	clk.by.Add(int64(time.Minute))
	told = append(told, beat(), open()())
	if got, want := fmt.Sprintf("%q", told), `["one" "" "one and two" "" "" "one and two"]`; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}

func TestATokenMakesNobodyANodeThatLives(t *testing.T) {
	cluster := kubetest.Start(t, func(c *state.Config) { c.Authority = &signer{} })
	rpc := cluster.Client(auth.Admin("ann")).RPC()
	bootstrap := func() error {
		_, err := rpc.Bootstrap(t.Context(), &kubepb.BootstrapRequest{Token: "a", Node: "n", Csr: []byte("c")})
		return err
	}
	create(t, cluster.Client(auth.Admin("ann")), nodeOf("n", "1"))
	if err := bootstrap(); err != nil {
		t.Errorf("a node that registered and does not beat: %v", err)
	}
	stream, err := cluster.Client(auth.Node("n")).RPC().Heartbeat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&kubepb.HeartbeatRequest{Node: "n", Instance: "i"}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := bootstrap(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("while it lives: %v", err)
	}
	if _, err := cluster.Store().Revoke(t.Context(), answer.Lease); err != nil {
		t.Fatal(err)
	}
	if err := bootstrap(); err != nil {
		t.Errorf("once its lease has ended: %v", err)
	}
}

func TestARequestForACertificateSaysWhoMadeIt(t *testing.T) {
	cluster := kubetest.Start(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pki.UserSubject("ann")}, key)
	if err != nil {
		t.Fatal(err)
	}
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r"}}
	r.Spec = certificatesv1.CertificateSigningRequestSpec{
		Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		SignerName: certificatesv1.KubeAPIServerClientSignerName, Usages: []certificatesv1.KeyUsage{"client auth"},
		Username: "system:node:n", Groups: []string{auth.NodesGroup}, UID: "1", Extra: map[string]certificatesv1.ExtraValue{"a": {"b"}},
	}
	r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Me"}}
	ann := cluster.Client(auth.Admin("ann"))
	made := create(t, ann, r)
	s := made.Spec
	if fmt.Sprint(s.Username, s.Groups, s.UID, s.Extra) != "ann[admin]map[]" || len(made.Status.Conditions) > 0 {
		t.Errorf("made by %q of %q, %v", s.Username, s.Groups, made.Status)
	}
	made.Spec.Username = "bob"
	if _, err := objects.Update(t.Context(), ann, made); !errors.Is(err, objects.ErrInvalid) {
		t.Errorf("somebody else's later: %v", err)
	}
}
