package kube_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/tests/page"
)

// walker types the walk of docs/kube.md.
type walker struct {
	*page.Page
	bin  string
	node string // What the nodes' names begin with.
}

// starts starts what the next block says, until the test ends.
func (w *walker) starts(says string, flags ...string) *process {
	w.T.Helper()
	args := strings.Fields(w.Take(true))
	p := &process{
		t: w.T, name: args[0], says: says, dir: w.Dir, env: w.Env(), launch: w.Launch,
		args: append(append([]string{filepath.Join(w.Dir, args[0])}, args[1:]...), flags...),
	}
	p.start()
	w.T.Cleanup(p.kill)
	p.awaitReady()
	return p
}

// shows types the next block and wants these in what it prints.
func (w *walker) shows(code int, texts ...string) string {
	w.T.Helper()
	out := w.Types(code)
	for _, text := range texts {
		if !strings.Contains(out, text) {
			w.T.Errorf("does not show %q:\n%s", text, out)
		}
	}
	return out
}

// lines of a text with all of these.
func lines(text string, with ...string) (n int) {
	for line := range strings.Lines(text) {
		all := true
		for _, w := range with {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

// walkOn begins a section of the page, whose commands keep to a folder, to ports and to
// names of their own.
func walkOn(t *testing.T, file, section string) (*walker, []string) {
	t.Helper()
	ports := freePorts(t, 3)
	w := &walker{Page: page.Open(t, filepath.Join("..", "..", file), section), bin: programs(t)}
	w.Dir = folder(t)
	if err := os.Chmod(w.Dir, 0o711); err != nil { // Users of containers pass through.
		t.Fatal(err)
	}
	w.node = fmt.Sprintf("w%04x", rand.N(1<<16))
	w.Names = []string{"127.0.0.1:6443", ports[0], "127.0.0.1:2379", ports[1], "127.0.0.1:2380", ports[2], "node2", w.node + "-node2"}
	w.Env = func() []string {
		return append(os.Environ(), "PATH="+w.bin+string(os.PathListSeparator)+os.Getenv("PATH"), "HOME="+w.Dir, "SUDO_UID=", "HOLDFAST_CONFIG=")
	}
	return w, []string{"--listen-api=" + ports[0], "--listen-client-url=https://" + ports[1], "--listen-peer-url=https://" + ports[2]}
}

// Everything that the layer is for, on one machine. With containers that is a network
// namespace here, as other tests have pods of the same addresses; with plain processes it
// is this one.
func TestTheWalkIsAsThePageSays(t *testing.T) {
	t.Parallel()
	runtimes(t, func(t *testing.T, runtime string) {
		t.Parallel() // It waits most of its time.
		w, flags := walkOn(t, "docs/kube.md", "A walk")
		as := []string{"--runtime=" + runtime}
		if runtime == "native" {
			mesh := rowsMesh(t, 0)
			if mesh == nil {
				t.Skip("native nodes need root, namespaces and nft")
			}
			w.Launch = mesh.Launch
		}
		flags = append(append(flags, as...), "--node-name="+w.node)
		t.Cleanup(func() {
			w.quietly("kubelet", "remove", "--dir="+w.node+"-node2", "--node-name="+w.node+"-node2", as[0]) // Done already, unless the test has failed.
			w.quietly("controlplane", "dev", "remove", "--node-name="+w.node, as[0])
		})
		plane := w.starts("The cluster is ready", flags...)
		w.shows(0)
		second := w.starts("registered", as...)
		w.serves()

		w.shows(0, "deployment.apps/web scaled", "successfully rolled out")
		w.shows(0, "OOMKilled")
		second.kill()
		out := w.shows(0, " pods removed", "Terminating")
		if n := lines(out, "web-", "1/1", "Running", w.node+" "); n != 4 {
			t.Errorf("%d pods run on the node that is left, of 4", n)
		}
		restarted := lines(out, "web-", " 1 (")
		w.shows(0, "Snapshot saved", "successfully rolled out")

		plane.signal(syscall.SIGINT)
		<-plane.ended
		w.shows(0, "Restored")
		w.starts("The cluster is ready", flags...)
		out = w.shows(0, "2 pods to be decided about", "scaled from 4 to 6", "settled: 2 adopted, 0 pruned", "successfully rolled out")
		_, out, _ = strings.Cut(out, "successfully rolled out")
		if n, again := lines(out, "web-", "1/1", "Running"), lines(out, "web-", " ago)"); n != 6 || again != restarted {
			t.Errorf("%d pods run of 6; %d were restarted, %d before the restore", n, again, restarted)
		}
		if text := w.Take(false); text != "controlplane dev remove\n" { // As above, with its node.
			t.Errorf("the page ends with %q", text)
		}
	})
}

// serves types what makes the deployment, and what asks it.
func (w *walker) serves() {
	w.T.Helper()
	out := w.shows(0, "deployment.apps/web created", "service/web created", "successfully rolled out")
	if n, second := lines(out, "pod/web-", "1/1", "Running"), lines(out, "pod/web-", "Running", w.node+"-node2"); n != 3 || second == 0 {
		w.T.Errorf("%d pods run of 3, %d of them on the second node", n, second)
	}
	served := map[string]bool{}
	for line := range strings.Lines(w.shows(0, "[pod/web-")) {
		if pod, ok := strings.CutPrefix(line, "pod "); ok {
			served[strings.TrimSpace(pod)] = true
		}
	}
	if len(served) != 3 {
		w.T.Errorf("%d pods of 3 have answered 24 requests: %v", len(served), served)
	}
}

func TestTheReadmeIsAsItSays(t *testing.T) {
	t.Parallel()
	w, flags := walkOn(t, "README.md", "A cluster on this machine")
	flags = append(flags, "--runtime=process", "--node-name="+w.node)
	t.Cleanup(func() { w.quietly("controlplane", "dev", "remove", "--node-name="+w.node, "--runtime=process") })
	w.Names = append(w.Names, "make build && export PATH=$PWD/bin:$PATH", "trap 'kill $!; wait' EXIT", // The tests' are built.
		"controlplane dev &", "controlplane dev "+strings.Join(flags, " ")+" > dev.log & until grep -q 'is ready' dev.log; do sleep 0.1; done")
	out := w.shows(0, "deployment.apps/web created", "deployment.apps/web scaled", "replicaset.apps/web-", "listens")
	if n := lines(out, "web-", "1/1", "Running", "<none> "); n != 3 {
		t.Errorf("%d pods run of 3", n)
	}
}

// quietly runs a program that cleans up.
func (w *walker) quietly(args ...string) {
	cmd := exec.Command(filepath.Join(w.bin, args[0]), args[1:]...)
	cmd.Dir, cmd.Env = w.Dir, w.Env()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := w.Launch(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		w.T.Errorf("%v: %v\n%s", args, err, out.String())
	}
}

func TestTheWalkOverSimulatedNodesIsAsThePageSays(t *testing.T) {
	w, flags := walkOn(t, "docs/kube.md", "Simulated nodes")
	w.starts("The cluster is ready", flags...)
	w.starts("registered")

	out := w.shows(0, "deployment.apps/web created", "deployment.apps/web scaled", "successfully rolled out", "10/10")
	if n := lines(out, "pod/web-", "1/1", "Running"); n != 10 {
		t.Errorf("%d pods run of 10", n)
	}
	w.shows(0, "deployment.apps/web configured")
	w.shows(1, "timed out waiting for the condition")
	out = w.shows(0, "ImagePullBackOff", "rolled back", "successfully rolled out", "replicaset.apps/web-", "container/demo  Running, image builtin/demo")
	if strings.Contains(out, "image builtin/missing") {
		t.Error("the image that is missing is there after the undo")
	}
	w.shows(0, "pod/huge created", "nodes are available", "Insufficient cpu", `pod "huge" deleted`)
	out = w.shows(0, "sim-1 cordoned", "sim-1 drained", "sim-1 uncordoned")
	if lines(out, "web-", "Running") != 0 {
		t.Error("pods run on the node that was drained")
	}

	out = w.shows(0, "sim-1", "CPU(cores)", "MEMORY(bytes)", "Scheduled")
	if lines(out, "web-", "1m") == 0 {
		t.Error("no pod is measured")
	}
}
