package tidy

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// pattern is something that no text may hold.
type pattern struct {
	what string
	is   *regexp.Regexp
}

// The patterns are written so that they do not find themselves.
var patterns = []pattern{
	{"the path of somebody's machine", regexp.MustCompile(`(^|[\s"'(=:])/(root|work|home|Users)/[\w.]`)},
	{"a folder outside the repository", regexp.MustCompile(`\.\./[s]hared\b`)},
	{"the host of a package registry", regexp.MustCompile(`\b(proxy|sum)\.golang\.[o]rg\b|\bregistry\.npmjs\.[o]rg\b|\bpypi\.[o]rg\b|\bGOPROXY\s*=\s*["']?[h]ttp|\bdeb\.debian\.[o]rg\b|\b(artifactory|nexus)\.[\w-]+\.\w+`)},
}

func checkTexts(t *Tree, found report) {
	for _, p := range t.paths {
		if path.Base(p) == "go.sum" {
			continue
		}
		for i, line := range strings.Split(t.texts[p], "\n") {
			for _, x := range patterns {
				if x.is.MatchString(line) {
					found(p, i+1, x.what)
				}
			}
		}
	}
}

var formatPage = regexp.MustCompile(`docs/format/[\w-]+\.md`)

// checkFormats goes from each format.go to the other parts of its format.
func checkFormats(t *Tree, found report) {
	for _, p := range t.paths {
		if path.Base(p) != "format.go" {
			continue
		}
		dir := path.Dir(p)
		if !slices.ContainsFunc(t.paths, func(other string) bool { return strings.HasPrefix(other, dir+"/testdata/v1/") }) {
			found(p, 1, "no golden bytes in "+dir+"/testdata/v1")
		}
		pages := t.pagesOf(dir)
		if len(pages) == 0 {
			found(p, 1, "no file of the package names its docs/format page")
		}
		for _, page := range pages {
			if _, ok := t.texts[page]; !ok {
				found(p, 1, "no "+page)
			}
		}
	}
}

func (t *Tree) pagesOf(dir string) []string {
	var pages []string
	for _, p := range t.paths {
		if path.Dir(p) == dir && strings.HasSuffix(p, ".go") {
			pages = append(pages, formatPage.FindAllString(t.texts[p], -1)...)
		}
	}
	slices.Sort(pages)
	return slices.Compact(pages)
}

var (
	testNamed   = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`")
	testDefined = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w+)\(`)
)

// checkNamedTests looks up the tests that documents call as witnesses.
func checkNamedTests(t *Tree, found report) {
	defined := map[string]bool{}
	for _, p := range t.paths {
		if strings.HasSuffix(p, "_test.go") {
			for _, m := range testDefined.FindAllStringSubmatch(t.texts[p], -1) {
				defined[m[1]] = true
			}
		}
	}
	for _, p := range t.paths {
		if !strings.HasSuffix(p, ".md") {
			continue
		}
		for i, line := range strings.Split(t.texts[p], "\n") {
			for _, m := range testNamed.FindAllStringSubmatch(line, -1) {
				if !defined[m[1]] {
					found(p, i+1, m[1])
				}
			}
		}
	}
}

var required = regexp.MustCompile(`^(?:require )?\s*([\w.-]+\.[\w.-]+/\S+) v\S+$`)

const page = "docs/decisions/dependencies.md"

// checkDependencies wants a row for each module that go.mod requires directly.
func checkDependencies(t *Tree, found report) {
	for i, line := range strings.Split(t.texts["go.mod"], "\n") {
		if m := required.FindStringSubmatch(line); m != nil && !strings.Contains(t.texts[page], "| "+m[1]+" |") {
			found("go.mod", i+1, m[1]+" has no row in "+page)
		}
	}
}
