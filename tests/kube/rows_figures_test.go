package kube_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

var (
	nodePods     = flag.Int("node.pods", 20, "figures of a node: pods that are started")
	nodeRate     = flag.Float64("node.rate", 5, "figures of a node: of them a second")
	nodeExecs    = flag.Int("node.execs", 50, "figures of a node: commands that are run in a container, one after the other")
	nodeServices = flag.Int("node.services", 50, "figures of a node: services that are there")
	nodeCut      = flag.Bool("node.cut", false, "figures of a node: cut the power of one, which takes two minutes")
)

// nodeFigures are what a run measured. Load is the machine's, over a minute.
type nodeFigures struct {
	Runtime               string
	LoadBefore, LoadAfter string

	Pods                         int
	ReadyP50Millis, ReadyP99     float64 // From the create until a watch sees Ready; the image is there.
	Execs                        int
	ExecP50Millis, ExecP99       float64 // A command that does nothing, through the control plane and the tunnel.
	Services                     int
	ServiceP50Millis, ServiceP99 float64 // From the create until a connection to its address is answered.

	DevIdleMB                         float64 // All of a cluster in one process, with a node that runs nothing.
	PlaneMB, KubeletMB                float64 // With the pods.
	KubeletServicesMB                 float64 // With the services too.
	KubeletPodsPeakMB                 float64 // The most that it was until then: while pods start,
	KubeletServicesPeakMB             float64 // while services come,
	KubeletAgainPeakMB                float64 // and when it starts with all of them there.
	SupervisorMB, SupervisorPrivateMB float64 // The largest.
	SupervisorReadyMB                 float64 // The largest, when its pod is seen to be ready.
	SupervisorPeakMB                  float64 // The most that one was, for a millisecond: the middle of all.

	CutSeconds float64 // From the cut until a replacement was ready elsewhere. 0: not measured.
}

// One run is short, to see that it measures; flags make it the benchmark:
//
//	go test ./tests/kube -run FiguresOfANode -v -node.pods=100 -node.execs=500 -node.services=1000 -node.cut -w figures.json
func TestFiguresOfANodeAreTaken(t *testing.T) {
	f := &nodeFigures{Runtime: "process", LoadBefore: load(t), Pods: *nodePods, Execs: *nodeExecs, Services: *nodeServices}
	native := os.Geteuid() == 0
	if native {
		f.Runtime = "native"
	} else if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal("native nodes need root")
	}
	t.Run("dev", func(t *testing.T) { f.dev(t) })
	nodes := 1
	if *nodeCut {
		nodes = 3
	}
	r := startRows(t, rowsOf{native: native, nodes: nodes})
	r.run(podOf("first", r.demo("c"), shContainer("sh", "exec sleep 100000"))) // The images are made by it.
	f.execs(r)
	f.starts(r)
	n := r.nodes[0]
	f.PlaneMB, f.KubeletMB, f.KubeletPodsPeakMB = r.plane.residentMB(), n.residentMB(), n.peakMB()
	f.supervisors(r)
	n.forgetPeak()
	f.services(r)
	f.KubeletServicesMB, f.KubeletServicesPeakMB = n.residentMB(), n.peakMB()
	n.kill()
	n.start()
	f.service(r, "again") // It is served once all others are.
	f.KubeletAgainPeakMB = n.peakMB()
	if *nodeCut {
		f.CutSeconds = r.cutPower().Seconds()
	}
	f.LoadAfter = load(t)
	f.report(t)
	r.replay()
}

// dev is a cluster in one process, which is left alone.
func (f *nodeFigures) dev(t *testing.T) {
	p, w := startDev(t, "--runtime=process", "--node-name=idle")
	w.eventually(30*time.Second, "the node is ready", func(ctx context.Context) error { return w.nodesReady(ctx, 1) })
	wait(t.Context(), 2*time.Second)
	f.DevIdleMB = p.residentMB()
	p.signal(syscall.SIGTERM)
	<-p.ended
}

