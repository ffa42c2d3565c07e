package golden

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recorder is a testing.TB that keeps its failures to itself.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

const script = `# A comment stays.
say word=hello loud
line one
line two
----
say word="hello" loud=true line=1
line one
line two

empty
----

gap
----
----
a

b
----
----
`

func run(c Command) string {
	switch c.Name {
	case "say":
		return fmt.Sprintf("say word=%q loud=%v line=%d\n%s", c.Arg("word"), c.Has("loud"), c.Line-1, c.Input)
	case "gap":
		return "a\n\nb\n"
	}
	return ""
}

func TestScriptPassesFailsAndIsRewrittenToItself(t *testing.T) {
	name := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(name, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	Script(t, name, run)

	r := &recorder{TB: t}
	Script(r, name, func(c Command) string { return strings.ReplaceAll(run(c), "line two", "line 2") })
	if len(r.failures) != 1 || !strings.Contains(r.failures[0], "- line two\n+ line 2\n") {
		t.Errorf("failures %q", r.failures)
	}

	*rewrite = true
	defer func() { *rewrite = false }()
	Script(t, name, run)
	got, err := os.ReadFile(name)
	if err != nil || string(got) != script {
		t.Errorf("rewritten to %v\n%s", err, got)
	}
}

func TestFileComparesAndIsRewritten(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sub", "file")
	*rewrite = true
	File(t, name, "a\nb\n")
	*rewrite = false
	File(t, name, "a\nb\n")
	r := &recorder{TB: t}
	File(r, name, "a\nc\n")
	if len(r.failures) != 1 || !strings.Contains(r.failures[0], "  a\n- b\n+ c\n") {
		t.Errorf("failures %q", r.failures)
	}
}

func TestACommandWithoutDashesIsRefused(t *testing.T) {
	if _, err := parse("say\nmore\n"); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v", err)
	}
}
