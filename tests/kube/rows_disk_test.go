package kube_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
)

// The disk under the folder of a kubelet runs full. Pods go on, the node says what it is
// and takes none in, and a kubelet that is killed meanwhile finds what runs. Once there is
// room all goes on, and nothing is damaged.
func TestAFullDiskUnderAKubeletEndsNoPod(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
			t.Fatal("a small disk needs root")
		}
		t.Skip("a small disk needs root")
	}
	t.Parallel()
	r := startRows(t, rowsOf{nodes: 1, prepare: func(n *rowsNode) { smallDisk(t, n.dir) }})
	n := r.nodes[0]
	r.run(podOf("web", r.demo("c")))
	talker := r.run(podOf("talker", shContainer("c", `n=0; while true; do n=$((n+1)); echo "line $n"; sleep 0.1; done`)))
	r.run(r.writer())
	before, births := r.ids(""), r.births()

	filler := r.fillDisk(n)
	r.eventually(30*time.Second, "the node says that its disk is full", func(ctx context.Context) error { return r.pressed(ctx, n, corev1.ConditionTrue) })
	r.goesOn(n, "full")
	if said, err := r.try("exec", "-q", "writer", "-c", "c", "--", "/bin/sh", "-c", `head -c 100000 /dev/zero > "${HOLDFAST_ROOT:-}/data/more"`); err == nil || !strings.Contains(said, "No space left") {
		t.Errorf("a pod writes to the full disk: %v\n%s", err, said)
	}
	if _, err := objects.Create(r.ctx, r.api, podOf("later", r.demo("c"))); err != nil {
		t.Fatal(err)
	}
	r.eventually(20*time.Second, "a pod waits, and people see why", func(context.Context) error {
		if why := r.ctl("why", "later"); !strings.Contains(why, "had disk pressure") {
			return errors.New(why)
		}
		return nil
	})
	n.kill()
	n.start()
	r.goesOn(n, "full, with another kubelet")
	r.remove("writer")
	r.eventually(20*time.Second, "a pod that is deleted goes", func(ctx context.Context) error {
		if _, err := r.pod(ctx, "writer"); !errors.Is(err, objects.ErrNotFound) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
	r.same(before, withWriter(r.ids(""), before))

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.eventually(30*time.Second, "the node has room", func(ctx context.Context) error { return r.pressed(ctx, n, corev1.ConditionFalse) })
	r.ready("later")
	r.goesOn(n, "no longer full")
	r.wholeLog(talker)
	n.kill()
	n.start()
	r.goesOn(n, "no longer full, with another kubelet")
	r.same(before, withWriter(r.ids("app!=later"), before))
	for pod, birth := range births {
		if r.births()[pod] != birth {
			t.Errorf("%s: %s, was %s", pod, r.births()[pod], birth)
		}
	}
	log, err := os.ReadFile(n.args[0] + ".log")
	if err != nil {
		t.Fatal(err)
	}
	if told := lines(string(log), "disk pressure has changed", `"pressure":true`); told != 2 { // Two kubelets have seen it.
		t.Errorf("the log tells %d times that the disk is full:\n%s", told, log)
	}
	if told := lines(string(log), "no space left"); told > 10 {
		t.Errorf("the log tells %d times that there is no space:\n%s", told, log)
	}
}

// smallDisk is where a node keeps everything.
func smallDisk(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", dir, "tmpfs", 0, "size=192m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // After all that runs on it.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fillDisk leaves not a byte.
func (r *rows) fillDisk(n *rowsNode) string {
	r.Helper()
	name := filepath.Join(n.dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			r.Fatal(err)
		}
	}
	return name
}

func (r *rows) writer() *corev1.Pod {
	c := shContainer("c", "exec sleep 1000")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	p := podOf("writer", c)
	p.Spec.Volumes = []corev1.Volume{{Name: "data"}}
	p.Spec.Volumes[0].EmptyDir = &corev1.EmptyDirVolumeSource{}
	return p
}

// pressed wants the condition of a node.
func (r *rows) pressed(ctx context.Context, n *rowsNode, want corev1.ConditionStatus) error {
	is, err := objects.Get[*corev1.Node](ctx, r.api, "", n.node)
	if err != nil {
		return err
	}
	for _, c := range is.Status.Conditions {
		if c.Type == corev1.NodeDiskPressure && c.Status == want {
			return nil
		}
	}
	return fmt.Errorf("conditions %+v", is.Status.Conditions)
}

// goesOn has a pod answer, and another run a command.
func (r *rows) goesOn(n *rowsNode, when string) {
	r.Helper()
	p, err := r.pod(r.ctx, "web")
	if err != nil {
		r.Fatal(err)
	}
	answer, err := r.web(n).Get(url(p, "/"))
	if err != nil {
		r.Fatalf("%s: %v", when, err)
	}
	answer.Body.Close()
	r.eventually(20*time.Second, "a command runs: the disk is "+when, func(ctx context.Context) error { return r.exec(ctx, p, "c", "/bin/holdfast", "demo", "--help") })
}

// withWriter are the containers, with that of the pod which was deleted.
func withWriter(ids, before map[string]string) map[string]string {
	ids["writer/c"] = before["writer/c"]
	return ids
}

// wholeLog wants a log of lines with numbers to go on, and no line to be torn or missing.
// Of those for which there was no room the log says so.
func (r *rows) wholeLog(p *corev1.Pod) {
	r.Helper()
	newest := func() int {
		last, dropped := 0, false
		for line := range strings.Lines(r.ctl("logs", p.Name)) {
			if strings.HasPrefix(line, "holdfast: ") && strings.HasSuffix(line, " before this line could not be written\n") {
				dropped = true
				continue
			}
			n := 0
			_, err := fmt.Sscanf(line, "line %d\n", &n)
			if err != nil || line != fmt.Sprintf("line %d\n", n) || n <= last || n > last+1 && !dropped {
				r.Errorf("after line %d: %q", last, line)
			}
			last, dropped = n, false
		}
		return last
	}
	first := newest()
	r.eventually(20*time.Second, "the log goes on", func(context.Context) error {
		if now := newest(); now <= first {
			return fmt.Errorf("line %d", now)
		}
		return nil
	})
}
