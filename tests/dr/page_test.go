package dr

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/tests/bounded"
	"github.com/holdfast-db/holdfast/tests/cluster"
	"github.com/holdfast-db/holdfast/tests/page"
)

// runbook is a page of docs/operations. A test types its commands; for the examples
// that the page names stand the test's things.
type runbook struct {
	*page.Page
	c *cluster.Cluster
}

// openPage opens a page, or some of its sections.
func openPage(t *testing.T, c *cluster.Cluster, name string, sections ...string) *runbook {
	t.Helper()
	p := &runbook{page.Open(t, filepath.Join("..", "..", "docs", "operations", name), sections...), c}
	p.Env = func() []string { return p.c.Environ() }
	p.More = func() []string {
		var names []string
		for _, m := range p.c.Members {
			host := "https://10.0.0." + strings.TrimPrefix(m.Name, "m")
			names = append(names, host+":2380", m.PeerURL, host+":2379", m.ClientURL)
		}
		return append(names, "/var/lib/holdfast/", p.c.Dir+"/")
	}
	return p
}

// starts starts a member as the next block says.
func (p *runbook) starts(m *cluster.Member) {
	p.T.Helper()
	args := strings.Fields(p.Take(true))
	if len(args) < 2 || args[0] != "holdfast" || args[1] != "$FLAGS" {
		p.T.Fatalf("a start of %q", args)
	}
	m.Flags = append(m.Flags, args[2:]...)
	if err := m.Start(); err != nil {
		p.T.Fatal(err)
	}
	if err := m.WaitReady(p.T.Context()); err != nil {
		p.T.Fatal(err)
	}
}

// forks runs the next block, a fork, until the test ends.
func (p *runbook) forks() (endpoint string) {
	p.T.Helper()
	cmd := p.Command("exec " + p.Take(true))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.T.Fatal(err)
	}
	p.T.Cleanup(func() {
		// The context has ended, and so the fork was interrupted: it ends with 0.
		if err := bounded.Wait(cmd, bounded.EndMax); !errors.Is(err, context.Canceled) {
			p.T.Errorf("fork: %v\n%s", err, &errs)
		}
	})
	hangs := time.AfterFunc(bounded.EndMax, func() { cmd.Process.Signal(syscall.SIGQUIT) })
	defer hangs.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, url, found := strings.Cut(lines.Text(), "ETCDCTL_ENDPOINTS="); found {
			return url
		}
	}
	p.T.Fatal("the fork does not serve")
	return ""
}

// joins adds a member to the cluster's list, whose name is the next.
func joins(t *testing.T, c *cluster.Cluster) *cluster.Member {
	t.Helper()
	other, err := cluster.New(t.TempDir(), binaries.Binaries, 1)
	if err != nil {
		t.Fatal(err)
	}
	m := c.NewMember(other.Members[0].Place)
	c.Members = append(c.Members, m)
	return m
}
