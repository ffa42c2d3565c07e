package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/golden"
)

// script is a job that runs shell words.
func script(name, words string, tests bool) job {
	return job{name: name, argv: []string{"sh", "-c", words}, tests: tests, limit: time.Minute}
}

func line(action, pkg, test, output string) string {
	return fmt.Sprintf(`{"Action":%q,"Package":%q,"Test":%q,"Output":%q}`, action, pkg, test, output) + "\n"
}

var events = line("output", "p", "TestA", "    a_test.go:3: wrong\\n") +
	line("fail", "p", "TestA/one", "") +
	line("pass", "p", "TestA/two", "") +
	line("fail", "p", "TestA", "") +
	line("output", "p", "TestB", "    b_test.go:7: no etcdctl here\n") +
	line("skip", "p", "TestB", "") +
	line("pass", "p", "TestC/x", "") +
	line("pass", "p", "TestC", "") +
	line("fail", "p", "", "") +
	"not json\n" +
	line("output", "q", "", "panic: boom\n") +
	line("fail", "q", "", "") +
	`{"Action":"build-output","ImportPath":"r [r.test]","Output":"r.go:1: undefined: x\n"}` + "\n" +
	line("fail", "r", "", "") +
	line("skip", "empty", "", "")

func TestCasesAreCountedOnceAndPackagesOnlyWhenNothingInThemFailed(t *testing.T) {
	var log bytes.Buffer
	r := newResults(&log)
	for i := range len(events) { // In the worst of pieces.
		if _, err := r.Write([]byte{events[i]}); err != nil {
			t.Fatal(err)
		}
	}
	var o outcome
	r.count(&o)
	if o.passed != 2 || o.failed != 3 || o.skipped != 1 {
		t.Errorf("%d passed, %d failed, %d skipped", o.passed, o.failed, o.skipped)
	}
	if o.failures[0].name != "p.TestA/one" || o.failures[1].name != "q" || o.failures[1].text != "panic: boom\n" ||
		o.failures[2].text != "r.go:1: undefined: x\n" {
		t.Errorf("failures %q", o.failures)
	}
	if o.skips[0] != (remark{"p.TestB", "no etcdctl here"}) {
		t.Errorf("skips %q", o.skips)
	}
	if !strings.Contains(log.String(), "not json\n") {
		t.Errorf("log is %q", log.String())
	}
}

func TestWhatDidNotEndFailed(t *testing.T) {
	words := line("run", "p", "TestA", "") + line("fail", "p", "TestA", "") +
		line("run", "p", "TestB", "") + line("run", "p", "TestB/one", "") + line("pass", "p", "TestB/one", "") +
		line("run", "p", "TestB/two", "") + line("output", "p", "TestB/two", "panic: test timed out\n") +
		line("fail", "p", "", "")
	r := newResults(&bytes.Buffer{})
	if _, err := r.Write([]byte(words)); err != nil {
		t.Fatal(err)
	}
	var o outcome
	r.count(&o)
	if o.passed != 1 || o.failed != 2 || o.failures[0].name != "p.TestB/two" || o.failures[0].text != "it did not end\npanic: test timed out\n" {
		t.Errorf("%+v", o)
	}
}

func TestTheReportIsAsPeopleAndMachinesReadIt(t *testing.T) {
	all := []suite{
		{name: "good", jobs: fixed(script("a", "true", false), script("b", "echo fine", false))},
		{name: "bad", jobs: fixed(script("c", "echo why; exit 3", false))},
		{name: "tests", jobs: fixed(script("d", "printf '%s' '"+events+"'; exit 1", true))},
		{name: "broken", jobs: fixed(script("e", "echo does not compile >&2; exit 1", true))},
		{name: "absent", home: "no/such/folder", jobs: fixed()},
	}
	for _, requireAll := range []bool{false, true} {
		r := report{requireAll: requireAll}
		var b strings.Builder
		for _, s := range all {
			o := s.run(context.Background(), filepath.Join(t.TempDir(), "log"))
			o.took = 1500 * time.Millisecond
			r.add(o)
			b.WriteString(r.last())
		}
		golden.File(t, fmt.Sprintf("testdata/report-%v.txt", requireAll), b.String()+r.table())
	}
}

func TestACommandThatHangsIsEndedWithItsChildren(t *testing.T) {
	j := script("hang", "sleep 60 & sleep 60", false)
	j.limit = 50 * time.Millisecond
	var o outcome
	start := time.Now()
	j.run(context.Background(), &bytes.Buffer{}, &o)
	if o.failed != 1 || !strings.Contains(o.failures[0].text, "stopped after") || time.Since(start) >= killDelay {
		t.Errorf("%+v after %v", o, time.Since(start))
	}
}

func TestJobsOfTwoLanesRunBesideEachOther(t *testing.T) {
	meet := filepath.Join(t.TempDir(), "meet")
	if err := syscall.Mkfifo(meet, 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	s := suite{name: "s", lanes: 2, jobs: fixed(script("reads", "echo begin; cat "+meet, false), script("writes", "echo words > "+meet, false), script("fails", "exit 2", false))}
	o := s.run(context.Background(), log)
	if o.passed != 2 || o.failed != 1 || o.failures[0].name != "fails" {
		t.Errorf("%+v", o)
	}
	b, err := os.ReadFile(log)
	if err != nil || strings.Count(string(b), "== ") != 3 || !strings.Contains(string(b), "begin\nwords\n") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestFuzzTargetsAreFoundInTheSource(t *testing.T) {
	source := "package x\n\n// func FuzzNot(f *testing.F)\nfunc FuzzA(f *testing.F) {\n}\n\nfunc FuzzyB(t *testing.T) {\n}\nfunc FuzzC(fz *testing.F) {\n}\n"
	var names []string
	for _, j := range fuzzJobs("m/x", []byte(source), time.Second) {
		names = append(names, j.name)
	}
	if got := strings.Join(names, " "); got != "m/x.FuzzA m/x.FuzzC" {
		t.Errorf("found %s", got)
	}
}

func TestSuitesAreChosenByName(t *testing.T) {
	all := suites(time.Second)
	chosen, err := choose(all, "race,unit")
	if err != nil || len(chosen) != 2 || chosen[0].name != "race" {
		t.Errorf("%v, %v", chosen, err)
	}
	if _, err := choose(all, "none"); err == nil {
		t.Error("an unknown suite was taken")
	}
}
