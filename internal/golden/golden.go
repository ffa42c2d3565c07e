// Package golden compares what a test got with a file that people review.
//
// File compares one value with one file. Script runs a scenario: a file of
// commands, each with the transcript it gave, so that a test reads like a
// session and a change of behaviour is a diff. With the flag -rewrite the files
// are written instead of compared.
//
// A script looks like this; a line that starts with # is a comment and stays:
//
//	put key=a
//	value of
//	several lines
//	----
//	revision 2
//
// A transcript ends at the first empty line. One that holds empty lines itself
// is put between two lines of dashes, "----" twice at its begin and at its end.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files of this package instead of comparing with them")

// File fails the test unless the file holds exactly got.
func File(t testing.TB, name, got string) {
	t.Helper()
	if *rewrite {
		writeFile(t, name, got)
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v (go test -rewrite writes it)", err)
	}
	if diff := Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what the test got (go test -rewrite writes it; review the change):\n%s", name, diff)
	}
}

// Command is one step of a script.
type Command struct {
	Line  int    // Where it stands in its file, from 1.
	Name  string // First word.
	Args  []Arg  // The other words of the first line.
	Input string // The lines between the first and the dashes.
}

// Arg is a word of a command: key=value, or only a key.
type Arg struct{ Key, Value string }

// Arg returns the value of a key, or "" when the command does not have it.
func (c Command) Arg(key string) string {
	for _, a := range c.Args {
		if a.Key == key {
			return a.Value
		}
	}
	return ""
}

// Has reports whether the command has a key.
func (c Command) Has(key string) bool {
	for _, a := range c.Args {
		if a.Key == key {
			return true
		}
	}
	return false
}

// Script runs each command of a file through run and fails the test unless
// every transcript is what the file says.
func Script(t testing.TB, name string, run func(c Command) string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for i, b := range blocks {
		if b.command == nil {
			continue
		}
		got := run(*b.command)
		if got != "" && !strings.HasSuffix(got, "\n") {
			got += "\n"
		}
		if !*rewrite && got != b.want {
			t.Errorf("%s:%d: %s\n%s", name, b.command.Line, b.head, Diff(b.want, got))
		}
		blocks[i].want = got
	}
	if *rewrite {
		writeFile(t, name, format(blocks))
	}
}

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
