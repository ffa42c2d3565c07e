package kube_test

import (
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
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
)

var (
	figuresNodes   = flag.Int("nodes", 30, "figures: simulated nodes, in two processes")
	figuresPods    = flag.Int("pods", 150, "figures: pods that are created")
	figuresBeat    = flag.Duration("beat", 3*time.Second, "figures: how long heartbeats alone are watched")
	figuresMembers = flag.Int("members", 1, "figures: control planes, 1 or 3")
	figuresSet     = flag.Bool("set", false, "figures: a Deployment creates the pods, instead of a client from 64 callers")
	figuresJSON    = flag.String("w", "", "figures: file for them, as JSON")
)

// figures are what a run measured. Load is the machine's, over a minute, before and after.
type figures struct {
	Nodes, Pods, Members int
	LoadBefore           string
	LoadAfter            string

	PodsPerSecond float64
	PodPlaneMs    float64 // CPU of the first control plane for a pod, until it is known to run.
	RunningAfter  float64 // Seconds from the first create until the last pod ran.

	HeartbeatSeconds  float64
	HeartbeatEntries  uint64  // Of the store's log.
	HeartbeatPlaneCPU float64 // Cores of the first control plane.
	HeartbeatFleetCPU float64 // Cores of all fleets.

	GetP99Millis, ListP99Millis float64
	NodesMB, PodsMB             float64 // Resident, of the first control plane: with the nodes, and with pods as well.
	FleetMB                     float64 // Resident, of all fleets, at the end.
}

// One run is short, to see that it measures; flags make it the benchmark:
//
//	go test ./tests/kube -run Figures -v -nodes=1000 -pods=5000 -beat=60s -w figures.json
func TestFiguresOfAClusterAreTaken(t *testing.T) {
	f := &figures{Nodes: *figuresNodes, Pods: *figuresPods, Members: *figuresMembers, LoadBefore: load(t)}
	w, plane, fleets := figuresCluster(t, f)
	f.NodesMB = plane.residentMB()
	w.heartbeats(f, plane, fleets)
	before := plane.cpu()
	names := w.schedule(f)
	f.PodPlaneMs = 1000 * (plane.cpu() - before).Seconds() / float64(f.Pods)
	f.PodsMB = plane.residentMB()
	f.GetP99Millis = w.slowest(500, func(i int) error {
		_, err := objects.Get[*corev1.Pod](w.ctx, w.api, "default", names[i%len(names)])
		return err
	})
	f.ListP99Millis = w.slowest(20, func(int) error {
		pods, _, err := objects.List[*corev1.Pod](w.ctx, w.api, objects.ListOptions{Namespace: "default"})
		if err == nil && len(pods) != f.Pods {
			err = fmt.Errorf("%d pods of %d", len(pods), f.Pods)
		}
		return err
	})
	for _, p := range fleets {
		f.FleetMB += p.residentMB()
	}
	f.LoadAfter = load(t)
	f.report(t)
	if f.HeartbeatEntries > 0 {
		t.Errorf("heartbeats wrote %d entries", f.HeartbeatEntries)
	}
}

func figuresCluster(t *testing.T, f *figures) (*world, *process, []*process) {
	t.Helper()
	half := f.Nodes / 2
	if f.Members == 3 {
		c := startThreeWith(t, nil, []string{"--enable-pprof"}, half, f.Nodes-half)
		return c.world, c.planes[0], c.fleets
	}
	p, w := startDev(t, "--runtime=sim", "--nodes=0", "--enable-pprof") // For who looks closer while it runs.
	data := strings.TrimPrefix(p.args[2], "--data-dir=")
	var fleets []*process
	names := makeFleets(t, filepath.Join(data, "certs"), 2)
	for i, n := range []int{half, f.Nodes - half} {
		dir := filepath.Join(filepath.Dir(data), names[i])
		k := &process{t: t, name: "kubelet", says: "fleet starts", args: []string{
			dir, "--server=" + strings.TrimPrefix(p.args[3], "--listen-api="), "--dir=" + dir, "--certs-dir=" + filepath.Join(data, "certs"),
			"--cert=" + names[i], fmt.Sprintf("--count=%d", n),
		}}
		k.start()
		t.Cleanup(k.kill)
		fleets = append(fleets, k)
	}
	began := time.Now()
	w.eventually(5*time.Minute, "all nodes are ready", func(ctx context.Context) error { return w.nodesReady(ctx, f.Nodes) })
	t.Logf("%.0f nodes/s", float64(f.Nodes)/time.Since(began).Seconds())
	return w, p, fleets
}

// heartbeats has the nodes do nothing but beat.
func (w *world) heartbeats(f *figures, plane *process, fleets []*process) {
	w.Helper()
	select { // Registration is over: nodes look once more at their status, soon after.
	case <-time.After(min(*figuresBeat, 10*time.Second)):
	case <-w.ctx.Done():
	}
	index := func() uint64 {
		s, err := w.store.Status(w.ctx)
		if err != nil {
			w.Fatal(err)
		}
		return s.RaftIndex
	}
	began, from, cpu, fleetCPU := time.Now(), index(), plane.cpu(), cpuOf(fleets)
	select {
	case <-time.After(*figuresBeat):
	case <-w.ctx.Done():
	}
	f.HeartbeatSeconds = time.Since(began).Seconds()
	f.HeartbeatEntries = index() - from
	f.HeartbeatPlaneCPU = (plane.cpu() - cpu).Seconds() / f.HeartbeatSeconds
	f.HeartbeatFleetCPU = (cpuOf(fleets) - fleetCPU).Seconds() / f.HeartbeatSeconds
}

