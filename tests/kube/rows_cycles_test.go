package kube_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
)

var rowsCycles = flag.Int("rows.cycles", 60, "pods that come and go while kubelets and supervisors are killed")

// cyclesAtOnce are the pods that come and go beside each other.
const cyclesAtOnce = 10

// Pods come and go, with networks, services and volumes, while kubelets and supervisors
// are killed at random. At the end the nodes have what they had before the first.
func TestPodsComeAndGoAndNothingIsLeftWhereKubeletsAndSupervisorsAreKilled(t *testing.T) {
	seed := *faultsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("replay with: go test ./tests/kube -run PodsComeAndGo -rows.cycles=%d -seed=%d", *rowsCycles, seed)
	r := startRows(t, rowsOf{native: true, nodes: 2})
	secret := &corev1.Secret{StringData: map[string]string{"word": "hum"}}
	secret.Namespace, secret.Name = "default", "words"
	if _, err := objects.Create(r.ctx, r.api, secret); err != nil {
		t.Fatal(err)
	}
	r.service(rowsService("cycles", map[string]string{"of": "cycles"}))
	for i := range 2 * len(r.nodes) { // Images and the folders of nodes are made by these.
		p := r.cyclePod(fmt.Sprintf("first-%d", i), i)
		onNode(&p.Spec, r.nodes[i%len(r.nodes)])
		r.run(p)
		r.remove(p.Name)
	}
	r.eventually(30*time.Second, "the first pods are gone", r.noPods)
	before := map[*rowsNode][]string{}
	for _, n := range r.nodes {
		n.kill()
		n.start()
		r.settled(n)
		before[n] = r.inventory(n)
	}

	began := time.Now()
	ctx, cancel := context.WithCancel(r.ctx)
	var killer, all sync.WaitGroup
	var kubelets, supervisors, ready atomic.Int32
	killer.Go(func() { r.killAtRandom(ctx, rand.New(rand.NewPCG(seed, 0)), &kubelets, &supervisors) })
	var next atomic.Int32
	for worker := range cyclesAtOnce {
		chance := rand.New(rand.NewPCG(seed, uint64(1+worker)))
		all.Go(func() {
			for i := next.Add(1); i <= int32(*rowsCycles) && !r.Failed(); i = next.Add(1) {
				if err := r.cycle(chance, int(i), &ready); err != nil {
					r.Error(err)
				}
			}
		})
	}
	all.Wait()
	cancel()
	killer.Wait()
	t.Logf("%d pods came and went in %.0f s, %d of them seen ready; %d kubelets and %d supervisors were killed", *rowsCycles, time.Since(began).Seconds(), ready.Load(), kubelets.Load(), supervisors.Load())
	if kubelets.Load() == 0 || supervisors.Load() == 0 || ready.Load() == 0 {
		t.Error("that is no trial")
	}
	for _, n := range r.nodes {
		r.settled(n)
		r.eventually(30*time.Second, n.node+" has what it had", func(context.Context) error {
			return left(before[n], r.inventory(n))
		})
	}
	r.replay()
}

// cyclePod is one of several sorts.
func (r *rows) cyclePod(name string, sort int) *corev1.Pod {
	p := podOf(name, r.demo("c"))
	p.Labels["of"] = "cycles"
	grace := int64(sort % 2)
	p.Spec.TerminationGracePeriodSeconds = &grace
	if sort%2 == 0 {
		return p
	}
	c := shContainer("sh", "trap '' TERM; exec sleep 1000")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "memory", MountPath: "/memory"}, {Name: "words", MountPath: "/words"}}
	p.Spec.Containers = append(p.Spec.Containers, c)
	p.Spec.Volumes = []corev1.Volume{{Name: "memory"}, {Name: "words"}}
	p.Spec.Volumes[0].EmptyDir = &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}
	p.Spec.Volumes[1].Secret = &corev1.SecretVolumeSource{SecretName: "words"}
	return p
}

