package kube_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/pki"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// What the layer must do, row by row, with three nodes that make containers, each in a
// network namespace of its own.
func TestRowsOnNativeNodes(t *testing.T) {
	t.Parallel() // Beside plain processes: both wait most of their time.
	r := startRows(t, rowsOf{native: true, nodes: 3})
	var load sync.WaitGroup // It takes longest, and is beside all others.
	load.Go(func() {
		r.Run("a Deployment grows under load and shrinks after it", func(t *testing.T) { r.in(t).scalesByLoad() })
	})
	r.together(
		row{"containers of a pod share localhost and a volume", (*rows).sharesInPod},
		row{"limits are those of the cgroups, and 0.2 of a core are 0.2", (*rows).limitsCPU},
		row{"more memory than the limit is OOMKilled and restarted once", (*rows).killsForMemory},
		row{"requests are a hard limit, and the next pod says what is missing", (*rows).fillsANode},
		row{"an emptyDir outlives the container and not the pod", (*rows).keepsEmptyDir},
		row{"the time zone of the node is read-only", (*rows).mountsTheZone},
		row{"a failing liveness probe restarts the container", (*rows).restartsUnlive},
		row{"pods of three nodes ping and connect to each other", (*rows).connectsNodes},
		row{"copies return after a container and a pod are killed", (*rows).returnsCopies},
		row{"a wrong image, a missing secret and a failing probe are told, without a busy loop", (*rows).tellsWhatIsWrong},
		row{"people find out what is wrong", (*rows).debugs},
		row{"a node that acts for another is denied and it is logged", (*rows).deniesOtherNodes},
		row{"a service is found by name and spreads over its pods", (*rows).spreads},
		row{"a service follows labels", (*rows).followsLabels},
	)
	for _, one := range []row{
		{"a rolling update under load fails no request", (*rows).rollsUnderLoad},
		{"a kubelet that is killed, and one of another version, restart nothing", (*rows).upgradesKubelet},
		{"the power of a node is cut and its pods run elsewhere: within thirty seconds on a machine at leisure", (*rows).cutsPower},
	} {
		r.Run(one.name, func(t *testing.T) { one.test(r.in(t)) })
	}
	load.Wait()
	if !t.Failed() {
		r.replay()
	}
}

// local is how a container reaches another of its pod: by localhost, or where pods
// have no network of their own, by the address that is the pod's.
func (r *rows) local() string {
	if r.native {
		return "127.0.0.1"
	}
	return "$HOLDFAST_POD_IP"
}

func (r *rows) sharesInPod() {
	web, a, b := r.demo("web"), shContainer("a", "exec sleep 1000"), shContainer("b", "exec sleep 1000")
	for _, c := range []*corev1.Container{&a, &b} {
		c.VolumeMounts = []corev1.VolumeMount{{Name: "both", MountPath: "/both"}}
	}
	p := podOf("pair", web, a, b)
	p.Spec.Volumes = []corev1.Volume{{Name: "both"}}
	p.Spec.Volumes[0].EmptyDir = &corev1.EmptyDirVolumeSource{}
	r.run(p)
	r.sh("pair", "a", `echo from a > "${HOLDFAST_ROOT:-}/both/x"`)
	if got := r.sh("pair", "b", `cat "${HOLDFAST_ROOT:-}/both/x"`); got != "from a\n" {
		r.Errorf("b reads %q", got)
	}
	for _, c := range []string{"a", "b"} {
		if got := r.sh("pair", c, fmt.Sprintf("wget -qO- http://%s:%d/", r.local(), web.Ports[0].ContainerPort)); !regexp.MustCompile(`pod +pair\n`).MatchString(got) {
			r.Errorf("wget in %s reads %q", c, got)
		}
	}
}