// parts are the middle and what 99 of 100 do not pass.
func parts(took []time.Duration) (p50, p99 float64) {
	slices.Sort(took)
	millis := func(i int) float64 { return float64(took[min(i, len(took)-1)].Microseconds()) / 1000 }
	return millis(len(took) / 2), millis(len(took) * 99 / 100)
}

func (f *nodeFigures) execs(r *rows) {
	r.Helper()
	p, err := r.pod(r.ctx, "first")
	if err != nil {
		r.Fatal(err)
	}
	var took []time.Duration
	for range f.Execs {
		began := time.Now()
		if err := r.exec(r.ctx, p, "sh", "/bin/true"); err != nil {
			r.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	f.ExecP50Millis, f.ExecP99 = parts(took)
}

// starts creates pods at a steady rate, and watches until each is ready.
func (f *nodeFigures) starts(r *rows) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Minute)
	defer cancel()
	pods := objects.NewInformer[*corev1.Pod](r.api, objects.ListOptions{Namespace: "default", Labels: "of=figures"}, hclog.NewNullLogger())
	var mu sync.Mutex
	began, took := map[string]time.Time{}, map[string]time.Duration{}
	all := make(chan struct{})
	pods.OnChange(func(_, now *corev1.Pod) {
		mu.Lock()
		defer mu.Unlock()
		if now == nil || took[now.Name] != 0 || !podReady(now) {
			return
		}
		took[now.Name] = time.Since(began[now.Name])
		f.SupervisorReadyMB = max(f.SupervisorReadyMB, r.nodes[0].supervisorMB(string(now.UID)))
		if len(took) == f.Pods {
			close(all)
		}
	})
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() { pods.Run(ctx) })
	tick := time.NewTicker(time.Duration(float64(time.Second) / *nodeRate))
	defer tick.Stop()
	for i := range f.Pods {
		<-tick.C
		c := r.demo("c")
		c.ReadinessProbe = nil // Its period is not what is measured.
		p := podOf(fmt.Sprintf("figures-%d", i), c)
		p.Labels["of"], p.Labels["group"] = "figures", strconv.Itoa(i/endpointsEach)
		onNode(&p.Spec, r.nodes[0])
		mu.Lock()
		began[p.Name] = time.Now()
		mu.Unlock()
		if _, err := objects.Create(ctx, r.api, p); err != nil {
			r.Fatal(err)
		}
	}
	select {
	case <-all:
	case <-ctx.Done():
		mu.Lock()
		defer mu.Unlock()
		r.Fatalf("%d pods of %d are ready", len(took), f.Pods)
	}
	var each []time.Duration
	for _, d := range took {
		each = append(each, d)
	}
	f.ReadyP50Millis, f.ReadyP99 = parts(each)
}

// endpointsEach are those of the services that are there.
const endpointsEach = 3

// services makes many, and then sees how long the next ones take.
func (f *nodeFigures) services(r *rows) {
	r.Helper()
	for i := range f.Services {
		s := rowsService(fmt.Sprintf("many-%d", i), map[string]string{"of": "figures", "group": strconv.Itoa(i % max(1, f.Pods/endpointsEach))})
		s.Spec.Ports[0].Port = rowsPort // Others than root may not have 80.
		r.service(s)
	}
	var took []time.Duration
	for i := range 20 {
		took = append(took, f.service(r, fmt.Sprintf("timed-%d", i)))
	}
	f.ServiceP50Millis, f.ServiceP99 = parts(took)
}

