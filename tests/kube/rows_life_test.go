package kube_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

var (
	rowsPods = flag.Int("rows.pods", 8, "pods that a kubelet has while it is killed and replaced by another")
	rowsAway = flag.Duration("rows.away", 12*time.Second, "how long there is no control plane; a lease is ten seconds")
)

// mainProcess is that of a demo container, as the node numbers it.
func (r *rows) mainProcess(p *corev1.Pod) int {
	r.Helper()
	for _, pid := range r.of(p).processes() {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(env, []byte("HOLDFAST_POD="+p.Name+"\x00")) {
			return pid
		}
	}
	r.Fatalf("pod %s has no process", p.Name)
	return 0
}

func (r *rows) returnsCopies() {
	r.create(r.demoDeployment("copies", 3))
	r.eventually(40*time.Second, "three copies run", func(ctx context.Context) error { return r.rolledOut(ctx, "copies", 3) })
	before, err := r.pods(r.ctx, "copies")
	if err != nil {
		r.Fatal(err)
	}
	var killed, deleted *corev1.Pod
	for _, p := range before {
		killed, deleted = p, killed
	}
	if err := syscall.Kill(r.mainProcess(killed), syscall.SIGKILL); err != nil {
		r.Fatal(err)
	}
	s := r.restarted(killed.Name)
	if last := s.LastTerminationState.Terminated; last == nil || last.ExitCode != 137 {
		r.Errorf("it ended with %+v", last)
	}
	r.eventually(20*time.Second, "three copies run after a container was killed", func(ctx context.Context) error { return r.rolledOut(ctx, "copies", 3) })
	r.remove(deleted.Name)
	r.eventually(20*time.Second, "three copies run after a pod was deleted", func(ctx context.Context) error {
		pods, err := r.pods(ctx, "copies")
		if err != nil {
			return err
		}
		if pods[deleted.Name] != nil || pods[killed.Name] == nil {
			return errors.New("they are not those that they should be")
		}
		return r.rolledOut(ctx, "copies", 3)
	})
}

// waiting is why the container of a pod does not run.
func (r *rows) waiting(ctx context.Context, name string) (reason, message string, err error) {
	p, err := r.pod(ctx, name)
	if err != nil {
		return "", "", err
	}
	for _, s := range p.Status.ContainerStatuses {
		if s.State.Waiting != nil {
			return s.State.Waiting.Reason, s.State.Waiting.Message, nil
		}
	}
	return "", "", fmt.Errorf("pod %s is %s", name, p.Status.Phase)
}

