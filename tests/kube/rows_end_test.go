package kube_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
)

// end has all objects go as people would, and looks for what is left behind.
func (r *rows) end() {
	if !r.Failed() {
		ctx, cancel := context.WithTimeout(context.Background(), slack*40*time.Second)
		defer cancel()
		r.empty(ctx)
	}
	for _, n := range r.nodes {
		if n.process != nil && n.process.cmd != nil {
			n.settles()
			n.signal(syscall.SIGTERM)
			select {
			case <-n.ended:
			case <-time.After(slack * 15 * time.Second):
				r.Errorf("kubelet of %s does not end:\n%s", n.node, n.out)
				n.kill()
			}
		}
		left := n.left()
		n.sweep(left)
		if !r.Failed() && len(left) > 0 {
			r.Errorf("node %s left behind:\n%s", n.node, strings.Join(left, "\n"))
		}
	}
}

// settles waits for a kubelet to hear that the objects of its pods are gone: only then
// it removes their folders. One that ended before would do so at its next start.
func (n *rowsNode) settles() {
	for late := time.Now().Add(slack * 10 * time.Second); len(n.left()) > 0 && time.Now().Before(late); {
		time.Sleep(50 * time.Millisecond)
	}
}

// empty removes all objects that have pods, then pods.
func (r *rows) empty(ctx context.Context) {
	must := func(err error) {
		if err != nil && !errors.Is(err, objects.ErrNotFound) {
			r.Errorf("remove what the test made: %v", err)
		}
	}
	scalers, _, err := objects.List[*autoscalingv2.HorizontalPodAutoscaler](ctx, r.api, objects.ListOptions{})
	must(err)
	for _, o := range scalers {
		must(objects.Delete[*autoscalingv2.HorizontalPodAutoscaler](ctx, r.api, o.Namespace, o.Name))
	}
	deployments, _, err := objects.List[*appsv1.Deployment](ctx, r.api, objects.ListOptions{})
	must(err)
	for _, o := range deployments {
		must(objects.Delete[*appsv1.Deployment](ctx, r.api, o.Namespace, o.Name))
	}
	for {
		pods, _, err := objects.List[*corev1.Pod](ctx, r.api, objects.ListOptions{})
		if err != nil {
			must(err)
			return
		}
		if len(pods) == 0 {
			return
		}
		for _, p := range pods {
			if p.DeletionTimestamp == nil {
				must(objects.Delete[*corev1.Pod](ctx, r.api, p.Namespace, p.Name))
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			r.Errorf("%d pods do not go, %s for one", len(pods), pods[0].Name)
			return
		}
	}
}

// groups are the folders of cgroups of a native node.
func (n *rowsNode) groups() []string {
	var all []string
	for _, pattern := range []string{"/sys/fs/cgroup/holdfast-" + n.node, "/sys/fs/cgroup/*/holdfast-" + n.node} {
		found, _ := filepath.Glob(pattern) // The pattern is right.
		all = append(all, found...)
	}
	return all
}

// left is what there still is of the pods of a node whose kubelet has ended.
func (n *rowsNode) left() (all []string) {
	for _, g := range n.groups() {
		_ = filepath.WalkDir(g, func(path string, d fs.DirEntry, err error) error { // What is gone meanwhile is gone.
			if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "pod") {
				all = append(all, "cgroup "+path)
				return fs.SkipDir
			}
			return nil
		})
	}
	for _, pid := range n.processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // For people.
		all = append(all, fmt.Sprintf("process %d %q", pid, line))
	}
	for _, mount := range n.mounts() {
		all = append(all, "mount "+mount)
	}
	folders, _ := os.ReadDir(filepath.Join(n.dir, "pods")) // None: there never was a pod.
	for _, f := range folders {
		all = append(all, "folder "+filepath.Join(n.dir, "pods", f.Name()))
	}
	return all
}

func (n *rowsNode) mounts() (all []string) {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], n.dir+"/") {
			all = append(all, f[4])
		}
	}
	return all
}

// processes of a node other than its kubelet: those in its cgroups, and those that
// have its folder in what they were started with, or files of pods open.
func (n *rowsNode) processes() (all []int) {
	for _, g := range n.groups() {
		_ = filepath.WalkDir(g, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil
			}
			text, _ := os.ReadFile(path)
			for word := range strings.FieldsSeq(string(text)) {
				if pid, err := strconv.Atoi(word); err == nil {
					all = append(all, pid)
				}
			}
			return nil
		})
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || n.process != nil && n.cmd != nil && pid == n.cmd.Process.Pid {
			continue
		}
		if n.owns(pid) {
			all = append(all, pid)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (n *rowsNode) owns(pid int) bool {
	at := fmt.Sprintf("/proc/%d/", pid)
	for _, link := range []string{"exe", "cwd"} {
		if to, err := os.Readlink(at + link); err == nil && strings.HasPrefix(to, n.dir+"/") {
			return true
		}
	}
	files, _ := os.ReadDir(at + "fd") // A supervisor has nothing else; what has ended has none.
	for _, f := range files {
		if to, err := os.Readlink(at + "fd/" + f.Name()); err == nil && strings.HasPrefix(to, n.dir+"/") && strings.Contains(to, "/pods/") {
			return true
		}
	}
	for _, file := range []string{"environ", "cmdline"} {
		if text, err := os.ReadFile(at + file); err == nil && bytes.Contains(text, []byte(n.dir+"/")) {
			return true
		}
	}
	return false
}

// sweep ends what is left of a node, each by its number.
func (n *rowsNode) sweep(left []string) {
	if len(left) == 0 && len(n.groups()) == 0 {
		return
	}
	n.cutPower()
	for _, m := range n.mounts() {
		_ = unix.Unmount(m, unix.MNT_DETACH)
	}
	for _, g := range n.groups() {
		var dirs []string
		_ = filepath.WalkDir(g, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		slices.Reverse(dirs)
		for _, d := range dirs {
			_ = os.Remove(d) // A group that is busy stays, and is seen in the report.
		}
	}
}

// cutPower kills everything of a node at once, its kubelet first if it runs.
func (n *rowsNode) cutPower() {
	if n.process != nil && n.cmd != nil && n.running() {
		n.kill()
	}
	for range 200 {
		all := n.processes()
		if len(all) == 0 {
			return
		}
		for _, pid := range all {
			_ = syscall.Kill(pid, syscall.SIGKILL) // It may have gone.
		}
		time.Sleep(50 * time.Millisecond)
	}
}
