package kube_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
)

// A machine shows its token once; its certificate lets it back in.
func TestAMachineJoinsWithATokenAndReturnsWithout(t *testing.T) {
	p, w := startDev(t, "--runtime=sim", "--nodes=0")
	data := strings.TrimPrefix(p.args[2], "--data-dir=")
	ca, err := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: filepath.Join(data, "certs")}.Authority()
	if err != nil {
		t.Fatal(err)
	}
	made, _, err := token.New(token.Config{Client: w.store, Clock: clock.Real()}).Create(t.Context(), token.Request{Authority: ca.Hash(), Node: "joiner"})
	if err != nil {
		t.Fatal(err)
	}
	tokenFile := filepath.Join(data, "token")
	if err := os.WriteFile(tokenFile, []byte(made.Text()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(filepath.Dir(data), "joiner")
	server := "--server=" + strings.TrimPrefix(p.args[3], "--listen-api=")
	k := &process{t: t, name: "kubelet", says: "registered", args: []string{dir, server, "--dir=" + dir, "--runtime=sim", "--node-name=joiner", "--token-file=" + tokenFile}}
	k.start()
	t.Cleanup(func() { k.kill() })
	k.awaitReady()
	w.eventually(30*time.Second, "the node is ready", func(ctx context.Context) error { return w.nodesReady(ctx, 1) })
	w.create(deployment("web", 2, "100m"))
	w.eventually(30*time.Second, "its pods run", func(ctx context.Context) error { return w.rolledOut(ctx, "web", 2) })
	k.kill()

	k.args, k.says = k.args[:5], "" // Without the token.
	k.start()
	if err := objects.Delete[*corev1.Node](t.Context(), w.api, "", "joiner"); err != nil {
		t.Fatal(err)
	}
	w.eventually(30*time.Second, "the node is ready again", func(ctx context.Context) error { return w.nodesReady(ctx, 1) })

	other := &process{t: t, name: "kubelet", args: []string{dir + "2", server, "--dir=" + dir + "2", "--runtime=sim", "--node-name=thief", "--token-file=" + tokenFile}}
	other.start()
	select {
	case <-other.ended:
	case <-time.After(slack * 30 * time.Second):
		other.kill()
		t.Fatal("a token for another node is tried for ever")
	}
	if code := other.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(other.out.String(), "token is for another node") {
		t.Errorf("exit %d: %s", code, other.out)
	}
	w.replay()
}
