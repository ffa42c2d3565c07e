package kube_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/tests/page"
)

// walker types the walk of docs/kube.md.
type walker struct {
	*page.Page
	bin string
}

// starts starts what the next block says, until the test ends.
func (w *walker) starts(says string, flags ...string) *process {
	w.T.Helper()
	args := strings.Fields(w.Take(true))
	p := &process{
		t: w.T, name: args[0], says: says, dir: w.Dir, env: w.Env(),
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

func TestTheWalkIsAsThePageSays(t *testing.T) {
	ports := freePorts(t, 3)
	w := &walker{Page: page.Open(t, filepath.Join("..", "..", "docs", "kube.md"), "A walk"), bin: programs(t)}
	w.Dir = folder(t)
	w.Names = []string{"127.0.0.1:6443", ports[0]}
	w.Env = func() []string {
		return append(os.Environ(), "PATH="+w.bin+string(os.PathListSeparator)+os.Getenv("PATH"), "HOME="+w.Dir, "SUDO_UID=", "HOLDFAST_CONFIG=")
	}
	w.starts("The cluster is ready", "--listen-api="+ports[0], "--listen-client-url=https://"+ports[1], "--listen-peer-url=https://"+ports[2])
	fleet := w.starts("registered")

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

	fleet.kill()
	out = w.shows(0)
	if lines(out, "fleet-", "NotReady") != 2 {
		t.Error("the nodes that were killed are not known to be")
	}
	if n := lines(out, "web-", "Running", "sim-"); n != 10 {
		t.Errorf("%d pods run on the nodes that are left, of 10", n)
	}
	out = w.shows(0, "sim-1", "CPU(cores)", "MEMORY(bytes)", "Scheduled", "NodeSilent")
	if lines(out, "web-", "1m") == 0 {
		t.Error("no pod is measured")
	}
}