// groupFile reads a file of the cgroup of a container.
func (r *rows) groupFile(p *corev1.Pod, container string, files ...string) string {
	r.Helper()
	for _, f := range files {
		for _, g := range r.of(p).groups() {
			found, _ := filepath.Glob(filepath.Join(g, "*", "pod"+string(p.UID), container+".*", f)) // The pattern is right.
			for _, name := range found {
				if text, err := os.ReadFile(name); err == nil {
					return strings.TrimSpace(string(text))
				}
			}
		}
	}
	r.Fatalf("container %s of pod %s has none of %v below %v", container, p.Name, files, r.of(p).groups())
	return ""
}

// spent is what a container has used of the processor.
func (r *rows) spent(p *corev1.Pod, container string) time.Duration {
	r.Helper()
	text := r.groupFile(p, container, "cpuacct.usage", "cpu.stat")
	unit := time.Nanosecond
	if rest, ok := strings.CutPrefix(text, "usage_usec "); ok {
		text, _, _ = strings.Cut(rest, "\n")
		unit = time.Microsecond
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		r.Fatal(err)
	}
	return time.Duration(n) * unit
}

func (r *rows) limitsCPU() {
	c := r.demo("c")
	c.Resources.Limits = amounts("200m", "128Mi")
	p := r.run(podOf("limited", c))
	quota := r.groupFile(p, "c", "cpu.cfs_quota_us", "cpu.max")
	if quota != "20000" && quota != "20000 100000" {
		r.Errorf("0.2 of a core are %q", quota)
	}
	if memory := r.groupFile(p, "c", "memory.limit_in_bytes", "memory.max"); memory != "134217728" {
		r.Errorf("128Mi are %q", memory)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	burns := make(chan error, 1)
	go func() {
		req, err := newGet(ctx, url(p, "/burn?cpu=1&seconds=60"))
		if err == nil {
			_, err = r.web(r.of(p)).Do(req)
		}
		burns <- err
	}()
	r.eventually(10*time.Second, "it burns", func(context.Context) error {
		if r.spent(p, "c") < 300*time.Millisecond {
			return errors.New("not yet")
		}
		return nil
	})
	// Never more. Less only while others keep the machine from giving what it may: so
	// one of several measurements has to show it.
	var seen []float64
	for range 5 {
		began, from := time.Now(), r.spent(p, "c")
		wait(ctx, 2*time.Second)
		cores := (r.spent(p, "c") - from).Seconds() / time.Since(began).Seconds()
		seen = append(seen, cores)
		if cores > 0.23 {
			r.Errorf("0.2 of a core are %.3f", cores)
		}
		if cores >= 0.17 {
			r.Logf("0.2 of a core are %.3f", cores)
			return
		}
	}
	r.Errorf("0.2 of a core are %.3f", seen)
}

func (r *rows) killsForMemory() {
	c := r.demo("c")
	c.Resources.Limits = amounts("1", "128Mi")
	p := r.run(podOf("greedy", c))
	answer, err := r.web(r.of(p)).Get(url(p, "/eat?memory=512Mi"))
	if err == nil {
		answer.Body.Close()
		if answer.StatusCode < 300 {
			r.Logf("it answered %s", answer.Status) // Where memory is only looked at now and then.
		}
	}
	s := r.restarted("greedy")
	if last := s.LastTerminationState.Terminated; last == nil || last.Reason != "OOMKilled" {
		r.Errorf("it ended for %+v", last)
	}
	if got := r.ctl("get", "pods", "greedy"); lines(got, "greedy", "1/1", "Running") != 1 {
		r.Errorf("people see:\n%s", got)
	}
}

// fill creates pods for one node until one waits, and returns its name.
func (r *rows) fill(n *rowsNode) string {
	r.Helper()
	for i := range 40 { // Beside the pods of other rows, of which some are here.
		c := shContainer("c", "exec sleep 1000")
		c.Resources.Requests = amounts("300m", "500Mi")
		p := podOf(fmt.Sprintf("filler-%d", i), c)
		onNode(&p.Spec, n)
		if _, err := objects.Create(r.ctx, r.api, p); err != nil {
			r.Fatal(err)
		}
		waits := false
		r.eventually(20*time.Second, p.Name+" is placed or is not", func(ctx context.Context) error {
			is, err := r.pod(ctx, p.Name)
			if err != nil {
				return err
			}
			for _, c := range is.Status.Conditions {
				waits = waits || c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse
			}
			if is.Spec.NodeName == "" && !waits {
				return errors.New("neither")
			}
			return nil
		})
		if waits {
			return p.Name
		}
	}
	r.Fatal("there is room for all")
	return ""
}

func (r *rows) fillsANode() {
	n := r.nodes[len(r.nodes)-1]
	last := r.fill(n)
	p, err := r.pod(r.ctx, last)
	if err != nil {
		r.Fatal(err)
	}
	want := regexp.MustCompile(fmt.Sprintf(`0/%d nodes are available.*1 Insufficient cpu`, len(r.nodes)))
	said := ""
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			said = c.Reason + ": " + c.Message
		}
	}
	if p.Status.Phase != corev1.PodPending || !strings.HasPrefix(said, "Unschedulable: ") || !want.MatchString(said) {
		r.Errorf("pod %s is %s: %s", last, p.Status.Phase, said)
	}
	if why := r.ctl("why", last); !want.MatchString(why) {
		r.Errorf("why:\n%s", why)
	}
	node, err := objects.Get[*corev1.Node](r.ctx, r.api, "", n.node)
	if err != nil {
		r.Fatal(err)
	}
	pods, _, err := objects.List[*corev1.Pod](r.ctx, r.api, objects.ListOptions{Fields: "spec.nodeName=" + n.node})
	if err != nil {
		r.Fatal(err)
	}
	sum := resource.Quantity{}
	for _, p := range pods {
		for _, c := range p.Spec.Containers {
			sum.Add(*c.Resources.Requests.Cpu())
		}
	}
	if has := node.Status.Allocatable.Cpu(); sum.Cmp(*has) > 0 || has.MilliValue()-sum.MilliValue() >= 300 {
		r.Errorf("node %s has %v, and %v are promised", n.node, has, &sum)
	}
	r.remove("filler-0")
	r.ready(last)
	for i := range 40 {
		if err := objects.Delete[*corev1.Pod](r.ctx, r.api, "default", fmt.Sprintf("filler-%d", i)); err != nil && !errors.Is(err, objects.ErrNotFound) {
			r.Error(err)
		}
	}
}

