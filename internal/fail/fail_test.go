package fail

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// uses finds the places in some sources: calls of fail.Here and fail.Skip.
func uses(t *testing.T, sources map[string]string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	fset := token.NewFileSet()
	for path, text := range sources {
		var source any
		if text != "" {
			source = text
		}
		file, err := parser.ParseFile(fset, path, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); !ok || x.Name != "fail" || sel.Sel.Name != "Here" && sel.Sel.Name != "Skip" {
				return true
			}
			name := ""
			if len(call.Args) == 1 {
				if literal, ok := call.Args[0].(*ast.BasicLit); ok {
					name, _ = strconv.Unquote(literal.Value)
				}
			}
			found[name] = append(found[name], sel.Sel.Name+" "+fset.Position(call.Pos()).String())
			return true
		})
	}
	return found
}

// complaints compares places with a table.
func complaints(points []Point, found map[string][]string) []string {
	var all []string
	listed := map[string]bool{}
	for _, p := range points {
		if listed[p.Name] {
			all = append(all, p.Name+" is listed twice")
		}
		listed[p.Name] = true
		if p.About == "" || strings.Count(p.Name, "/") < 1 {
			all = append(all, p.Name+" says too little")
		}
		places := found[p.Name]
		want := "Here "
		if p.Skips {
			want = "Skip "
		}
		switch {
		case len(places) == 0:
			all = append(all, p.Name+" is listed and nowhere in the code")
		case len(places) > 1:
			all = append(all, p.Name+" is in several places: "+strings.Join(places, ", "))
		case !strings.HasPrefix(places[0], want):
			all = append(all, p.Name+" should be asked by "+want+"at "+places[0])
		}
	}
	for name, places := range found {
		if !listed[name] {
			all = append(all, strconv.Quote(name)+" is not listed, or no literal: "+strings.Join(places, ", "))
		}
	}
	return all
}

func TestEachNameIsInTheTableOnceAndInTheCodeOnce(t *testing.T) {
	const root = "../.."
	sources := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == ".cache" || d.Name() == "tests" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			sources[path] = ""
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range complaints(table, uses(t, sources)) {
		t.Error(c)
	}
}

func TestWhatIsWrongWithNamesIsFound(t *testing.T) {
	points := []Point{
		{Name: "a/good", About: "x"}, {Name: "a/unused", About: "x"}, {Name: "a/twice", About: "x"},
		{Name: "a/asked", About: "x", Skips: true}, {Name: "a/good", About: "x"},
	}
	found := uses(t, map[string]string{"a.go": `package a
func f() {
	fail.Here("a/good")
	fail.Here("a/twice")
	fail.Here("a/twice")
	fail.Here("a/asked")
	fail.Here("a/unlisted")
	fail.Here(name)
}`})
	got := strings.Join(complaints(points, found), "\n")
	for _, want := range []string{
		"a/good is listed twice", "a/unused is listed and nowhere", "a/twice is in several places", "a/asked should be asked by Skip",
		`"a/unlisted" is not listed`, `"" is not listed, or no literal`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("nothing says %q:\n%s", want, got)
		}
	}
}
