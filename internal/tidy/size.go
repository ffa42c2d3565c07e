package tidy

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
)

const (
	fileLinesMax     = 600
	functionLinesMax = 70
	complexityMax    = 15
)

func checkFileLines(t *Tree, found report) {
	for _, f := range t.files {
		if f.lines > fileLinesMax {
			found(f.path, 1, fmt.Sprintf("%d lines", f.lines))
		}
	}
}

// eachFunction calls fn for each function that has a body.
func eachFunction(f *file, fn func(d *ast.FuncDecl)) {
	for _, d := range f.syntax.Decls {
		if d, ok := d.(*ast.FuncDecl); ok && d.Body != nil {
			fn(d)
		}
	}
}

func checkFunctionLines(t *Tree, found report) {
	for _, f := range t.files {
		eachFunction(f, func(d *ast.FuncDecl) {
			from, to := t.line(d.Pos()), t.line(d.End())
			if n := to - from + 1; n > functionLinesMax {
				found(f.path, from, fmt.Sprintf("%s has %d lines", d.Name.Name, n))
			}
		})
	}
}

// checkComplexity leaves tests out: a row of "if err != nil" in a test is not
// what is hard about it.
func checkComplexity(t *Tree, found report) {
	for _, f := range t.files {
		if f.test {
			continue
		}
		eachFunction(f, func(d *ast.FuncDecl) {
			if n := complexity(d); n > complexityMax {
				found(f.path, t.line(d.Pos()), fmt.Sprintf("%s has complexity %d", d.Name.Name, n))
			}
		})
	}
}

// complexity is one more than the number of decisions.
func complexity(d *ast.FuncDecl) int {
	n := 1
	ast.Inspect(d, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			n++
		case *ast.CaseClause:
			if node.List != nil {
				n++
			}
		case *ast.CommClause:
			if node.Comm != nil {
				n++
			}
		case *ast.BinaryExpr:
			if node.Op == token.LAND || node.Op == token.LOR {
				n++
			}
		}
		return true
	})
	return n
}

// checkComments wants a comment on the package clause of one file of each
// package, beginning as godoc shows it.
func checkComments(t *Tree, found report) {
	first, documented := map[string]*file{}, map[string]bool{}
	var dirs []string
	for _, f := range t.files {
		if strings.HasSuffix(f.path, "_test.go") {
			continue
		}
		if first[f.dir] == nil {
			first[f.dir] = f
			dirs = append(dirs, f.dir)
		}
		if doc := f.syntax.Doc.Text(); strings.HasPrefix(doc, wantComment(f)) {
			documented[f.dir] = true
		}
	}
	for _, dir := range dirs {
		if f := first[dir]; !documented[dir] {
			found(f.path, t.line(f.syntax.Package), fmt.Sprintf("no package comment that begins with %q", wantComment(f)))
		}
	}
}

func wantComment(f *file) string {
	if f.syntax.Name.Name == "main" {
		return "Command " + path.Base(f.dir) + " "
	}
	return "Package " + f.syntax.Name.Name + " "
}

func checkNouns(t *Tree, found report) {
	empty := []string{"util", "utils", "common", "helper", "helpers", "manager", "misc", "shared"}
	seen := map[string]bool{}
	for _, f := range t.files {
		if name := path.Base(f.dir); slices.Contains(empty, name) && !seen[f.dir] {
			seen[f.dir] = true
			found(f.path, 1, "package "+name)
		}
	}
}
