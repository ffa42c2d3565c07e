package state_test

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/objects"
)

func TestPodsAskTheirNodesForNoMoreThanTheirNamespaceAllows(t *testing.T) {
	cluster, c := admin(t)
	refused := func(what, want string, err error) {
		t.Helper()
		if !errors.Is(err, objects.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	ns := &corev1.Namespace{}
	ns.Name, ns.Labels = "team", map[string]string{api.EnforceLabel: "basic"}
	_, err := objects.Create(t.Context(), c, ns)
	refused("a level that there is not", "metadata.labels[pod-security.kubernetes.io/enforce]", err)
	ns.Labels[api.EnforceLabel] = api.Baseline
	ns = create(t, c, ns)
	reaching := func(name string) *corev1.Pod {
		p := podOf(name, "1")
		p.Namespace = "team"
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		return p
	}
	_, err = objects.Create(t.Context(), c, reaching("a"))
	refused("files of the node", "spec.volumes[0].hostPath", err)
	plain := podOf("plain", "1")
	plain.Namespace = "team"
	plain = create(t, c, plain)
	plain.Spec.Containers[0].Image = api.HostRoot
	_, err = objects.Update(t.Context(), c, plain)
	refused("an image that becomes the node's root", "spec.containers[0].image", err)
	elsewhere := reaching("b")
	elsewhere.Namespace = "default"
	create(t, c, elsewhere)

	ns.Labels[api.EnforceLabel] = "none"
	_, err = objects.Update(t.Context(), c, ns)
	refused("a level that becomes another", api.EnforceLabel, err)
	ns.Labels[api.EnforceLabel] = api.Restricted
	if ns, err = objects.Update(t.Context(), c, ns); err != nil {
		t.Fatal(err)
	}
	again := podOf("again", "1")
	again.Namespace = "team"
	_, err = objects.Create(t.Context(), c, again)
	refused("a pod that may be root", "spec.containers[0].securityContext.runAsNonRoot", err)
	// What is there stays, and may be told of.
	p, err := objects.Get[*corev1.Pod](t.Context(), c, "team", "plain")
	if err != nil {
		t.Fatal(err)
	}
	p.Labels["more"] = "yes"
	if _, err = objects.Update(t.Context(), c, p); err != nil {
		t.Error(err)
	}
	// A static pod runs already.
	create(t, c, nodeOf("n1", "4"))
	mirror := reaching("m-n1")
	mirror.Spec.NodeName = "n1"
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	create(t, cluster.Client(auth.Node("n1")), mirror)
	delete(ns.Labels, api.EnforceLabel)
	if _, err := objects.Update(t.Context(), c, ns); err != nil {
		t.Fatal(err)
	}
	create(t, c, reaching("c"))
}
