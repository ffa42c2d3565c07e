// Package page types what a page of the documentation says: its blocks of shell, one
// after the other, with the test's own things for the names of its examples. A test
// that leaves a block out fails, so no command on such a page is untried.
package page

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/tests/bounded"
)

// block is a piece of shell on a page. One that is marked "start" runs on.
var block = regexp.MustCompile("(?ms)^```sh( start)?\n(.*?)^```$")

// Block is what stands between two fences.
type Block struct {
	Starts bool // Marked "start": what it starts runs on.
	Text   string
}

// Page is one, or some sections of it, as far as nobody has typed it.
type Page struct {
	T      *testing.T
	Dir    string // Where commands run.
	Env    func() []string
	Launch func(*exec.Cmd) error // Starts a command, here unless it says where.
	Names  []string              // Example, what stands for it, and so on.
	More   func() []string       // More of them, asked each time.
	Blocks []Block
}

// Open opens a page, or some of its sections.
func Open(t *testing.T, path string, sections ...string) *Page {
	t.Helper()
	data, err := os.ReadFile(path)
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
			t.Fatalf("%s has no section %q", path, section)
		}
		found, _, _ = strings.Cut(found, "\n## ")
		text += found
	}
	p := &Page{T: t, Dir: t.TempDir(), Env: os.Environ, Launch: (*exec.Cmd).Start, More: func() []string { return nil }}
	for _, b := range block.FindAllStringSubmatch(text, -1) {
		p.Blocks = append(p.Blocks, Block{b[1] != "", b[2]})
	}
	t.Cleanup(func() {
		if len(p.Blocks) > 0 && !t.Failed() {
			t.Errorf("%s: nobody has typed\n%s", filepath.Base(path), p.Blocks[0].Text)
		}
	})
	return p
}

// Take is the next block.
func (p *Page) Take(start bool) string {
	p.T.Helper()
	if len(p.Blocks) == 0 {
		p.T.Fatal("the page has no more commands")
	}
	b := p.Blocks[0]
	p.Blocks = p.Blocks[1:]
	if b.Starts != start {
		p.T.Fatalf("unexpected on the page:\n%s", b.Text)
	}
	return strings.NewReplacer(append(slices.Clone(p.Names), p.More()...)...).Replace(b.Text)
}

// Command is a block for the shell.
func (p *Page) Command(text string) *exec.Cmd {
	cmd := exec.CommandContext(p.T.Context(), "bash", "-euo", "pipefail", "-c", text)
	cmd.Dir, cmd.Env = p.Dir, p.Env()
	return cmd
}

// Types types the next block, which ends with a code. It returns all that was printed.
func (p *Page) Types(code int) string {
	p.T.Helper()
	text := p.Take(false)
	var out bytes.Buffer
	cmd := bounded.Group(p.Command(text))
	cmd.Stdout, cmd.Stderr = &out, &out
	err := p.Launch(cmd)
	if err == nil {
		err = bounded.Wait(cmd, bounded.CommandMax)
	}
	got := 0
	if errors.Is(err, bounded.ErrHangs) {
		p.T.Fatalf("%v\n%s", err, out.String())
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		p.T.Fatal(err)
	}
	if got != code {
		p.T.Fatalf("ended with %d, expected %d\n%s\n%s", got, code, text, out.String())
	}
	p.T.Logf("%s\n%s", text, out.String())
	return out.String()
}
