package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/checkpoint"
)

// Without a control plane the folder of a node tells how its pods are, and what of it
// cannot be read.
func TestCheckpointsTellHowPodsAre(t *testing.T) {
	dir := t.TempDir()
	f, err := checkpoint.Open(vfs.OS(), dir)
	if err != nil {
		t.Fatal(err)
	}
	at := metav1.NewTime(time.Unix(1000, 0))
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID = "default", "web-1", "a"
	p.Annotations = map[string]string{api.Singleton: "true"}
	p.Spec.Containers = []corev1.Container{{Name: "c"}, {Name: "d"}}
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}, {Type: corev1.PodInitialized, Status: corev1.ConditionTrue}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{
		{Name: "c", Image: "builtin/demo", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}}},
		{
			Name: "d", Image: "x", RestartCount: 3, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137, FinishedAt: at}},
		},
	}
	if err := f.PutPod(p); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := offline(t, "inspect", "checkpoints", dir)
	want := `node none, history 0000000000000000, 1 pods
pod a default/web-1 Running, 1/2 ready, 3 restarts, singleton, not [Ready]
    c builtin/demo: running since 1970-01-01T00:16:40Z, ready, 0 restarts
    d x: waiting, CrashLoopBackOff, not ready, 3 restarts, before: ended 1970-01-01T00:16:40Z, OOMKilled, exit code 137
`
	if stdout != want || code != 0 {
		t.Errorf("%d %s\n%s\nwant\n%s", code, stderr, stdout, want)
	}
	if stdout, _, code = offline(t, "inspect", "checkpoints", dir, "-w", "json"); code != 0 || !strings.Contains(stdout, `"state":"waiting, CrashLoopBackOff","ready":false,"restarts":3`) {
		t.Errorf("%d %s", code, stdout)
	}

	p.UID = types.UID("b")
	for range 2 {
		if err := f.PutPod(p); err != nil {
			t.Fatal(err)
		}
	}
	spoil := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("no"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spoil("pod-b")
	stdout, stderr, code = offline(t, "inspect", "checkpoints", dir)
	if code != exitFailed || !strings.Contains(stdout, "pod b default/web-1 Running") || !strings.Contains(stdout, "damaged "+filepath.Join(dir, "pod-b")+":") ||
		!strings.Contains(stderr, "1 files cannot be read") {
		t.Errorf("%d %s\n%s", code, stderr, stdout)
	}
	spoil("pod-b.before")
	if stdout, stderr, code = offline(t, "inspect", "checkpoints", dir); code != exitFailed || strings.Contains(stdout, "pod b") || !strings.Contains(stderr, "no file tells what pod b is") {
		t.Errorf("%d %s\n%s", code, stderr, stdout)
	}
}