func (r *rows) tellsWhatIsWrong() {
	none, secret, unready := r.demo("c"), shContainer("c", "exec sleep 1000"), shContainer("c", "exec sleep 1000")
	none.Image = "127.0.0.1:1/none:v1"
	secret.Env = []corev1.EnvVar{{Name: "WORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "word"}}}}
	secret.Env[0].ValueFrom.SecretKeyRef.Name = "words"
	unready.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1}
	unready.ReadinessProbe.Exec = &corev1.ExecAction{Command: []string{"/bin/sh", "-c", "echo not today; exit 1"}}
	for _, p := range []*corev1.Pod{podOf("no-image", none), podOf("no-secret", secret), podOf("unready", unready)} {
		if _, err := objects.Create(r.ctx, r.api, p); err != nil {
			r.Fatal(err)
		}
	}
	for name, want := range map[string]string{"no-image": `^(ErrImagePull|ImagePullBackOff): .*127\.0\.0\.1:1`, "no-secret": `^CreateContainerConfigError: .*words`} {
		r.eventually(20*time.Second, name+" says why", func(ctx context.Context) error {
			reason, message, err := r.waiting(ctx, name)
			if err == nil && !regexp.MustCompile(want).MatchString(reason+": "+message) {
				err = fmt.Errorf("%s: %s", reason, message)
			}
			return err
		})
	}
	r.eventually(20*time.Second, "the probe fails", func(context.Context) error {
		if events := r.ctl("events", "--for", "pod/unready"); lines(events, "Unhealthy", "eadiness", "not today") == 0 {
			return errors.New(events)
		}
		return nil
	})
	if p, err := r.pod(r.ctx, "unready"); err != nil || p.Status.Phase != corev1.PodRunning || podReady(p) || p.Status.ContainerStatuses[0].RestartCount != 0 {
		r.Errorf("a pod that is not ready: %v, %v", p.Status, err)
	}
	wait(r.ctx, 8*time.Second) // What would loop busily has time for it.
	for _, name := range []string{"no-image", "no-secret", "unready"} {
		events, _, err := objects.List[*corev1.Event](r.ctx, r.api, objects.ListOptions{Namespace: "default"})
		if err != nil {
			r.Fatal(err)
		}
		told, times := "", int32(0)
		for _, e := range events {
			if e.InvolvedObject.Name == name && e.Type == corev1.EventTypeWarning {
				times += max(e.Count, 1)
				told += fmt.Sprintf("%d times %s: %s\n", e.Count, e.Reason, e.Message)
			}
		}
		if most := int32(20); times == 0 || times > most { // The probe fails each second.
			r.Errorf("%s: %d warnings:\n%s", name, times, told)
		}
	}
	s := &corev1.Secret{StringData: map[string]string{"word": "hum"}}
	s.Namespace, s.Name = "default", "words"
	if _, err := objects.Create(r.ctx, r.api, s); err != nil {
		r.Fatal(err)
	}
	began := time.Now()
	r.ready("no-secret")
	if took := time.Since(began); took > 9*time.Second { // A second or two, but on a machine that is busy; a restart waits ten.
		r.Errorf("the pod began %.1f s after its secret was there", took.Seconds())
	}
	if got := r.sh("no-secret", "c", "echo $WORD"); got != "hum\n" {
		r.Errorf("the secret is %q", got)
	}
}

// debugs is a session of somebody who looks for what is wrong.
func (r *rows) debugs() {
	c := shContainer("c", `n=0; while [ ! -e "$R/end" ]; do n=$((n+1)); echo "line $n"; sleep 0.1; done; echo the end; exit 1`)
	p := r.run(podOf("talker", c, r.demo("web")))
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	cmd := r.command(ctx, "logs", "-f", "talker", "-c", "c", "--tail", "1")
	followed, err := cmd.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	if err := r.launch(cmd); err != nil {
		r.Fatal(err)
	}
	text := bufio.NewScanner(followed)
	for range 5 {
		if !text.Scan() || !strings.HasPrefix(text.Text(), "line ") {
			r.Fatalf("logs -f: %q, %v", text.Text(), text.Err())
		}
	}
	echo := r.command(ctx, "exec", "-i", "-q", "talker", "-c", "c", "--", "cat")
	echo.Stdin = strings.NewReader("said\n")
	var heard bytes.Buffer
	echo.Stdout, echo.Stderr = &heard, &heard
	if err := r.launch(echo); err != nil {
		r.Fatal(err)
	}
	if err := echo.Wait(); err != nil || heard.String() != "said\n" {
		r.Errorf("exec -i cat: %v: %q", err, heard.String())
	}
	_, err = r.try("exec", "talker", "-c", "c", "--", "/bin/sh", "-c", "exit 7")
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		r.Errorf("a command that ends with 7: %v", err)
	}
	r.forwards(ctx, p)
	r.sh("talker", "c", `touch "${HOLDFAST_ROOT:-}/end"`)
	last := ""
	for text.Scan() {
		last = text.Text()
	}
	if err := cmd.Wait(); last != "the end" || err != nil {
		r.Errorf("logs -f ends with %q, %v", last, err)
	}
	r.restarted("talker")
	if got := r.ctl("logs", "-p", "talker", "-c", "c", "--tail", "1"); got != "the end\n" {
		r.Errorf("logs -p: %q", got)
	}
	for _, c := range []struct {
		args string
		says []string
	}{
		{"events --for pod/talker", []string{"Scheduled", "Started"}},
		{"why talker", []string{p.Spec.NodeName}},
		{"describe pod talker", []string{"Restart Count:", "Last State:", p.Spec.NodeName}},
		{"get pods -l app=talker -o wide", []string{"talker", p.Spec.NodeName, p.Status.PodIP}},
	} {
		got := r.ctl(strings.Fields(c.args)...)
		for _, want := range c.says {
			if !strings.Contains(got, want) {
				r.Errorf("%s does not say %q:\n%s", c.args, want, got)
			}
		}
	}
}