func (r *rows) keepsEmptyDir() {
	c := shContainer("c", `echo started >> "$R/data/starts"; touch "$R/own-$$"; while [ ! -e "$R/data/end" ]; do sleep 0.1; done; rm "$R/data/end"; exit 3`)
	c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	p := podOf("keeper", c)
	p.Spec.Volumes = []corev1.Volume{{Name: "data"}}
	p.Spec.Volumes[0].EmptyDir = &corev1.EmptyDirVolumeSource{}
	p = r.run(p)
	folder := filepath.Join(r.of(p).dir, "pods", string(p.UID))
	if _, err := os.Stat(folder); err != nil {
		r.Fatal(err)
	}
	r.sh("keeper", "c", `touch "${HOLDFAST_ROOT:-}/data/end"`)
	s := r.restarted("keeper")
	if last := s.LastTerminationState.Terminated; last == nil || last.ExitCode != 3 {
		r.Errorf("it ended with %+v", last)
	}
	if got := r.sh("keeper", "c", `cat "${HOLDFAST_ROOT:-}/data/starts"`); got != "started\nstarted\n" {
		r.Errorf("after the restart there is %q", got)
	}
	if got := strings.Fields(r.sh("keeper", "c", `ls -d "${HOLDFAST_ROOT:-}"/own-*`)); len(got) != 1 {
		r.Errorf("its own files are %q: those of the first start are to be gone", got)
	}
	r.remove("keeper")
	r.eventually(20*time.Second, "the pod and its folder are gone", func(ctx context.Context) error {
		if _, err := r.pod(ctx, "keeper"); !errors.Is(err, objects.ErrNotFound) {
			return fmt.Errorf("the pod is there: %w", err)
		}
		if _, err := os.Stat(folder); !os.IsNotExist(err) {
			return fmt.Errorf("its folder is there: %w", err)
		}
		return nil
	})
}

