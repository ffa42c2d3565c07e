package kube_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
)

// runtimes are those that this user can try.
func runtimes(t *testing.T, each func(t *testing.T, runtime string)) {
	t.Run("process", func(t *testing.T) { each(t, "process") })
	t.Run("native", func(t *testing.T) {
		if os.Getuid() != 0 {
			if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
				t.Fatal("runtime native needs root")
			}
			t.Skip("runtime native needs root")
		}
		each(t, "native")
	})
}

// startMachine is a dev cluster whose node is this machine. Nothing of it is left.
func startMachine(t *testing.T, runtime string) (*process, *world, string) {
	t.Helper()
	name := fmt.Sprintf("t%d-%s", time.Now().UnixNano()%1e9, runtime)
	p, w := startDev(t, "--runtime="+runtime, "--node-name="+name, "--node-ip=127.0.0.1")
	data := strings.TrimPrefix(p.args[2], "--data-dir=")
	hasNode(t, filepath.Dir(data), name)
	t.Cleanup(func() {
		p.kill()
		remove := exec.Command(filepath.Join(programs(t), "controlplane"), "dev", "remove", "--data-dir="+data, "--runtime="+runtime, "--node-name="+name)
		if out, err := remove.CombinedOutput(); err != nil {
			t.Errorf("controlplane dev remove: %v\n%s", err, out)
		}
	})
	return p, w, data
}

// demo is a Deployment of the image that needs nothing.
func demo(name string, replicas int32) *appsv1.Deployment {
	d := deployment(name, replicas, "10m")
	c := &d.Spec.Template.Spec.Containers[0]
	c.Args = []string{"--port=8080"}
	c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz"}}, PeriodSeconds: 1}
	c.ReadinessProbe.HTTPGet.Port.IntVal = 8080
	return d
}

// only is the one pod of an app.
func (w *world) only(app string) *corev1.Pod {
	w.Helper()
	pods, err := w.pods(w.ctx, app)
	if err != nil || len(pods) != 1 {
		w.Fatalf("%d pods, %v", len(pods), err)
	}
	for _, p := range pods {
		return p
	}
	return nil
}

func ask(url string) (string, error) {
	client := http.Client{Timeout: 20 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

// processes are those of a container, by what their environment says.
func processes(t *testing.T, uid string) []int {
	t.Helper()
	var all []int
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		cmdline, _ := os.ReadFile(filepath.Join(e, "cmdline")) // It may have ended.
		root, _ := os.Readlink(filepath.Join(e, "cwd"))
		groups, _ := os.ReadFile(filepath.Join(e, "cgroup"))
		if strings.Contains(string(cmdline), "demo") && (strings.Contains(root, uid) || strings.Contains(string(groups), uid)) {
			var pid int
			if _, err := fmt.Sscanf(filepath.Base(e), "%d", &pid); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}

func TestAPodRunsOnThisMachineAndLeavesNothing(t *testing.T) {
	runtimes(t, func(t *testing.T, runtime string) {
		_, w, data := startMachine(t, runtime)
		w.create(demo("web", 1))
		w.eventually(30*time.Second, "the pod is ready", func(ctx context.Context) error { return w.rolledOut(ctx, "web", 1) })
		pod := w.only("web")
		url := "http://" + pod.Status.PodIP + ":8080/"
		if body, err := ask(url); err != nil || !strings.Contains(body, pod.Name) {
			t.Fatalf("GET %s: %q, %v", url, body, err)
		}
		status := pod.Status.ContainerStatuses[0]
		if pod.Status.HostIP != "127.0.0.1" || !strings.HasPrefix(status.ContainerID, runtime+"://") || !strings.HasPrefix(status.ImageID, "builtin/demo@") || pod.Status.QOSClass != corev1.PodQOSBurstable {
			t.Errorf("status %+v", pod.Status)
		}

		pids := processes(t, string(pod.UID))
		if len(pids) != 1 {
			t.Fatalf("processes of the container: %v", pids)
		}
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		w.eventually(30*time.Second, "it runs again", func(ctx context.Context) error {
			s := w.only("web").Status.ContainerStatuses[0]
			if s.RestartCount != 1 || !s.Ready || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 137 {
				return fmt.Errorf("container %+v", s)
			}
			return nil
		})

		if err := objects.Delete[*appsv1.Deployment](w.ctx, w.api, "default", "web"); err != nil {
			t.Fatal(err)
		}
		w.eventually(30*time.Second, "nothing is left", func(context.Context) error {
			left, err := os.ReadDir(filepath.Join(data, "node", "pods"))
			if err != nil || len(left) > 0 || len(processes(t, string(pod.UID))) > 0 {
				return fmt.Errorf("folders %v, %v, processes %v", left, err, processes(t, string(pod.UID)))
			}
			_, err = objects.Get[*corev1.Pod](w.ctx, w.api, "default", pod.Name)
			if err == nil {
				return fmt.Errorf("the object of pod %s is there", pod.Name)
			}
			return nil
		})
	})
}

// That the kubelet is killed, or stopped, and starts again is no reason for pods to.
func TestAKubeletThatIsKilledFindsItsPodsAsTheyWere(t *testing.T) {
	runtimes(t, func(t *testing.T, runtime string) {
		p, w, _ := startMachine(t, runtime)
		w.create(demo("web", 3))
		w.eventually(60*time.Second, "the pods are ready", func(ctx context.Context) error { return w.rolledOut(ctx, "web", 3) })
		before, err := w.pods(w.ctx, "web")
		if err != nil {
			t.Fatal(err)
		}
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			p.signal(signal)
			<-p.ended
			for name, pod := range before { // While nobody watches over them.
				if _, err := ask("http://" + pod.Status.PodIP + ":8080/"); err != nil {
					t.Errorf("pod %s after %v: %v", name, signal, err)
				}
			}
			p.start()
			p.awaitReady()
			w.eventually(30*time.Second, "the node is ready", func(ctx context.Context) error { return w.nodesReady(ctx, 1) })
		}
		w.eventually(30*time.Second, "the pods are ready still", func(ctx context.Context) error { return w.rolledOut(ctx, "web", 3) })
		after, err := w.pods(w.ctx, "web")
		if err != nil {
			t.Fatal(err)
		}
		for name, was := range before {
			is := after[name]
			if is == nil || is.Status.ContainerStatuses[0].RestartCount != 0 || is.Status.ContainerStatuses[0].ContainerID != was.Status.ContainerStatuses[0].ContainerID {
				t.Errorf("pod %s is now %+v", name, is)
			}
		}
		w.replay()
	})
}