// service makes one, and tells after what time it answers.
func (f *nodeFigures) service(r *rows, name string) time.Duration {
	r.Helper()
	first, err := r.pod(r.ctx, "first")
	if err != nil {
		r.Fatal(err)
	}
	s := rowsService(name, map[string]string{"app": "first"})
	s.Spec.Ports[0].Port, s.Spec.Ports[0].TargetPort.IntVal = rowsPort, first.Spec.Containers[0].Ports[0].ContainerPort
	began := time.Now()
	s = r.service(s)
	for {
		ctx, cancel := context.WithTimeout(r.ctx, 50*time.Millisecond) // What is not there yet may be silent.
		conn, err := r.dial(ctx, r.of(first), fmt.Sprintf("%s:%d", s.Spec.ClusterIP, rowsPort))
		cancel()
		if err == nil {
			conn.Close()
			return time.Since(began)
		}
		if time.Since(began) > 30*time.Second {
			r.Fatalf("service %s at %s: %v", s.Name, s.Spec.ClusterIP, err)
		}
		wait(r.ctx, time.Millisecond)
	}
}

// supervisorMB is that of a pod. 0: it is not known.
func (n *rowsNode) supervisorMB(uid string) float64 {
	locks, _ := filepath.Glob(filepath.Join(n.dir, "pods", uid, "*", supervisor.LockFile)) // The pattern is right.
	for _, l := range locks {
		text, _ := os.ReadFile(l)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			mb, _ := statusMB(pid, "VmRSS:")
			return mb
		}
	}
	return 0
}

// supervisors finds the largest.
func (f *nodeFigures) supervisors(r *rows) {
	r.Helper()
	var peaks []float64
	for _, pid := range r.nodes[0].processes() {
		at := fmt.Sprintf("/proc/%d/", pid)
		name, err := os.ReadFile(at + "cmdline")
		if err != nil || !bytes.HasPrefix(name, []byte("holdfast-supervisor")) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(at, "smaps_rollup"))
		if err != nil {
			continue // It has ended.
		}
		peak, err := statusMB(pid, "VmHWM:")
		if err != nil {
			continue
		}
		peaks = append(peaks, peak)
		resident, private := 0.0, 0.0
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			kb := 0.0
			if len(words) > 1 {
				kb, _ = strconv.ParseFloat(words[1], 64) // The first line has no number.
			}
			switch {
			case strings.HasPrefix(line, "Rss:"):
				resident += kb / 1024
			case strings.HasPrefix(line, "Private_"):
				private += kb / 1024
			}
		}
		f.SupervisorMB, f.SupervisorPrivateMB = max(f.SupervisorMB, resident), max(f.SupervisorPrivateMB, private)
	}
	if len(peaks) < f.Pods {
		r.Fatalf("%d supervisors of %d pods are seen", len(peaks), f.Pods)
	}
	slices.Sort(peaks)
	f.SupervisorPeakMB = peaks[len(peaks)/2]
}

func (f *nodeFigures) report(t *testing.T) {
	t.Helper()
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if *figuresJSON != "" {
		if err := os.WriteFile(*figuresJSON, append(text, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf(`runtime %s; load %s before, %s after
pod created until ready   %8.0f ms p50, %.0f p99, of %d at %.1f a second
exec                      %8.1f ms p50, %.1f p99, of %d
service created, answers  %8.1f ms p50, %.1f p99, beside %d
dev, idle                 %8.1f MB
control plane             %8.1f MB
kubelet                   %8.1f MB, %.1f with the services
  at most                 %8.1f MB, %.1f while they came, %.1f when it started with them
supervisor                %8.1f MB, %.1f of its own, %.1f as its pod is ready, %.1f at most
node cut until running    %8.1f s`,
		f.Runtime, f.LoadBefore, f.LoadAfter, f.ReadyP50Millis, f.ReadyP99, f.Pods, *nodeRate, f.ExecP50Millis, f.ExecP99, f.Execs,
		f.ServiceP50Millis, f.ServiceP99, f.Services, f.DevIdleMB, f.PlaneMB, f.KubeletMB, f.KubeletServicesMB,
		f.KubeletPodsPeakMB, f.KubeletServicesPeakMB, f.KubeletAgainPeakMB, f.SupervisorMB, f.SupervisorPrivateMB, f.SupervisorReadyMB, f.SupervisorPeakMB, f.CutSeconds)
}
