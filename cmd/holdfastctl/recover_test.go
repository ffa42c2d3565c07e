package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// offline runs a command line that needs no member.
func offline(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	c := &ctl{in: strings.NewReader(""), out: &out, err: &errs, environ: patience}
	code = c.run(t.Context(), args)
	return out.String(), errs.String(), code
}

func TestWhatCanNotBeRecoveredIsSaid(t *testing.T) {
	tt := newTerminal(t, nil)
	m := tt.cluster.Members[0]
	dir := m.Config.DataDir
	empty, junk := t.TempDir(), filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte(`{"kind":"plan","format":9}`), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(code int, want string, args ...string) {
		t.Helper()
		_, stderr, got := offline(t, append([]string{"recover"}, args...)...)
		if got != code || !strings.Contains(stderr, want) {
			t.Errorf("%q ends with code %d: %s; want %d, %q", args, got, stderr, code, want)
		}
	}
	check(exitArguments, "requires the data directories", "collect")
	check(exitArguments, "requires the data directories", "auto")
	check(exitArguments, "requires the files", "plan")
	check(exitArguments, "requires the file of 'recover plan --out'", "apply")
	check(exitArguments, "requires the file of 'recover plan --out'", "verify")
	check(exitArguments, "requires the file of the plan and a data directory", "salvage", "x")
	check(exitArguments, "requires the data directories", "thaw")
	check(exitFailed, "holds no member", "auto", empty)
	check(exitFailed, "no such file", "plan", filepath.Join(empty, "facts.json"))
	check(exitFailed, "format 9, this program reads up to 1", "apply", junk)
	check(exitFailed, "in use by another process", "auto", dir)

	if err := m.Server.Close(); err != nil {
		t.Fatal(err)
	}
	check(exitFailed, "are a quorum: start them, nothing is lost", "auto", dir)
	check(exitFailed, `"m9" is the name or ID of 0 members`, "auto", "--dead", "m9", dir)
	facts := filepath.Join(t.TempDir(), "facts.json")
	check(0, "Written to", "collect", "--freeze", "--out", facts, dir)
	check(exitFailed, "are a quorum", "plan", facts)
	if stdout, stderr, code := offline(t, "recover", "collect", dir); code != 0 || !strings.Contains(stdout, `"frozen": "frozen by recover collect"`) {
		t.Errorf("%d: %s%s", code, stdout, stderr)
	}
	check(0, "", "thaw", dir)
	if stdout, _, _ := offline(t, "recover", "collect", dir); strings.Contains(stdout, `"frozen"`) {
		t.Errorf("still frozen: %s", stdout)
	}
}

// What cannot be looked at, as a directory of another user, is not said to be empty: who
// believes it makes a new member there.
func TestWhatCannotBeReadIsNotCalledEmpty(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("IDENTITY", filepath.Join(dir, "IDENTITY")); err != nil { // Root, too, cannot read that.
		t.Fatal(err)
	}
	for _, args := range [][]string{{"inspect", "datadir", dir}, {"inspect", "wal", dir}, {"repair", dir}, {"recover", "collect", dir}} {
		_, stderr, code := offline(t, args...)
		if code != exitFailed || strings.Contains(stderr, "no member") || strings.Contains(stderr, "no raft log") || !strings.Contains(stderr, "too many levels of symbolic links") {
			t.Errorf("%q: exit code %d, %s", args, code, stderr)
		}
	}
}
