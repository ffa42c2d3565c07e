package kubelet

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// restartedAfter is the kubelet of a folder, so long after the machine's start.
func restartedAfter(t *testing.T, dir, boot string, since time.Duration) (*Kubelet, *clocktest.Fake) {
	t.Helper()
	clk := clocktest.New()
	began := clk.Mono()
	k, err := New(Config{
		Client: objects.New(nil, "test"), Node: "n", Dir: dir, Clock: clk, Logger: hclog.NewNullLogger(),
		BootTime:   func() (string, time.Duration, error) { return boot, since + clk.Mono() - began, nil },
		NewRuntime: func(context.Context, *corev1.Node, func(types.UID)) (Runtime, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.loadLease(); err != nil {
		t.Fatal(err)
	}
	return k, clk
}

// A kubelet that is restarted goes on with the lease of the one before, so that
// singletons go on too; but no longer than it stands, and not after the machine's restart.
func TestALeaseOutlivesItsKubeletButNotItsMachine(t *testing.T) {
	dir := t.TempDir()
	k, clk := restartedAfter(t, dir, "one", time.Hour)
	if !k.mayHaveEnded() {
		t.Fatal("a lease that nobody has granted stands")
	}
	k.acknowledged(clk.Mono(), 10*time.Second)
	clk.Advance(3 * time.Second)
	if err := k.noteLease(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		boot  string
		since time.Duration
		ended bool
	}{
		{"one", time.Hour + 4*time.Second, false},
		{"one", time.Hour + 8900*time.Millisecond, false},
		{"one", time.Hour + 9*time.Second, true}, // A second before it may end it is too late to stop.
		{"one", time.Hour + time.Minute, true},
		{"two", 4 * time.Second, true},
	} {
		if k, _ := restartedAfter(t, dir, c.boot, c.since); k.mayHaveEnded() != c.ended {
			t.Errorf("boot %s, %v after it: ended %t, want %t", c.boot, c.since, !c.ended, c.ended)
		}
	}
	k, clk = restartedAfter(t, dir, "one", time.Hour+4*time.Second)
	boot := k.cfg.BootTime
	k.cfg.BootTime = func() (string, time.Duration, error) { // The machine gives it no time just then.
		defer clk.Advance(time.Minute)
		return boot()
	}
	k.lease.mu.until = 0
	if err := k.loadLease(); err != nil || !k.mayHaveEnded() {
		t.Errorf("a minute after what the file says was read it stands, %v", err)
	}
	k, clk = restartedAfter(t, dir, "one", time.Hour+4*time.Second)
	if clk.Advance(5 * time.Second); !k.mayHaveEnded() {
		t.Error("it stands for longer than it was granted")
	}
	if err := os.WriteFile(filepath.Join(dir, leaseFile), []byte(`{"boot":"one","until":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if k, _ := restartedAfter(t, dir, "one", time.Hour); !k.mayHaveEnded() {
		t.Error("a file that is torn is believed")
	}
}
