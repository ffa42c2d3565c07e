package controller

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/authority"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/pki"
)

// requests approves what a node asks for itself, and has it signed.
type requests struct {
	term *term
	loop *loop
}

func newRequests(t *term) {
	c := &requests{term: t}
	c.loop = t.loop("certificate requests", c.sync)
	t.views.requests.OnChange(func(old, r *certificatesv1.CertificateSigningRequest) { c.loop.queue.Add(keyOf(either(old, r))) })
}

func (c *requests) sync(ctx context.Context, k key) (time.Duration, error) {
	r, ok := c.term.views.requests.Get("", k.name)
	if !ok {
		return 0, nil
	}
	approved, final := verdict(r)
	next := r.DeepCopy()
	switch {
	case final:
		return 0, nil
	case !approved:
		if err := approvable(r); err != nil {
			c.term.log.Debug("certificate request is left to people", "request", k, "why", err)
			return 0, nil
		}
		c.note(next, certificatesv1.CertificateApproved, "AutoApproved", "a node asked for its own name")
	case c.term.cfg.Signer == nil || profileOf(r) == "":
		return 0, nil
	default:
		switch certificate, err := c.sign(r); {
		case errors.Is(err, authority.ErrNoKey): // Who has it signs by hand, or puts it here.
			return noKeyRetry, nil
		case errors.Is(err, authority.ErrDenied), errors.Is(err, pki.ErrRequest):
			c.note(next, certificatesv1.CertificateFailed, "NotSigned", err.Error())
		case err != nil:
			return 0, wrap(err, "sign", r)
		default:
			next.Status.Certificate = certificate
		}
	}
	_, err := objects.UpdateStatus(ctx, c.term.client, next, c.term.fenced())
	return 0, wrap(err, "status of", r)
}

func (c *requests) note(r *certificatesv1.CertificateSigningRequest, what certificatesv1.RequestConditionType, reason, message string) {
	now := metav1.NewTime(c.term.clock.Wall())
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: what, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now,
	})
}

// noKeyRetry is when the authority's key is looked for again.
const noKeyRetry = time.Minute

// sign has a certificate made that is for who made the request, as the server wrote
// down, whoever approved it.
func (c *requests) sign(r *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	purpose := certificatesv1.UsageClientAuth
	if profileOf(r) == authority.Serving {
		purpose = certificatesv1.UsageServerAuth
	}
	if err := only(r.Spec.Usages, purpose); err != nil {
		return nil, fmt.Errorf("%w: %w", authority.ErrDenied, err)
	}
	life := time.Duration(math.MaxInt64)
	if s := r.Spec.ExpirationSeconds; s != nil {
		life = time.Duration(*s) * time.Second
	}
	subject := pkix.Name{CommonName: r.Spec.Username, Organization: r.Spec.Groups}
	certificate, _, err := c.term.cfg.Signer.SignFor(subject, r.Spec.Request, profileOf(r), life)
	return certificate, err
}

// profileOf what a signer signs. Empty: it is another's.
func profileOf(r *certificatesv1.CertificateSigningRequest) string {
	switch r.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeAPIServerClientKubeletSignerName:
		return authority.Client
	case certificatesv1.KubeletServingSignerName:
		return authority.Serving
	}
	return ""
}

// verdict reports whether a request was approved, and whether nothing is left to do.
func verdict(r *certificatesv1.CertificateSigningRequest) (approved, final bool) {
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.CertificateApproved:
			approved = true
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			final = true
		}
	}
	return approved, final || len(r.Status.Certificate) > 0
}

// approvable is nil for what needs no person: a node that asks for its own name.
func approvable(r *certificatesv1.CertificateSigningRequest) error {
	node, ok := auth.Identity{Name: r.Spec.Username, Groups: r.Spec.Groups}.NodeName()
	if !ok {
		return fmt.Errorf("%q is no node", r.Spec.Username)
	}
	block, _ := pem.Decode(r.Spec.Request)
	if block == nil {
		return errors.New("the request is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return fmt.Errorf("the request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return fmt.Errorf("the request's signature: %w", err)
	}
	if csr.Subject.CommonName != r.Spec.Username || !slices.Equal(csr.Subject.Organization, []string{auth.NodesGroup}) {
		return fmt.Errorf("it asks for %q of %q, not for itself", csr.Subject.CommonName, csr.Subject.Organization)
	}
	switch r.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		if len(csr.DNSNames)+len(csr.IPAddresses)+len(csr.EmailAddresses)+len(csr.URIs) > 0 {
			return errors.New("a client certificate has no hosts")
		}
		return only(r.Spec.Usages, certificatesv1.UsageClientAuth)
	case certificatesv1.KubeletServingSignerName:
		if len(csr.DNSNames) != 1 || csr.DNSNames[0] != node || len(csr.IPAddresses)+len(csr.EmailAddresses)+len(csr.URIs) > 0 {
			return errors.New("hosts other than the node's own name are for a person to judge")
		}
		return only(r.Spec.Usages, certificatesv1.UsageServerAuth)
	}
	return fmt.Errorf("signer %q is none that nodes use", r.Spec.SignerName)
}

func only(usages []certificatesv1.KeyUsage, purpose certificatesv1.KeyUsage) error {
	for _, u := range usages {
		if u != purpose && u != certificatesv1.UsageDigitalSignature && u != certificatesv1.UsageKeyEncipherment {
			return fmt.Errorf("usage %q is more than %q needs", u, purpose)
		}
	}
	return nil
}