// cycle is the life of a pod, which may end at any time.
func (r *rows) cycle(chance *rand.Rand, i int, ready *atomic.Int32) error {
	p := r.cyclePod(fmt.Sprintf("cycle-%d", i), chance.IntN(4))
	if _, err := objects.Create(r.ctx, r.api, p); err != nil {
		return err
	}
	patience := time.Duration(chance.IntN(1500)) * time.Millisecond
	if chance.IntN(2) == 0 {
		patience = 20 * time.Second
	}
	for end := time.Now().Add(patience); time.Now().Before(end); wait(r.ctx, 50*time.Millisecond) {
		is, err := r.pod(r.ctx, p.Name)
		if err != nil {
			return err
		}
		if podReady(is) {
			ready.Add(1)
			break
		}
	}
	if err := objects.Delete[*corev1.Pod](r.ctx, r.api, "default", p.Name); err != nil {
		return err
	}
	for end := time.Now().Add(slack * time.Minute); time.Now().Before(end); wait(r.ctx, 50*time.Millisecond) {
		switch _, err := r.pod(r.ctx, p.Name); {
		case errors.Is(err, objects.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
	}
	return fmt.Errorf("pod %s does not go", p.Name)
}

// killAtRandom kills a kubelet, which is started again, or a supervisor.
func (r *rows) killAtRandom(ctx context.Context, chance *rand.Rand, kubelets, supervisors *atomic.Int32) {
	for ctx.Err() == nil {
		wait(ctx, time.Duration(50+chance.IntN(700))*time.Millisecond)
		n := r.nodes[chance.IntN(len(r.nodes))]
		if chance.IntN(2) == 0 {
			n.kill()
			kubelets.Add(1)
			n.start()
			continue
		}
		locks, _ := filepath.Glob(filepath.Join(n.dir, "pods", "*", "engine", "lock")) // The pattern is right.
		if len(locks) == 0 {
			continue
		}
		text, _ := os.ReadFile(locks[chance.IntN(len(locks))]) // It may be gone.
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && bytes.HasPrefix(line, []byte("holdfast-supervisor\x00")) && syscall.Kill(pid, syscall.SIGKILL) == nil {
			supervisors.Add(1)
		}
	}
}

func (r *rows) noPods(ctx context.Context) error {
	pods, _, err := objects.List[*corev1.Pod](ctx, r.api, objects.ListOptions{})
	if err == nil && len(pods) > 0 {
		err = fmt.Errorf("%d pods, %s for one", len(pods), pods[0].Name)
	}
	return err
}

// settled waits until a node has brought services and its tunnel about: until it runs a
// command in a pod, which goes after that.
func (r *rows) settled(n *rowsNode) {
	r.Helper()
	p := podOf("settled-"+n.node, r.demo("c"))
	onNode(&p.Spec, n)
	p = r.run(p)
	r.eventually(20*time.Second, "the service is known on "+n.node, func(ctx context.Context) error {
		return r.exec(ctx, p, "c", "/bin/holdfast", "demo", "--help")
	})
	r.remove(p.Name)
	r.eventually(20*time.Second, "no pods are left", r.noPods)
}

// inventory is what there is on a node and may leak, a line each.
func (r *rows) inventory(n *rowsNode) (all []string) {
	r.Helper()
	add := func(kind string, texts ...string) {
		for _, text := range texts {
			all = append(all, kind+" "+text)
		}
	}
	for _, root := range append(n.groups(), n.dir) {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && (d.IsDir() || root == n.dir) {
				add("file", path)
			}
			return nil
		})
	}
	for _, pid := range n.processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // It may have ended.
		add("process", fmt.Sprintf("%d %q", pid, line))
	}
	at := fmt.Sprintf("/proc/%d/", n.cmd.Process.Pid)
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			r.Fatal(err)
		}
		return string(text)
	}
	add("mount", n.mounts()...)
	for line := range strings.Lines(read(at + "mountinfo")) {
		if strings.Contains(line, " - nsfs ") && !strings.Contains(line, " /run/netns/") { // There others have theirs.
			add("namespace", line)
		}
	}
	for line := range strings.Lines(read(at + "net/dev")) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			add("interface", strings.TrimSpace(name))
		}
	}
	add("routes", read(at+"net/route"))
	files, err := os.ReadDir(at + "fd")
	if err != nil {
		r.Fatal(err)
	}
	for _, f := range files {
		if to, err := os.Readlink(at + "fd/" + f.Name()); err == nil && !strings.HasPrefix(to, "socket:") { // Connections come and go.
			kind, _, _ := strings.Cut(to, ":[")
			add("open", kind)
		}
	}
	taken, _, _ := strings.Cut(read(filepath.Join(n.dir, "network", "addresses")), `"Last"`) // Which was the last one is no leak.
	add("addresses", taken)
	rules := exec.Command("nft", "-s", "list", "ruleset")
	var out bytes.Buffer
	rules.Stdout, rules.Stderr = &out, &out
	if err := r.mesh.Places()[n.member].Launch(rules); err != nil {
		r.Fatal(err)
	}
	if err := rules.Wait(); err != nil {
		r.Fatalf("nft: %v: %s", err, out.String())
	}
	add("rules", slices.Collect(strings.Lines(out.String()))...)
	slices.Sort(all)
	return all
}

// left tells what was not there before. What is gone was on its way out then.
func left(before, after []string) error {
	var errs []error
	known := slices.Clone(before)
	for _, line := range after {
		if i := slices.Index(known, line); i >= 0 {
			known = slices.Delete(known, i, i+1)
		} else {
			errs = append(errs, fmt.Errorf("left: %s", line))
		}
	}
	return errors.Join(errs...)
}
