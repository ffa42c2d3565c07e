package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// garden is a copy of the tree, into which one plant at a time is put.
type garden struct {
	root string // The tree.
	dir  string // The copy.
	log  io.Writer
}

// newGarden copies what is tracked, or will be: whatever git does not ignore.
func newGarden(ctx context.Context, root string, log io.Writer) (*garden, error) {
	dir, err := os.MkdirTemp("", "holdfast-plants")
	if err != nil {
		return nil, err
	}
	g := &garden{root: root, dir: dir, log: log}
	list, err := g.git(ctx, root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(list, "\x00"), "\x00") {
		if err := copyFile(filepath.Join(root, name), filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, g.close())
		}
	}
	return g, nil
}

func copyFile(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}

func (g *garden) close() error { return os.RemoveAll(g.dir) }

func (g *garden) git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", args[0], err, errs.Bytes())
	}
	return out.String(), nil
}

// apply puts a plant into the copy, or takes it out again.
func (g *garden) apply(ctx context.Context, p *plant, more ...string) error {
	_, err := g.git(ctx, g.dir, append(append([]string{"apply"}, more...), p.path)...)
	if err != nil {
		return fmt.Errorf("plant %s does not apply to this tree: mend the patch: %w", p.name, err)
	}
	return nil
}

// compile proves that a plant is a mistake and not a misprint.
func (g *garden) compile(ctx context.Context, p *plant) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-tags=invariants"}, p.packages...)...)
	cmd.Dir = g.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("plant %s does not compile: mend the patch: %w\n%s", p.name, err, out)
	}
	return nil
}

const toldMax = 120 // Of what is told, in a row of the table.

// verdict is what came of a suite.
type verdict struct {
	failed bool
	first  string // The first test that failed, or what else there is to say.
	seed   string // If it told one.
	took   time.Duration
}

var (
	failing = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	told    = regexp.MustCompile(`(?m)^seed \d+: .*$`) // What a simulation says of a seed that failed.
	seeded  = regexp.MustCompile(`(?i)\bseed[ =:]+(0x[0-9a-f]+|\d+)`)
	// go vet, which go test runs, fails like the compiler: neither is a verdict.
	broken = regexp.MustCompile(`(?m)^FAIL\s+\S+ \[(build|setup) failed\]`)
)

// run runs a suite in the copy. One that does not end in its time says nothing:
// the machine may be slow.
func (g *garden) run(ctx context.Context, s suite) (verdict, error) {
	limited, cancel := context.WithTimeout(ctx, s.time)
	defer cancel()
	cmd := exec.CommandContext(limited, s.argv[0], s.argv[1:]...)
	cmd.Dir = g.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	began := time.Now()
	out, err := cmd.CombinedOutput()
	v := verdict{took: time.Since(began)}
	fmt.Fprintf(g.log, "== %s: %s: %v in %.1f s\n%s\n", s.name, strings.Join(s.argv, " "), err, v.took.Seconds(), out)
	switch {
	case err == nil:
		return v, nil
	case ctx.Err() != nil:
		return v, ctx.Err()
	case limited.Err() != nil:
		v.first = fmt.Sprintf("no end within %v", s.time)
		return v, nil
	case broken.Match(out):
		return v, fmt.Errorf("suite %s does not compile:\n%s", s.name, out)
	}
	v.failed, v.first = true, "exit without a failed test"
	if found := failing.FindAllSubmatch(out, -1); found != nil {
		v.first = string(found[0][1])
		for _, f := range found { // The part is told before its whole, or after: the longest name says most.
			if strings.HasPrefix(string(f[1]), v.first) {
				v.first = string(f[1])
			}
		}
	} else if said := told.Find(out); said != nil {
		v.first = string(said[:min(len(said), toldMax)])
	} else if at := bytes.Index(out, []byte("panic: ")); at >= 0 {
		v.first, _, _ = strings.Cut(string(out[at:]), "\n")
	}
	if found := seeded.FindSubmatch(out); found != nil {
		v.seed = string(found[1])
	}
	return v, nil
}
