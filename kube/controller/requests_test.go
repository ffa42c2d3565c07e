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

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func signingRequest(t *testing.T, name string, hosts ...string) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name, Organization: []string{"system:nodes"}}, DNSNames: hosts,
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
		r.Spec = certificatesv1.CertificateSigningRequestSpec{Request: c.request, SignerName: c.signer, Usages: c.usages, Username: c.user, Groups: []string{"system:nodes"}}
		make1(w, r)
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
