package dr

import (
	"context"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/tests/cluster"
)

var upgradeFrom = flag.String("upgrade.from", "HEAD~1", "the commit whose program is replaced by the present one")

// Three members are replaced one after the other by those of the present tree,
// under load, as an operator does it: nothing acknowledged is lost, and while
// both versions run the cluster serves.
func TestARollingUpgradeUnderLoadLosesNothing(t *testing.T) {
	old := earlier(t)
	c := stopped(t, 3)
	for _, m := range c.Members {
		m.Program = old
	}
	if err := c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	acked := &acknowledged{revisions: map[string]int64{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := write(ctx, t, c, "upgrade", acked)
	count := func() int {
		acked.Lock()
		defer acked.Unlock()
		return len(acked.revisions)
	}
	for _, m := range c.Members {
		before := count()
		m.Terminate()
		m.Program = ""
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		if err := m.WaitReady(t.Context()); err != nil {
			t.Fatalf("%s of the present tree: %v", m.Name, err)
		}
		until(t, func() error {
			if n := count() - before; n < 20 {
				return fmt.Errorf("%d writes were acknowledged since %s was replaced", n, m.Name)
			}
			return nil
		})
	}
	cancel()
	wait()
	check(t, c, acked)
}

// earlier builds the server of an earlier commit. Where none is known, as in a
// copy of the tree without its past, it is that of the present one.
func earlier(t *testing.T) string {
	t.Helper()
	root := filepath.Join("..", "..")
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", root}, args...)...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "--verify", "--quiet", *upgradeFrom+"^{commit}")
	if err != nil {
		t.Logf("there is no commit %s here: members are replaced by their like", *upgradeFrom)
		return ""
	}
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	if out, err := git("worktree", "add", "--detach", tree, commit); err != nil {
		t.Fatalf("a tree of %s: %v\n%s", commit, err, out)
	}
	t.Cleanup(func() {
		cmd := exec.Command("git", "-C", root, "worktree", "remove", "--force", tree)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Logf("remove %s: %v\n%s", tree, err, out)
		}
	})
	programs, err := cluster.Build(t.Context(), tree, dir)
	if err != nil {
		t.Fatalf("build %s: %v", commit, err)
	}
	t.Logf("members of %s are replaced", commit)
	return programs.Holdfast
}
