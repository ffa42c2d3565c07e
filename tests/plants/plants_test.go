package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const plantsMin = 30

func TestEveryPlantAppliesToThisTree(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	plants, err := loadPlants(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(plants) < plantsMin {
		t.Errorf("%d plants, want %d", len(plants), plantsMin)
	}
	g := &garden{root: root, dir: root, log: io.Discard}
	for i := range plants {
		if err := g.apply(t.Context(), &plants[i], "--check"); err != nil {
			t.Error(err)
		}
	}
}

func TestAHeadThatSaysTooLittleIsRefused(t *testing.T) {
	good := "Imitates: etcd 1\nSuites: wal sim\n---\ndiff\n+++ b/mvcc/a.go\n+++ b/mvcc/b.go\n"
	p, err := parsePlant(good)
	if err != nil || len(p.packages) != 1 || p.packages[0] != "./mvcc" || strings.Join(p.suites, " ") != "wal sim" {
		t.Fatalf("%+v, %v", p, err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"no head":          {"diff --git\n", "no head"},
		"no reason":        {strings.Replace(good, "Imitates: etcd 1\n", "", 1), "Imitates"},
		"no suites":        {strings.Replace(good, "Suites: wal sim\n", "", 1), "Suites"},
		"an unknown suite": {strings.Replace(good, "sim", "simm", 1), "there are raftnode"},
		"no change":        {strings.ReplaceAll(good, "+++ b/", "+++ c/"), "changes nothing"},
		"a change of test": {strings.Replace(good, "b.go", "b_test.go", 1), "leave the tests alone"},
	} {
		if _, err := parsePlant(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A tree of one file: a plant that its test sees, and one that it does not.
func TestPlantsAreCaughtOrEscape(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module x\n\ngo 1.26\n")
	write("a/a.go", "package a\n\nfunc Two() int { return 2 }\n\nfunc Seven() int { return 7 }\n")
	write("a/a_test.go", "package a\n\nimport \"testing\"\n\nfunc TestTwo(t *testing.T) {\n\tif Two() != 2 {\n\t\tt.Error(\"seed 77\")\n\t}\n}\n")
	patch := func(from, to string) string {
		return "Imitates: nobody\nSuites: wal\n---\n--- a/a/a.go\n+++ b/a/a.go\n@@ -1,5 +1,5 @@\n package a\n \n" +
			strings.Replace(" func Two() int { return 2 }\n \n func Seven() int { return 7 }\n", " "+from, "-"+from+"+"+to, 1)
	}
	write(folder+"/caught.patch", patch("func Two() int { return 2 }\n", "func Two() int { return 3 }\n"))
	write(folder+"/escapes.patch", patch("func Seven() int { return 7 }\n", "func Seven() int { return 8 }\n"))
	write(folder+"/misprint.patch", patch("func Two() int { return 2 }\n", "func Two() int { return x }\n"))
	write(folder+"/old.patch", strings.ReplaceAll(patch("func Two() int { return 2 }\n", "func Two() int { return 3 }\n"), "Two", "Three"))
	plants, err := loadPlants(root)
	if err != nil {
		t.Fatal(err)
	}
	g := &garden{root: root, dir: root, log: io.Discard}
	only := suite{"wal", "a", []string{"go", "test", "-count=1", "./a"}, time.Minute}
	v, err := g.run(t.Context(), only)
	if err != nil || v.failed {
		t.Fatalf("without a plant: %+v, %v", v, err)
	}
	try := func(name string) (verdict, error) {
		for i := range plants {
			p := &plants[i]
			if p.name != name {
				continue
			}
			if err := g.apply(t.Context(), p); err != nil {
				return verdict{}, err
			}
			defer func() {
				if err := g.apply(context.Background(), p, "--reverse"); err != nil {
					t.Error(err)
				}
			}()
			if err := g.compile(t.Context(), p); err != nil {
				return verdict{}, err
			}
			return g.run(t.Context(), only)
		}
		t.Fatalf("no plant %s", name)
		return verdict{}, nil
	}
	if v, err := try("caught"); err != nil || !v.failed || v.first != "TestTwo" || v.seed != "77" {
		t.Errorf("caught: %+v, %v", v, err)
	}
	if v, err := try("escapes"); err != nil || v.failed {
		t.Errorf("escapes: %+v, %v", v, err)
	}
	if _, err := try("misprint"); err == nil || !strings.Contains(err.Error(), "does not compile") {
		t.Errorf("misprint: %v", err)
	}
	if _, err := try("old"); err == nil || !strings.Contains(err.Error(), "does not apply") {
		t.Errorf("old: %v", err)
	}
}

func TestPlantsAreChosenByNameAndInTurn(t *testing.T) {
	all := []plant{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}, {name: "e"}}
	names := func(o options) string {
		t.Helper()
		chosen, err := o.choose(t.Context(), all)
		if err != nil {
			return err.Error()
		}
		var list []string
		for _, p := range chosen {
			list = append(list, p.name)
		}
		return strings.Join(list, "")
	}
	for want, o := range map[string]options{
		"abcde": {of: 1}, "ad": {of: 3}, "be": {of: 3, rotate: 1}, "c": {of: 3, rotate: 5}, "db": {of: 1, run: "d,b"},
	} {
		if got := names(o); got != want {
			t.Errorf("%+v: %s", o, got)
		}
	}
	for want, o := range map[string]options{
		"there are a, b": {of: 1, run: "x"}, "below 1": {}, "there are raftnode": {of: 1, only: "simm"},
	} {
		if got := names(o); !strings.Contains(got, want) {
			t.Errorf("%+v: %s", o, got)
		}
	}
}
