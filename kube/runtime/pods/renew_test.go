package pods_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/kubelet"
)

func TestAContainerIsRenewedAndWhatItRunsFromIsKnownToTheNextKubelet(t *testing.T) {
	s := begin(t)
	o := podOf("c", "d")
	s.runs(o, "c")
	s.runs(o, "d")
	is := s.state(o, "c")
	if is.Image != "image" {
		t.Errorf("state %+v", is)
	}
	updated := o.DeepCopy()
	updated.Spec.Containers[0].Image = "another"
	updated.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", ContainerID: is.ID, Image: is.Image}}
	s.restart(updated)
	if is := s.state(updated, "c"); is.Image != "image" {
		t.Errorf("afterwards %+v", is)
	}
	s.runtime.Renew(updated, "c")
	s.runtime.Renew(updated, "c") // It is told once.
	s.until("it has ended", func() bool { return s.state(updated, "c").Phase == kubelet.Exited })
	s.runs(updated, "c")
	if is := s.state(updated, "c"); is.Image != "another" {
		t.Errorf("anew %+v", is)
	}
	s.calls("open u1", "start c 0", "start d 0", "stop c 10s", "start c 1")
}