// schedule creates pods, sees when the last is bound, and tells their names.
func (w *world) schedule(f *figures) (names []string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Minute)
	defer cancel()
	pods := objects.NewInformer[*corev1.Pod](w.api, objects.ListOptions{Namespace: "default"}, hclog.NewNullLogger())
	var bound, running int
	allBound, allRun := make(chan time.Time, 1), make(chan time.Time, 1)
	pods.OnChange(func(old, now *corev1.Pod) {
		if now == nil {
			return
		}
		if now.Spec.NodeName != "" && (old == nil || old.Spec.NodeName == "") {
			names = append(names, now.Name)
			if bound++; bound == f.Pods {
				allBound <- time.Now()
			}
		}
		if now.Status.Phase == corev1.PodRunning && (old == nil || old.Status.Phase != corev1.PodRunning) {
			if running++; running == f.Pods {
				allRun <- time.Now()
			}
		}
	})
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() { pods.Run(ctx) })
	if err := pods.Synced(ctx); err != nil {
		w.Fatal(err)
	}
	began := time.Now()
	if *figuresSet {
		if _, err := objects.Create(ctx, w.api, deployment("load", int32(f.Pods), "100m")); err != nil {
			w.Fatal(err)
		}
	} else {
		w.createPods(ctx, f.Pods)
	}
	for _, end := range []struct {
		at   chan time.Time
		told func(seconds float64)
	}{
		{allBound, func(s float64) { f.PodsPerSecond = float64(f.Pods) / s }},
		{allRun, func(s float64) { f.RunningAfter = s }},
	} {
		select {
		case at := <-end.at:
			end.told(at.Sub(began).Seconds())
		case <-ctx.Done():
			w.Fatalf("not all of %d pods are bound and run", f.Pods)
		}
	}
	cancel()
	all.Wait() // Nobody adds names any more.
	return names
}

// createPods creates them from as many callers as keep a scheduler busy.
func (w *world) createPods(ctx context.Context, n int) {
	w.Helper()
	const callers = 64
	var next atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				p := &corev1.Pod{}
				p.Namespace, p.Name, p.Labels = "default", fmt.Sprintf("load-%05d", i), map[string]string{"app": "load"}
				p.Spec = deployment("load", 1, "100m").Spec.Template.Spec
				if _, err := objects.Create(ctx, w.api, p); err != nil {
					w.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// slowest is the time within which 99 of 100 calls are answered.
func (w *world) slowest(n int, call func(i int) error) float64 {
	w.Helper()
	var took []time.Duration
	for i := range n {
		began := time.Now()
		if err := call(i); err != nil {
			w.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return float64(took[min(n-1, n*99/100)].Microseconds()) / 1000
}

func (f *figures) report(t *testing.T) {
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
	t.Logf(`%d nodes, %d pods, %d control planes; load %s before, %s after
pods bound                %8.0f /s, %.2f ms of a control plane's CPU each
all run after             %8.1f s
heartbeats for %3.0f s       %8d entries, %.3f cores of a control plane, %.3f of fleets
get p99                   %8.1f ms
list of all pods p99      %8.1f ms
control plane resident    %8.0f MB with nodes, %.0f with pods
fleets resident           %8.0f MB`,
		f.Nodes, f.Pods, f.Members, f.LoadBefore, f.LoadAfter, f.PodsPerSecond, f.PodPlaneMs, f.RunningAfter, f.HeartbeatSeconds, f.HeartbeatEntries,
		f.HeartbeatPlaneCPU, f.HeartbeatFleetCPU, f.GetP99Millis, f.ListP99Millis, f.NodesMB, f.PodsMB, f.FleetMB)
}

func load(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// residentMB is the memory of a process, peakMB the most that it was.
func (p *process) residentMB() float64 { return p.statusMB("VmRSS:") }
func (p *process) peakMB() float64     { return p.statusMB("VmHWM:") }

func (p *process) statusMB(name string) float64 {
	p.t.Helper()
	mb, err := statusMB(p.cmd.Process.Pid, name)
	if err != nil {
		p.t.Fatal(err)
	}
	return mb
}

func statusMB(pid int, name string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(text), name)
	if !ok {
		return 0, fmt.Errorf("process %d has no %s", pid, name)
	}
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kb / 1024, err
}

// forgetPeak has the peak begin anew.
func (p *process) forgetPeak() {
	p.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		p.t.Fatal(err)
	}
}

// cpu is the time that a process has used.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ") // Names may have blanks.
	fields := strings.Fields(rest)
	const tick = 10 * time.Millisecond // Linux tells these in hundredths.
	var sum time.Duration
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		sum += time.Duration(n) * tick
	}
	return sum
}

func cpuOf(all []*process) (sum time.Duration) {
	for _, p := range all {
		sum += p.cpu()
	}
	return sum
}