// forwards asks a pod through a port here.
func (r *rows) forwards(ctx context.Context, p *corev1.Pod) {
	r.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := r.command(ctx, "port-forward", p.Name, fmt.Sprintf(":%d", p.Spec.Containers[1].Ports[0].ContainerPort), "--address=127.0.0.1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	if err := r.launch(cmd); err != nil {
		r.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	found := regexp.MustCompile(`Forwarding from (\S+) ->`).FindStringSubmatch(line)
	if err != nil || found == nil {
		r.Fatalf("port-forward says %q, %v", line, err)
	}
	dial := dialer(dialHere)
	if r.mesh != nil {
		dial = r.mesh.Dial
	}
	conn, err := dial(ctx, found[1])
	if err != nil {
		r.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.0\r\n\r\n")
	if body, err := io.ReadAll(conn); err != nil || !bytes.Contains(body, []byte(p.Name)) {
		r.Errorf("through port-forward: %q, %v", body, err)
	}
	cancel()
	cmd.Wait() // It was ended.
}

// exec runs a command through the tunnel, without a program of its own.
func (r *rows) exec(ctx context.Context, p *corev1.Pod, container string, command ...string) error {
	var out bytes.Buffer
	of := &kubepb.PodContainer{Namespace: p.Namespace, Pod: p.Name, Uid: string(p.UID), Container: container}
	code, err := tunnel.Exec(ctx, r.api.RPC(), &kubepb.ExecRequest{Of: of, Command: command}, runtime.Streams{Stdout: &out, Stderr: &out})
	if err == nil && code != 0 {
		err = fmt.Errorf("it ends with %d: %s", code, out.String())
	}
	return err
}

func (r *rows) upgradesKubelet() {
	n := r.nodes[0]
	d := deployment("steady", int32(*rowsPods), "10m")
	c := shContainer("c", `trap 'exit 0' TERM; n=0; while true; do n=$((n+1)); echo "line $n"; sleep 0.2; done`)
	d.Spec.Template.Spec.Containers = []corev1.Container{c}
	onNode(&d.Spec.Template.Spec, n)
	r.create(d)
	r.eventually(120*time.Second, "all copies run", func(ctx context.Context) error { return r.rolledOut(ctx, "steady", int32(*rowsPods)) })
	before := r.ids("app=steady")
	pods, err := r.pods(r.ctx, "steady")
	if err != nil {
		r.Fatal(err)
	}
	var one *corev1.Pod
	for _, one = range pods {
		break
	}
	again := func(what string, end func()) {
		goesOn := r.follows(one)
		began := time.Now()
		end()
		n.start()
		r.eventually(30*time.Second, "the node is reached after "+what, func(ctx context.Context) error { return r.exec(ctx, one, "c", "/bin/true") })
		r.Logf("%.2f s without the kubelet: %s", time.Since(began).Seconds(), what)
		goesOn()
		r.wholeLog(one) // Nor is a line lost that was written meanwhile.
		r.eventually(15*time.Second, "all copies are available", func(ctx context.Context) error { return r.rolledOut(ctx, "steady", int32(*rowsPods)) })
		r.same(before, r.ids("app=steady"))
	}
	again("kill -9", n.kill)
	newer := filepath.Join(programs(r.T), "kubelet-of-another-version-"+n.node)
	text, err := os.ReadFile(filepath.Join(programs(r.T), "kubelet"))
	if err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(newer, append(text, "another"...), 0o755); err != nil { // Loaders do not mind what follows.
		r.Fatal(err)
	}
	n.name = filepath.Base(newer)
	again("an upgrade", func() {
		n.signal(syscall.SIGTERM)
		<-n.ended
	})
	if err := r.scale("steady", int32(*rowsPods)+1); err != nil {
		r.Fatal(err)
	}
	r.eventually(30*time.Second, "another copy runs", func(ctx context.Context) error { return r.rolledOut(ctx, "steady", int32(*rowsPods)+1) })
	after := r.ids("app=steady")
	for name := range after {
		if _, old := before[name]; !old {
			delete(after, name)
		}
	}
	r.same(before, after)
	if err := objects.Delete[*appsv1.Deployment](r.ctx, r.api, "default", "steady"); err != nil {
		r.Fatal(err)
	}
	r.eventually(30*time.Second, "the newer kubelet ends what the older began", func(ctx context.Context) error {
		if pods, _, err := objects.List[*corev1.Pod](ctx, r.api, objects.ListOptions{Namespace: "default", Labels: "app=steady"}); err != nil || len(pods) > 0 {
			return fmt.Errorf("%d pods, %w", len(pods), err)
		}
		return nil
	})
}

// follows follows the log of a pod, whose lines are numbered. What it returns wants it to
// go on over the loss of the kubelet, each line once.
func (r *rows) follows(p *corev1.Pod) (goesOn func()) {
	r.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	cmd := r.command(ctx, "logs", "-f", p.Name, "--tail", "1")
	var said bytes.Buffer
	cmd.Stderr = &said
	text, err := cmd.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	if err := r.launch(cmd); err != nil {
		r.Fatal(err)
	}
	lines := bufio.NewScanner(text)
	next := func() (n int) {
		r.Helper()
		if !lines.Scan() {
			r.Fatalf("logs -f ends: %v, %v: %s", lines.Err(), cmd.Wait(), &said)
		}
		if _, err := fmt.Sscanf(lines.Text(), "line %d", &n); err != nil {
			r.Fatalf("logs -f: %q", lines.Text())
		}
		return n
	}
	last := next()
	until := func(end int) {
		r.Helper()
		for last < end {
			n := next()
			if n != last+1 {
				r.Fatalf("logs -f: line %d after line %d", n, last)
			}
			last = n
		}
	}
	until(last + 2)
	return func() {
		r.Helper()
		var now int
		if _, err := fmt.Sscanf(r.ctl("logs", p.Name, "--tail", "1"), "line %d", &now); err != nil {
			r.Fatal(err)
		}
		until(now + 2)
		cancel()
		cmd.Wait() // It was ended.
		if strings.Count(said.String(), "asking for the rest of it\n") != 1 {
			r.Errorf("logs -f says:\n%s", &said)
		}
	}
}

// cutsPower kills all of a node at once. In the first minute of a control plane nobody is
// evicted, so that it waits for the end of that.
func (r *rows) cutsPower() { r.cutPower() }

// cutPower returns how long it took until a replacement was ready.
func (r *rows) cutPower() (took time.Duration) {
	victim := r.nodes[len(r.nodes)-1]
	d := r.demoDeployment("alive", 1)
	d.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 100, Preference: corev1.NodeSelectorTerm{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{victim.node}}},
		}}},
	}}
	r.create(d)
	r.eventually(30*time.Second, "it runs", func(ctx context.Context) error { return r.rolledOut(ctx, "alive", 1) })
	before, err := r.pods(r.ctx, "alive")
	if err != nil {
		r.Fatal(err)
	}
	var first *corev1.Pod
	for _, first = range before {
		if first.Spec.NodeName != victim.node {
			r.Fatalf("it runs on %s, not on %s", first.Spec.NodeName, victim.node)
		}
	}
	wait(r.ctx, time.Until(r.began.Add(calm)))
	cut := time.Now()
	victim.cutPower()
	r.eventually(20*time.Second, "the node is known to be silent", func(ctx context.Context) error { return r.nodesReady(ctx, len(r.nodes)-1) })
	r.eventually(30*time.Second-time.Since(cut), "a replacement runs", func(ctx context.Context) error {
		pods, err := r.pods(ctx, "alive")
		if err != nil {
			return err
		}
		for name, p := range pods {
			if name != first.Name && podReady(p) {
				return nil
			}
		}
		return errors.New("none yet")
	})
	took = time.Since(cut)
	r.Logf("%.1f s from the cut until the replacement was ready", took.Seconds())
	victim.start()
	r.eventually(30*time.Second, "the node is back, and what was on it is cleared away", func(ctx context.Context) error {
		if err := r.nodesReady(ctx, len(r.nodes)); err != nil {
			return err
		}
		if _, err := r.pod(ctx, first.Name); !errors.Is(err, objects.ErrNotFound) {
			return fmt.Errorf("the old pod is there: %v", err)
		}
		if _, err := os.Stat(filepath.Join(victim.dir, "pods", string(first.UID))); !os.IsNotExist(err) {
			return fmt.Errorf("its folder is there: %v", err)
		}
		return r.rolledOut(ctx, "alive", 1)
	})
	return took
}

