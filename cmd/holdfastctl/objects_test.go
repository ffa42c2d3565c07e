package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
	kubecontext "github.com/holdfast-db/holdfast/kube/context"
)

func TestAGetOfAKindIsForObjectsUnlessItIsSaidToBeForKeys(t *testing.T) {
	tt := newTerminal(t, nil)
	tt.must("put", "pods", "a key")
	if got := tt.must("get", "pods"); got != "pods\na key\n" {
		t.Errorf("without a context: %q", got)
	}
	path := filepath.Join(t.TempDir(), "config")
	c := &kubecontext.Config{Current: "dev"}
	c.Set(kubecontext.Context{Name: "dev", Server: []string{"127.0.0.1:1"}, CA: "ca.pem", Cert: "c.pem", Key: "k.pem"})
	if err := c.Save(vfs.OS(), path, func(string) string { return "" }); err != nil {
		t.Fatal(err)
	}
	tt.environ = []string{"HOLDFAST_CONFIG=" + path}
	for _, args := range [][]string{{"get", "podz"}, {"get", "pods", "-w", "json"}} {
		args = append(args, "--endpoints=nobody.test:2379", "--command-timeout=50ms")
		if _, stderr, code := tt.run(0, "", args...); code != exitFailed || !strings.Contains(stderr, "was taken for a key of the store") {
			t.Errorf("%q without a store: exit code %d, %s", args, code, stderr)
		}
	}
	stdout, stderr, code := tt.run(0, "", "get", "pods")
	if code != 1 || stdout != "" || !strings.Contains(stderr, `context "dev": the context cannot be used: ca: `) {
		t.Errorf("with one: code %d, %q, %q", code, stdout, stderr)
	}
	for _, line := range []string{"kv get pods", "get pods --endpoints " + memberURL, "get pods -w simple", "get --prefix pods"} {
		if got := tt.must(strings.Fields(line)...); got != "pods\na key\n" {
			t.Errorf("%s: %q", line, got)
		}
	}
	tt.tool = etcdctl
	if got := tt.must("get", "pods"); got != "pods\na key\n" {
		t.Errorf("as etcdctl: %q", got)
	}
}

func TestVerbsForObjectsHaveTheirHelpAndAreKnownByTheirBeginnings(t *testing.T) {
	tt := newTerminal(t, nil)
	for _, line := range []string{"describe --help", "help describe", "desc --help"} {
		if got := tt.must(strings.Fields(line)...); !strings.Contains(got, "Tells all about objects") || !strings.Contains(got, "--field-selector") {
			t.Errorf("%s: %s", line, got)
		}
	}
	if got := tt.must("get", "--help"); !strings.Contains(got, `"kv get" always does`) {
		t.Error(got)
	}
	_, stderr, code := tt.run(0, "", "frob")
	if code != 1 || !strings.Contains(stderr, "unknown command") {
		t.Errorf("code %d, %s", code, stderr)
	}
}

// full takes no more after some bytes, as a disk does.
type full struct{ left int }

func (f *full) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(b), nil
}

func TestWhatCannotBePrintedIsAFailure(t *testing.T) {
	for _, args := range []string{"version", "options", "--help", "explain pod.spec", "api-resources", "completion bash", "bench put --help"} {
		for _, left := range []int{0, 40} {
			var stderr bytes.Buffer
			c := &ctl{in: strings.NewReader(""), out: &full{left: left}, err: &stderr}
			if code := c.run(t.Context(), strings.Fields(args)); code != exitFailed || !strings.Contains(stderr.String(), "no space left on device") {
				t.Errorf("%s, of which %d bytes go out: exit code %d, %s", args, left, code, &stderr)
			}
		}
	}
}
