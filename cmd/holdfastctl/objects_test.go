package main

import (
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
