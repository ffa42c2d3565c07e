package controller_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/authority"
	"github.com/holdfast-db/holdfast/kube/controller"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func signingRequest(t *testing.T, name string, hosts ...string) []byte {
	t.Helper()
	return requestOf(t, pki.UserSubject(name, "system:nodes"), hosts...)
}

func requestOf(t *testing.T, subject pkix.Name, hosts ...string) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: subject, DNSNames: hosts,
	}, k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// TestANodeGetsItsOwnNameApprovedAndNoOther makes requests that differ in one thing.
func TestANodeGetsItsOwnNameApprovedAndNoOther(t *testing.T) {
	w := newWorld(t, 1)
	w.run(w.manager(clock.Real()), w.lead())
	client, serving := certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.KubeletServingSignerName
	auths, servers := []certificatesv1.KeyUsage{"digital signature", "client auth"}, []certificatesv1.KeyUsage{"digital signature", "server auth"}
	cases := []struct {
		name, user, signer string
		request            []byte
		usages             []certificatesv1.KeyUsage
		approved           bool
	}{
		{"other-name", "system:node:n0", client, signingRequest(t, "system:node:n1"), auths, false},
		{"other-host", "system:node:n0", serving, signingRequest(t, "system:node:n0", "api.example.com"), servers, false},
		{"more-usages", "system:node:n0", client, signingRequest(t, "system:node:n0"), servers, false},
		{"no-node", "ann", client, signingRequest(t, "ann"), auths, false},
		{"serving", "system:node:n0", serving, signingRequest(t, "system:node:n0", "n0"), servers, true},
		{"client", "system:node:n0", client, signingRequest(t, "system:node:n0"), auths, true},
	}
	for _, c := range cases {
		r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: c.name}}
		r.Spec = certificatesv1.CertificateSigningRequestSpec{Request: c.request, SignerName: c.signer, Usages: c.usages}
		caller := auth.Identity{Name: c.user, Groups: []string{auth.NodesGroup, auth.AdminGroup}}
		if _, err := objects.Create(t.Context(), w.cluster.Client(caller), r); err != nil {
			t.Fatal(err)
		}
	}
	approved := func(name string) bool {
		r, err := objects.Get[*certificatesv1.CertificateSigningRequest](t.Context(), w.client, "", name)
		if err != nil {
			t.Fatal(err)
		}
		return len(r.Status.Conditions) == 1 && r.Status.Conditions[0].Type == certificatesv1.CertificateApproved
	}
	w.eventually("the last of them is approved", func() (bool, string) { return approved("client") && approved("serving"), "" })
	for _, c := range cases {
		if approved(c.name) != c.approved {
			t.Errorf("%s: approved %v", c.name, !c.approved)
		}
	}
}

// TestWhoWasApprovedGetsACertificateInHisOwnNameOnly approves requests as a person does.
func TestWhoWasApprovedGetsACertificateInHisOwnNameOnly(t *testing.T) {
	w := newWorld(t, 1)
	folder := pki.Store{FS: vfstest.NewMem(), Clock: clock.Real(), Dir: "certs"}
	if _, _, err := folder.CreateAuthority(pki.AuthorityRequest{CommonName: "cluster CA"}); err != nil {
		t.Fatal(err)
	}
	signer, err := authority.New(authority.Config{FS: folder.FS, Clock: clock.Real(), Logger: hclog.NewNullLogger(), Dir: folder.Dir})
	if err != nil {
		t.Fatal(err)
	}
	m, err := controller.New(controller.Config{Client: w.cluster.Client(auth.Controllers()), Store: w.cluster.Store(), Signer: signer, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	w.run(m, w.lead())
	ann := w.cluster.Client(auth.Admin("ann"))
	approved := func(name string, subject pkix.Name, usage certificatesv1.KeyUsage) *certificatesv1.CertificateSigningRequest {
		t.Helper()
		hour := int32(3600)
		r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}}
		r.Spec = certificatesv1.CertificateSigningRequestSpec{
			Request: requestOf(t, subject), SignerName: certificatesv1.KubeAPIServerClientSignerName, ExpirationSeconds: &hour,
			Usages: []certificatesv1.KeyUsage{usage}, Username: subject.CommonName, Groups: subject.Organization,
		}
		made, err := objects.Create(t.Context(), ann, r)
		if err != nil {
			t.Fatal(err)
		}
		made.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "ByHand"}}
		if _, err := objects.UpdateStatus(t.Context(), ann, made); err != nil {
			t.Fatal(err)
		}
		w.eventually(name+" is decided", func() (bool, string) {
			if made, err = objects.Get[*certificatesv1.CertificateSigningRequest](context.Background(), ann, "", name); err != nil {
				t.Fatal(err)
			}
			return len(made.Status.Certificate) > 0 || len(made.Status.Conditions) > 1, made.Status.String()
		})
		return made
	}
	own := pki.UserSubject("ann", auth.AdminGroup)
	for name, r := range map[string]*certificatesv1.CertificateSigningRequest{
		"another": approved("another", pki.UserSubject("bob", auth.ViewGroup), "client auth"),
		"group":   approved("group", pki.UserSubject("ann", auth.AdminGroup, auth.MastersGroup), "client auth"),
		"usage":   approved("usage", own, "server auth"),
	} {
		if c := r.Status.Conditions; len(r.Status.Certificate) > 0 || c[len(c)-1].Type != certificatesv1.CertificateFailed {
			t.Errorf("%s: %v", name, r.Status)
		}
	}
	block, _ := pem.Decode(approved("own", own, "client auth").Status.Certificate)
	if block == nil {
		t.Fatal("no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if left := cert.NotAfter.Sub(clock.Real().Wall()); cert.Subject.String() != own.String() || left > time.Hour || left < 50*time.Minute {
		t.Errorf("a certificate of %s for %v", cert.Subject, left)
	}
}

func TestADisruptionBudgetIsCounted(t *testing.T) {
	w := newWorld(t, 2)
	w.run(w.manager(clock.Real()), w.lead())
	make1(w, web(3, "one"))
	two := intstr.FromInt32(2)
	make1(w, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &two, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	})
	w.done("web")
	w.eventually("one disruption is allowed", func() (bool, string) {
		b, err := objects.Get[*policyv1.PodDisruptionBudget](context.Background(), w.client, "default", "web")
		if err != nil {
			t.Fatal(err)
		}
		return b.Status.DisruptionsAllowed == 1 && b.Status.CurrentHealthy == 3, b.Status.String()
	})
}

func TestAnAutoscalerFollowsWhatKubeletsMeasure(t *testing.T) {
	w := newWorld(t, 1)
	d := web(2, "one")
	d.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	w.run(w.manager(clock.Real()), w.lead())
	make1(w, d)
	w.done("web")
	sample := &kubepb.SampleRequest{Node: "n0"}
	for _, p := range w.pods("default") {
		sample.Pods = append(sample.Pods, &kubepb.PodUse{Namespace: p.Namespace, Name: p.Name, Uid: string(p.UID), Containers: map[string]*kubepb.Use{"c": {CpuMillis: 100}}})
	}
	if _, err := w.cluster.Client(auth.Node("n0")).RPC().Sample(t.Context(), sample); err != nil {
		t.Fatal(err)
	}
	half := int32(50)
	make1(w, &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}, MaxReplicas: 10,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &half},
			}}},
		},
	})
	w.eventually("twice the load wants twice the pods", func() (bool, string) {
		d := w.deployment("web")
		return *d.Spec.Replicas == 4 && d.Status.AvailableReplicas == 4, fmt.Sprint(*d.Spec.Replicas)
	})
}
