package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// plant is a deliberate mistake: a patch with a head that says what it is.
type plant struct {
	name     string
	path     string   // Of the patch.
	imitates string   // The mistake of somebody, or the rule that it breaks.
	suites   []string // Expected to notice, the quickest first.
	packages []string // That the patch changes: they must compile.
}

const (
	folder    = "tests/plants"
	suffix    = ".patch"
	headEnd   = "---\n" // On a line of its own, before the patch.
	headMax   = 8       // Lines.
	imitates  = "Imitates: "
	caughtBy  = "Suites: "
	patchMark = "+++ b/"
)

// loadPlants reads all patches below a tree, by name.
func loadPlants(root string) ([]plant, error) {
	paths, err := filepath.Glob(filepath.Join(root, folder, "*"+suffix))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	var plants []plant
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		p, err := parsePlant(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		p.name, p.path = strings.TrimSuffix(filepath.Base(path), suffix), path
		plants = append(plants, p)
	}
	return plants, nil
}

// parsePlant reads the head of a patch and the files that it changes.
func parsePlant(text string) (plant, error) {
	var p plant
	head, patch, ok := strings.Cut(text, headEnd)
	if !ok || strings.Count(head, "\n") > headMax {
		return p, fmt.Errorf("no head that ends in %q within %d lines", strings.TrimSpace(headEnd), headMax)
	}
	for line := range strings.Lines(head) {
		if rest, ok := strings.CutPrefix(line, imitates); ok {
			p.imitates = strings.TrimSpace(rest)
		}
		if rest, ok := strings.CutPrefix(line, caughtBy); ok {
			p.suites = strings.Fields(rest)
		}
	}
	for line := range strings.Lines(patch) {
		file, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), patchMark)
		if !ok {
			continue
		}
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "tests/") {
			return p, fmt.Errorf("changes %s: a plant must leave the tests alone", file)
		}
		if dir := "./" + filepath.Dir(file); !slices.Contains(p.packages, dir) {
			p.packages = append(p.packages, dir)
		}
	}
	switch {
	case p.imitates == "":
		return p, fmt.Errorf("the head has no %q", imitates)
	case len(p.suites) == 0:
		return p, fmt.Errorf("the head has no %q", caughtBy)
	case len(p.packages) == 0:
		return p, fmt.Errorf("the patch changes nothing")
	}
	for _, name := range p.suites {
		if !slices.ContainsFunc(suites, func(s suite) bool { return s.name == name }) {
			return p, fmt.Errorf("no suite is called %q: there are %s", name, suiteNames())
		}
	}
	return p, nil
}