// losesControlPlane has nobody to ask or to tell for longer than a lease.
func (r *rows) losesControlPlane() {
	d := deployment("calm", 4, "10m")
	d.Spec.Template.Spec.Containers = []corev1.Container{shContainer("c", `trap 'exit 0' TERM; while true; do sleep 0.2; done`)}
	r.create(d)
	r.eventually(40*time.Second, "all copies run", func(ctx context.Context) error { return r.rolledOut(ctx, "calm", 4) })
	before := r.ids("")
	r.plane.kill()
	wait(r.ctx, *rowsAway)
	r.plane.start()
	r.plane.awaitReady()
	r.eventually(40*time.Second, "all nodes are ready", func(ctx context.Context) error { return r.nodesReady(ctx, len(r.nodes)) })
	r.eventually(40*time.Second, "all copies are available", func(ctx context.Context) error { return r.rolledOut(ctx, "calm", 4) })
	r.same(before, r.ids(""))
	events, _, err := objects.List[*corev1.Event](r.ctx, r.api, objects.ListOptions{Namespace: "default"})
	if err != nil {
		r.Fatal(err)
	}
	for _, e := range events {
		if e.Reason == "Killing" && strings.HasPrefix(e.InvolvedObject.Name, "calm") || strings.Contains(e.Reason, "Evict") {
			r.Errorf("event of %s: %s: %s", e.InvolvedObject.Name, e.Reason, e.Message)
		}
	}
}

// calm is how long a control plane evicts nobody after its start, and a little.
const calm = 63 * time.Second
