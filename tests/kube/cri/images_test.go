package cri_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

func TestImagesOfContainerdAreToldAndRemoved(t *testing.T) {
	b := newBench(t, wires)
	want := *b.files.Images().Plain
	s := &shelf{content: newImage(t, b.files.Layer, &want), ref: "builtin/demo", name: "builtin/demo:latest"}
	e := b.open(t, func(string) {}, s)
	own, err := e.Pull(t.Context(), s.ref, nil)
	must(t, err)
	plain := b.files.Images().WithUser // Another user: another image.
	b.load(t, b.files, plain)
	other := pulled(t, e, plain.Ref)
	has := func() map[string]runtime.KeptImage {
		t.Helper()
		list, err := e.Kept(t.Context())
		must(t, err)
		all := map[string]runtime.KeptImage{}
		for _, k := range list {
			for _, name := range k.Names {
				all[name] = k
			}
		}
		return all
	}
	is := has()
	if k := is[s.name]; k.ID != own.ID || k.InUse || k.Bytes == 0 {
		t.Errorf("the node's own is %+v, want %s", k, own.ID)
	}
	if k := is[plain.Ref]; k.ID != other.ID || k.InUse {
		t.Errorf("the other is %+v, want %s", k, other.ID)
	}
	if !is[pauseRef].InUse {
		t.Errorf("that of sandboxes counts as free: %+v", is)
	}
	p := b.pod(t, "user")
	_, err = e.Open(t.Context(), p)
	must(t, err)
	_, err = e.Start(t.Context(), container(p, other, "wait"))
	must(t, err)
	if !has()[plain.Ref].InUse {
		t.Error("that of a container counts as free")
	}
	must(t, e.RemoveImage(t.Context(), own.ID))
	must(t, e.RemoveImage(t.Context(), own.ID)) // Again: nothing.
	waitFor(t, "the removed one to be gone", func() bool { _, there := has()[s.name]; return !there })
	dir, err := e.ImageDir(t.Context())
	must(t, err)
	if _, err := os.Stat(dir); err != nil || !strings.HasPrefix(dir, filepath.Join(b.containerd.dir, "root")) {
		t.Errorf("images are at %q, %v", dir, err)
	}
}

// images are what people see of those of the node: whether they are used, by name.
func (c *cluster) images() map[string]string {
	c.t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(c.ctl("image", "ls", "--no-headers")) {
		if words := strings.Fields(line); len(words) > 3 {
			all[words[1]] = words[len(words)-1]
		}
	}
	return all
}

// hasImages looks for one that was pushed: in containerd, before any pod wants it, and among
// all that people see.
func (c *cluster) hasImages(pushed string) {
	c.t.Helper()
	names, err := exec.Command("ctr", "-a", c.socket, "-n", "k8s.io", "images", "ls", "-q").CombinedOutput()
	if err != nil || !strings.Contains(string(names), pushed) {
		c.t.Errorf("containerd has %s, %v", names, err)
	}
	is := c.images()
	if is["builtin/demo"] != "yes" || is[pushed] != "no" || is[pauseRef] != "yes" {
		c.t.Errorf("the images of the node are %v", is)
	}
}

// tellsImages looks for those of the node in its status, soon after its kubelet has begun.
func (c *cluster) tellsImages(pushed string) {
	c.t.Helper()
	c.eventually("the node's status has its images", func() error {
		n, err := objects.Get[*corev1.Node](c.t.Context(), c.api, "", os.Getenv(insideVariable))
		if err != nil {
			return err
		}
		if v := n.Status.NodeInfo.ContainerRuntimeVersion; !strings.HasPrefix(v, "containerd://1.") {
			return fmt.Errorf("its runtime is %s", v)
		}
		for _, name := range []string{"builtin/demo", pushed} {
			if !slices.ContainsFunc(n.Status.Images, func(i corev1.ContainerImage) bool { return slices.Contains(i.Names, name) && i.SizeBytes > 0 }) {
				return fmt.Errorf("no %s in %+v", name, n.Status.Images)
			}
		}
		return nil
	})
}

// removesImages has one go that was pushed, and not the one that containerd needs itself.
func (c *cluster) removesImages(pushed string) {
	c.t.Helper()
	if out, ok := c.try("image", "rm", pauseRef); ok || !strings.Contains(out, "in use") {
		c.t.Errorf("the image of sandboxes is removed: %s", out)
	}
	c.ctl("image", "rm", pushed)
	names, err := exec.Command("ctr", "-a", c.socket, "-n", "k8s.io", "images", "ls", "-q").CombinedOutput()
	if err != nil || strings.Contains(string(names), pushed) || !strings.Contains(string(names), pauseRef) {
		c.t.Errorf("containerd has %s, %v", names, err)
	}
	if is := c.images(); is[pushed] != "" {
		c.t.Errorf("the images of the node are %v", is)
	}
}
