package pods_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/kubelet"
)

// What a pod wrote to an emptyDir lasts as long as the pod is on its node.
func TestAPodThatIsFencedAndStartedAgainHasItsVolumesAsTheyWere(t *testing.T) {
	s := begin(t)
	o := podOf("c")
	o.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	o.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	s.runs(o, "c")
	file := filepath.Join(s.dir, "u1", "volumes", "data", "file")
	there := func() bool { _, err := os.Stat(file); return err == nil }
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.runtime.Fence(o)
	s.until("it is stopped", func() bool { return !s.runtime.Status(o).Exists })
	if !there() {
		t.Error("what it wrote is gone when it is stopped")
	}
	s.runtime.Start(o, "c")
	s.until("it runs again", func() bool { return s.state(o, "c").Phase == kubelet.Running })
	if !there() {
		t.Error("what it wrote is gone when it runs again")
	}
	s.calls("open u1", "start c 0", "stop c 0s", "close u1", "open u1", "start c 1")
	s.runtime.Stop(o, 0)
	s.until("it is gone", func() bool { return !s.runtime.Status(o).Exists })
	if there() {
		t.Error("what it wrote stays when it has ended")
	}
	// One that ends for another reason meanwhile does not keep them.
	s.runs(o, "c")
	s.runtime.Stop(o, 10*time.Second)
	s.runtime.Fence(o)
	s.until("it is gone", func() bool { return !s.runtime.Status(o).Exists })
	if left, _ := os.ReadDir(filepath.Join(s.dir, "u1", "volumes")); len(left) > 0 {
		t.Errorf("volumes are left: %v", left)
	}
}
