// Package tidy is a test that keeps the tree as CONVENTIONS and the import
// table say: who may import whom, how large things are, and which calls would
// take time, files and chance out of the hands of a simulation.
//
// Each rule has a reason, which its findings print. Where breaking a rule makes
// the code simpler to read, a comment on the line or just above it says so, with
// the rule's name and why:
//
//	//tidy:ordered the sum does not depend on the order
//
// A comment without a reason, or one that nothing needs any more, is a finding
// too. Generated files are left alone.
package tidy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"
)

const modulePath = "github.com/holdfast-db/holdfast"

// Finding is one place that breaks a rule.
type Finding struct {
	File   string
	Line   int
	Rule   string
	Detail string
	Reason string
}

func (f Finding) String() string {
	return fmt.Sprintf("%s:%d: %s: %s (%s)", f.File, f.Line, f.Rule, f.Detail, f.Reason)
}

// Tree is a parsed repository.
type Tree struct {
	fset     *token.FileSet
	texts    map[string]string // All text files, by path from the root.
	paths    []string          // Their names, sorted.
	files    []*file           // The Go files among them that people wrote.
	importer types.Importer    // Finds the packages that Go files import.
}

// file is a Go file.
type file struct {
	path, dir string
	test      bool // For tests only: a _test.go file, or in a package of fakes, or under tests/.
	nested    bool // In a module of its own.
	syntax    *ast.File
	lines     int
	allowed   map[int]*allowance
}

// allowance is a comment that excuses a line, and the next one.
type allowance struct {
	rule, reason string
	used         bool
}

var (
	generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	excuse    = regexp.MustCompile(`^//tidy:([a-z-]+)[ \t]*(.*)$`)
)

// newTree parses the texts of a repository.
func newTree(texts map[string]string, importer types.Importer) (*Tree, error) {
	t := &Tree{fset: token.NewFileSet(), texts: texts, importer: importer}
	for p := range texts {
		t.paths = append(t.paths, p)
	}
	sort.Strings(t.paths)
	for _, p := range t.paths {
		text := texts[p]
		if !strings.HasSuffix(p, ".go") || strings.Contains(p, "testdata/") || generated.MatchString(text) {
			continue
		}
		syntax, err := parser.ParseFile(t.fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		f := &file{path: p, dir: path.Dir(p), syntax: syntax, lines: strings.Count(text, "\n"), allowed: map[int]*allowance{}}
		f.test = strings.HasSuffix(p, "_test.go") || fake(f.dir) || under(f.dir, "tests")
		f.nested = t.nested(f.dir)
		for _, group := range syntax.Comments {
			for _, c := range group.List {
				if m := excuse.FindStringSubmatch(c.Text); m != nil {
					f.allowed[t.line(c.Pos())] = &allowance{rule: m[1], reason: m[2]}
				}
			}
		}
		t.files = append(t.files, f)
	}
	return t, nil
}

// nested reports whether a folder lies in a module below the root's.
func (t *Tree) nested(dir string) bool {
	for ; dir != "."; dir = path.Dir(dir) {
		if _, ok := t.texts[dir+"/go.mod"]; ok {
			return true
		}
	}
	return false
}

// fake reports whether a folder holds a package for tests, as vfstest.
func fake(dir string) bool {
	return strings.HasSuffix(dir, "test") || under(dir, "kube/runtime/conformance")
}

// under reports whether a folder is top or lies below it.
func under(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }

func (t *Tree) line(pos token.Pos) int { return t.fset.Position(pos).Line }

// Check applies all rules and returns what it found, in order of place.
func (t *Tree) Check() []Finding {
	var found []Finding
	for _, r := range rules() {
		r.check(t, func(p string, line int, detail string) {
			found = append(found, Finding{File: p, Line: line, Rule: r.name, Detail: detail, Reason: r.reason})
		})
	}
	found = slices.DeleteFunc(found, t.excused)
	found = append(found, t.badExcuses()...)
	sort.SliceStable(found, func(i, j int) bool {
		a, b := found[i], found[j]
		return a.File < b.File || a.File == b.File && a.Line < b.Line
	})
	return found
}

func (t *Tree) excused(f Finding) bool {
	for _, file := range t.files {
		if file.path != f.File {
			continue
		}
		for _, line := range []int{f.Line, f.Line - 1} {
			if a := file.allowed[line]; a != nil && a.rule == f.Rule && a.reason != "" {
				a.used = true
				return true
			}
		}
	}
	return false
}

func (t *Tree) badExcuses() []Finding {
	var found []Finding
	for _, f := range t.files {
		for line, a := range f.allowed {
			finding := Finding{File: f.path, Line: line, Rule: "excuse", Reason: "an exception is worth what its reason is worth"}
			switch {
			case a.reason == "":
				finding.Detail = "tidy:" + a.rule + " gives no reason"
			case !a.used && (a.rule != "ordered" || ordered(f.dir)): // Elsewhere it is a note to the reader.
				finding.Detail = "tidy:" + a.rule + " excuses nothing"
			default:
				continue
			}
			found = append(found, finding)
		}
	}
	return found
}