// zoneFile is a time zone that no machine has: five hours east, named HFT.
var zoneFile = "TZif" + strings.Repeat("\x00", 16+4*4+3) + "\x01\x00\x00\x00\x04" + "\x00\x00\x46\x50" + "\x00\x00" + "HFT\x00"

func (r *rows) mountsTheZone() {
	file := filepath.Join(r.dir, "zone")
	if err := os.WriteFile(file, []byte(zoneFile), 0o644); err != nil {
		r.Fatal(err)
	}
	c := shContainer("c", "exec sleep 1000")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "zone", MountPath: "/etc/localtime", ReadOnly: true}}
	p := podOf("zone", c)
	p.Spec.Volumes = []corev1.Volume{{Name: "zone"}}
	kind := corev1.HostPathFile
	p.Spec.Volumes[0].HostPath = &corev1.HostPathVolumeSource{Path: file, Type: &kind}
	r.run(p)
	if got := r.sh("zone", "c", "date +%Z%z"); got != "HFT+0500\n" {
		r.Errorf("the time zone is %q", got)
	}
	got := r.sh("zone", "c", "(echo x > /etc/localtime; chmod 777 /etc/localtime) 2> /dev/null || true; date +%Z")
	if got != "HFT\n" {
		r.Errorf("after it was written to: %q", got)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != zoneFile {
		r.Errorf("the node's file was written: %q, %v", text, err)
	}
}

func (r *rows) restartsUnlive() {
	c := r.demo("c")
	c.LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 2}
	c.LivenessProbe.HTTPGet = &corev1.HTTPGetAction{Path: "/healthz"}
	c.LivenessProbe.HTTPGet.Port.IntVal = c.Ports[0].ContainerPort
	p := r.run(podOf("ill", c))
	began := time.Now()
	r.post(r.of(p), url(p, "/healthz?fail=true"))
	r.restarted("ill")
	r.Logf("restarted and told %.1f s after it began to fail", time.Since(began).Seconds())
	r.eventually(10*time.Second, "it is told why", func(context.Context) error { // After all else.
		if events := r.ctl("events", "--for", "pod/ill"); lines(events, "Unhealthy", "iveness") == 0 || lines(events, "Killing") == 0 {
			return errors.New(events)
		}
		return nil
	})
}

func (r *rows) connectsNodes() {
	var pods []*corev1.Pod
	for i, n := range r.nodes {
		p := podOf(fmt.Sprintf("far-%d", i), r.demo("web"), shContainer("sh", "exec sleep 1000"))
		onNode(&p.Spec, n)
		pods = append(pods, r.run(p))
	}
	for _, from := range pods {
		for _, to := range pods {
			got := r.sh(from.Name, "sh", "busybox ping -c 1 -W 3 "+to.Status.PodIP+" && wget -T 5 -qO- "+url(to, "/"))
			if !strings.Contains(got, "1 packets received") || !regexp.MustCompile(`pod +`+to.Name+`\n`).MatchString(got) {
				r.Errorf("%s to %s:\n%s", from.Name, to.Name, got)
			}
			if lines(got, "node", to.Spec.NodeName) != 1 {
				r.Errorf("%s does not say that it is on %s:\n%s", to.Name, to.Spec.NodeName, got)
			}
			if from == to { // That is loopback.
				continue
			}
			if err := r.fillsPackets(from, to); err != nil {
				r.Errorf("%s to %s: %v", from.Name, to.Name, err)
			}
		}
	}
	logs := r.ctl("logs", pods[0].Name, "-c", "web") // Who asked is seen: nothing is translated on the way.
	for _, from := range pods[1:] {
		if !strings.Contains(logs, "from "+from.Status.PodIP+":") {
			r.Errorf("%s does not see %s:\n%s", pods[0].Name, from.Status.PodIP, logs)
		}
	}
}

