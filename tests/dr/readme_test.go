package dr

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/tests/page"
)

// readme types sections of README.md, whose commands keep to a folder and to ports of
// the test.
type readme struct {
	*page.Page
	places *strings.Replacer
}

func openReadme(t *testing.T, dir, archive string, sections ...string) *readme {
	t.Helper()
	c := stopped(t, 3) // For free ports, and the programs.
	p := &readme{Page: page.Open(t, filepath.Join("..", "..", "README.md"), sections...)}
	p.Dir = dir
	bin := filepath.Dir(binaries.Holdfast)
	if err := os.Symlink(bin, filepath.Join(dir, "bin")); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	p.Env = func() []string {
		return append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	}
	names := []string{"10.0.0.1,10.0.0.2,10.0.0.3", "127.0.0.1", "s3://bucket/prefix", archive, "before-revision=4711", "before-revision=3"}
	for i, m := range c.Members {
		host := fmt.Sprintf("https://10.0.0.%d", i+1)
		names = append(names, host+":2379", m.ClientURL, host+":2380", m.PeerURL)
	}
	p.places = strings.NewReplacer(names...)
	return p
}

// member starts what stands there for the first host as that of another.
func (p *readme) member(text, name string, number int, more string) {
	p.T.Helper()
	text = strings.NewReplacer("--name a", "--name "+name, "/var/lib/holdfast", filepath.Join(p.Dir, name),
		"urls https://10.0.0.1", fmt.Sprintf("urls https://10.0.0.%d", number)).Replace(text)
	cmd := p.Command("exec " + p.places.Replace(strings.TrimSpace(text)) + more)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(p.Dir, name+".log"))
	if err == nil {
		cmd.Stderr = log
		err = cmd.Start()
	}
	if err != nil {
		p.T.Fatal(err)
	}
	p.T.Cleanup(func() {
		_ = cmd.Wait() // Killed, as the context has ended.
		_ = log.Close()
	})
}

// shell runs a text with the variables that the page has set.
func (p *readme) shell(variables, text string) (string, error) {
	out, err := p.Command(variables + p.places.Replace(text)).CombinedOutput()
	return string(out), err
}

// lines types the next block line by line, each of which ends with 0 but for those that
// show a difference.
func (p *readme) lines(variables string) (outs []string) {
	p.T.Helper()
	for line := range strings.Lines(p.Take(false)) {
		out, err := p.shell(variables, line)
		exit := (*exec.ExitError)(nil)
		if differs := strings.HasPrefix(line, "holdfastctl diff"); err != nil && !(differs && errors.As(err, &exit) && exit.ExitCode() == 1) {
			p.T.Fatalf("%s%v\n%s", line, err, out)
		}
		p.T.Logf("%s%s", line, out)
		outs = append(outs, out)
	}
	return outs
}

// What stands in the README is what a stranger types first.
func TestTheReadmeIsAsItSays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := openReadme(t, dir, "file://"+filepath.Join(dir, "archive"), "Three members with mTLS", "Backup and recovery")
	if _, err := p.shell("", p.Take(false)); err != nil {
		t.Fatal(err)
	}
	start := p.Take(true)
	status := p.Take(false)
	variables, _, ok := strings.Cut(p.places.Replace(status), "bin/holdfastctl")
	if !ok {
		t.Fatalf("no command behind the variables:\n%s", status)
	}
	snapshot := p.Blocks[0]
	p.Blocks = p.Blocks[1:]
	_, flag, _ := strings.Cut(p.places.Replace(p.Take(true)), "…")
	flag, _, _ = strings.Cut(flag, "#")
	for i, name := range []string{"a", "b", "c"} {
		p.member(start, name, i+1, flag)
	}
	until(t, func() error {
		out, err := p.shell("", status)
		if err == nil && !strings.Contains(out, "3 of 3 voters answer") {
			err = fmt.Errorf("not three members:\n%s", out)
		}
		return err
	})
	until(t, func() error {
		out, err := p.shell(variables, "holdfastctl backup ls --archive s3://bucket/prefix")
		if err == nil && !strings.Contains(out, "can be restored") {
			err = fmt.Errorf("the archive has not begun:\n%s", out)
		}
		return err
	})
	for _, text := range []string{"put /registry/a good", "put /registry/a bad", "put /registry/b new"} {
		if out, err := p.shell(variables, "holdfastctl "+text); err != nil {
			t.Fatal(err, out)
		}
	}
	spec := "members:\n"
	for i, name := range []string{"a", "b", "c"} {
		spec += fmt.Sprintf("- {name: %s, peer-urls: [%s], data-dir: new/%s}\n", name, p.places.Replace(fmt.Sprintf("https://10.0.0.%d:2380", i+1)), name)
	}
	if err := os.WriteFile(filepath.Join(dir, "cluster.yaml"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, func() error { // Until the archive has all of it.
		_, err := p.shell(variables, "holdfastctl diff at:latest live --archive s3://bucket/prefix")
		return err
	})
	p.Blocks = append([]page.Block{snapshot}, p.Blocks...)
	if outs := p.lines(variables); len(outs) != 3 || !strings.Contains(outs[2], "Restored. Start:") {
		t.Errorf("a snapshot is not restored: %q", outs)
	}
	outs := p.lines(variables)
	if len(outs) != 4 || !strings.Contains(outs[1], "~ /registry/a") || !strings.Contains(outs[1], "+ /registry/b") ||
		!strings.Contains(outs[2], "2 keys taken back") || !strings.Contains(outs[3], "Restored. Start:") {
		t.Errorf("what was written is not taken back: %q", outs)
	}
	if out, err := p.shell(variables, "holdfastctl get --prefix /registry/ --print-value-only"); err != nil || strings.TrimSpace(out) != "good" {
		t.Errorf("the keys have %q: %v", out, err)
	}
}
