package dr

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/tests/cluster"
)

// block is a piece of shell on a page. One that is marked "start" runs on.
var block = regexp.MustCompile("(?ms)^```sh( start)?\n(.*?)^```$")

// page is a runbook in docs/operations. A test types its commands, one block
// after the other; for the examples that the page names stand the test's things.
type page struct {
	t      *testing.T
	c      *cluster.Cluster
	dir    string
	blocks [][]string
	names  []string // Example, what stands for it, and so on.
}

// openPage opens a page, or some of its sections.
func openPage(t *testing.T, c *cluster.Cluster, name string, sections ...string) *page {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations", name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	if len(sections) > 0 {
		text = ""
	}
	for _, section := range sections {
		_, found, ok := strings.Cut(string(data), "\n## "+section+"\n")
		if !ok {
			t.Fatalf("%s has no section %q", name, section)
		}
		found, _, _ = strings.Cut(found, "\n## ")
		text += found
	}
	p := &page{t: t, c: c, dir: t.TempDir(), blocks: block.FindAllStringSubmatch(text, -1)}
	t.Cleanup(func() {
		if len(p.blocks) > 0 && !t.Failed() {
			t.Errorf("%s: nobody has typed\n%s", name, p.blocks[0][2])
		}
	})
	return p
}

// take is the next block.
func (p *page) take(start bool) string {
	p.t.Helper()
	if len(p.blocks) == 0 {
		p.t.Fatal("the page has no more commands")
	}
	b := p.blocks[0]
	p.blocks = p.blocks[1:]
	if isStart := b[1] != ""; isStart != start {
		p.t.Fatalf("unexpected on the page:\n%s", b[0])
	}
	names := append([]string{}, p.names...)
	for _, m := range p.c.Members {
		host := "https://10.0.0." + strings.TrimPrefix(m.Name, "m")
		names = append(names, host+":2380", m.PeerURL, host+":2379", m.ClientURL)
	}
	return strings.NewReplacer(append(names, "/var/lib/holdfast/", p.c.Dir+"/")...).Replace(b[2])
}

// command is a block for the shell.
func (p *page) command(text string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), "bash", "-euo", "pipefail", "-c", text)
	cmd.Dir, cmd.Env = p.dir, p.c.Environ()
	return cmd
}

// types types the next block, which ends with a code. It returns all that was
// printed.
func (p *page) types(code int) string {
	p.t.Helper()
	text := p.take(false)
	out, err := p.command(text).CombinedOutput()
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		p.t.Fatal(err)
	}
	if got != code {
		p.t.Fatalf("ended with %d, expected %d\n%s\n%s", got, code, text, out)
	}
	p.t.Logf("%s\n%s", text, out)
	return string(out)
}

// starts starts a member as the next block says.
func (p *page) starts(m *cluster.Member) {
	p.t.Helper()
	args := strings.Fields(p.take(true))
	if len(args) < 2 || args[0] != "holdfast" || args[1] != "$FLAGS" {
		p.t.Fatalf("a start of %q", args)
	}
	m.Flags = append(m.Flags, args[2:]...)
	if err := m.Start(); err != nil {
		p.t.Fatal(err)
	}
	if err := m.WaitReady(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// forks runs the next block, a fork, until the test ends.
func (p *page) forks() (endpoint string) {
	p.t.Helper()
	cmd := p.command("exec " + p.take(true))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		// The context has ended, and so the fork was interrupted: it ends with 0.
		if err := cmd.Wait(); !errors.Is(err, context.Canceled) {
			p.t.Errorf("fork: %v", err)
		}
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, url, found := strings.Cut(lines.Text(), "ETCDCTL_ENDPOINTS="); found {
			return url
		}
	}
	p.t.Fatal("the fork does not serve")
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