func (r *rows) deniesOtherNodes() {
	s := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: r.certs}
	ca, err := s.Authority()
	if err != nil {
		r.Fatal(err)
	}
	mine, other := r.nodes[0], r.nodes[1]
	subject := pki.NodeSubject(mine.node)
	if _, err := s.Issue(ca, "as-"+mine.node, pki.Request{Profile: pki.Client, CommonName: subject.CommonName, Organizations: subject.Organization}); err != nil {
		r.Fatal(err)
	}
	target := podOf("victim", shContainer("c", "exec sleep 1000"))
	onNode(&target.Spec, other)
	p := r.run(target)
	dial := dialer(dialHere)
	if r.mesh != nil {
		dial = r.mesh.Dial
	}
	as := dialAPI(r.T, r.apiAddress, clientTLS(r.T, r.certs, "as-"+mine.node), dial)
	if n, err := objects.Get[*corev1.Node](r.ctx, as.api, "", mine.node); err != nil || n.Name != mine.node {
		r.Errorf("it cannot read itself: %v", err)
	}
	p.Status.Phase = corev1.PodFailed
	_, statusErr := objects.UpdateStatus(r.ctx, as.api, p)
	node, err := objects.Get[*corev1.Node](r.ctx, r.api, "", other.node)
	if err != nil {
		r.Fatal(err)
	}
	_, nodeErr := objects.UpdateStatus(r.ctx, as.api, node)
	for what, err := range map[string]error{
		"the status of a pod of another": statusErr, "the status of another": nodeErr,
		"deletes the pod of another": objects.Delete[*corev1.Pod](r.ctx, as.api, "default", p.Name),
	} {
		if !errors.Is(err, objects.ErrDenied) {
			r.Errorf("%s: %v", what, err)
		}
	}
	log, err := os.ReadFile(r.plane.args[0] + ".log")
	if err != nil {
		r.Fatal(err)
	}
	if lines(string(log), `"denied"`, auth.Node(mine.node).Name, "victim") == 0 {
		r.Error("nothing of it is in the log")
	}
	r.remove("victim")
}

func (r *rows) scalesByLoad() {
	d := r.demoDeployment("busy", 1)
	d.Spec.Template.Spec.Containers[0].Resources.Requests = amounts("100m", "32Mi")
	d.Spec.Template.Spec.Containers[0].Resources.Limits = amounts("300m", "256Mi")
	spec := &d.Spec.Template.Spec
	// Not where the power is cut in the meantime.
	spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{r.nodes[0].node, r.nodes[1].node}},
		}}},
	}}}
	r.create(d)
	if _, err := objects.Create(r.ctx, r.api, rowsService("busy", d.Spec.Selector.MatchLabels)); err != nil {
		r.Fatal(err)
	}
	one, target, now := int32(1), int32(60), int32(0)
	h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "busy"}}
	h.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "busy"}
	h.Spec.MinReplicas, h.Spec.MaxReplicas = &one, 5
	h.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &target},
	}}}
	h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &now}}
	if _, err := objects.Create(r.ctx, r.api, h); err != nil {
		r.Fatal(err)
	}
	var first *corev1.Pod
	r.eventually(30*time.Second, "the first runs", func(ctx context.Context) error {
		if err := r.rolledOut(ctx, "busy", 1); err != nil {
			return err
		}
		pods, err := r.pods(ctx, "busy")
		for _, p := range pods {
			first = p
		}
		return err
	})
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			req, err := newGet(ctx, url(first, "/burn?cpu=280m&seconds=5"))
			if err != nil {
				return
			}
			if answer, err := r.web(r.of(first)).Do(req); err == nil {
				answer.Body.Close()
			} else {
				wait(ctx, 100*time.Millisecond)
			}
		}
	}()
	grown := 0
	r.eventually(90*time.Second, "it has grown", func(ctx context.Context) error {
		pods, err := r.pods(ctx, "busy")
		if grown = len(pods); err == nil && grown < 3 {
			err = fmt.Errorf("%d copies", grown)
		}
		return err
	})
	cancel()
	<-done
	r.eventually(90*time.Second, fmt.Sprintf("it has shrunk from %d", grown), func(ctx context.Context) error { return r.rolledOut(ctx, "busy", 1) })
}
