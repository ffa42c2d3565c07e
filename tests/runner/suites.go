package main

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	stepLimit  = 5 * time.Minute // A command that is one case: a check, a fuzz target, the demo.
	suiteLimit = 40 * time.Minute
)

// suite is a group of jobs with one row in the table.
type suite struct {
	name string
	home string // A folder without which the suite cannot run.
	jobs func(ctx context.Context) ([]job, error)

	// lanes run jobs beside each other: those of which much is one processor's work. 0: one.
	lanes int
}

// job is one command.
type job struct {
	name  string
	argv  []string
	dir   string
	tests bool // Its output is that of go test -json; otherwise it is one case.
	limit time.Duration
	fuzz  time.Duration // Of a fuzz target: its time.
}

func step(target string) job {
	return job{name: target, argv: []string{"make", "-s", target}, limit: stepLimit}
}

// goTests runs a target of the Makefile that ends in go test.
func goTests(target string) job {
	return job{name: target, argv: []string{"make", "-s", target, "TESTFLAGS=-json"}, tests: true, limit: suiteLimit}
}

func fixed(jobs ...job) func(context.Context) ([]job, error) {
	return func(context.Context) ([]job, error) { return jobs, nil }
}

func suites(fuzzTime time.Duration) []suite {
	return []suite{
		{name: "check", jobs: fixed(step("format"), step("vet"), step("tidy"), step("staticcheck"))},
		{name: "unit", jobs: fixed(goTests("unit"))},
		{name: "race", jobs: fixed(goTests("race"))},
		{name: "modules", jobs: modules},
		{name: "compat", home: "tests/compat", jobs: fixed(goTests("compat"))},
		{name: "dr", home: "tests/dr", jobs: fixed(goTests("dr"))},
		{name: "crash", home: "tests/crash", jobs: fixed(goTests("crash"))},
		{name: "sim", home: "tests/sim", jobs: fixed(simulation...)},
		{name: "linear", home: "tests/linear", jobs: fixed(goTests("linear"))},
		{name: "failpoints", home: "tests/failpoints", jobs: fixed(goTests("failpoints"))},
		{name: "plants", home: "tests/plants", jobs: fixed(long("plants"))},
		{name: "fuzz", jobs: func(ctx context.Context) ([]job, error) { return fuzz(ctx, fuzzTime) }, lanes: 2},
		{name: "kube", home: "tests/kube", jobs: fixed(goTests("kube"))},
		{name: "demo", home: "tests/demo", jobs: fixed(step("demo"))},
	}
}

// simulation is many seeds, and what is claimed of all of them.
var simulation = []job{
	{name: "same", argv: []string{"go", "test", "-json", "-short", "-count=1", "./tests/sim/..."}, tests: true, limit: suiteLimit},
	long("sim"),
}

// long is one case that takes its time.
func long(target string) job {
	return job{name: target, argv: []string{"make", "-s", target}, limit: suiteLimit}
}

// modules are the nested modules that no suite of its own runs.
func modules(context.Context) ([]job, error) {
	var jobs []job
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", ".cache", "compat"}, d.Name()) {
			return filepath.SkipDir
		}
		if dir := filepath.Dir(name); d.Name() == "go.mod" && dir != "." {
			argv := []string{"go", "test", "-json", "-short", "./..."}
			jobs = append(jobs, job{name: dir, argv: argv, dir: dir, tests: true, limit: suiteLimit})
		}
		return nil
	})
	return jobs, err
}

// run runs a suite to its end, whatever fails in it.
func (s suite) run(ctx context.Context, logName string) outcome {
	start := time.Now()
	o := outcome{suite: s.name}
	if s.home != "" {
		if _, err := os.Stat(s.home); err != nil {
			o.skip(s.name, s.home+" is not in this tree")
			return o
		}
	}
	log, err := os.Create(logName)
	if err != nil {
		o.fail(s.name, err.Error())
		return o
	}
	defer log.Close()
	jobs, err := s.jobs(ctx)
	if err != nil {
		o.fail(s.name, err.Error())
	}
	s.runAll(ctx, jobs, log, &o)
	o.took = time.Since(start)
	return o
}

// runAll runs jobs in lanes. What one of several prints is logged when it has ended.
func (s suite) runAll(ctx context.Context, jobs []job, log io.Writer, o *outcome) {
	queue := make(chan job, len(jobs))
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	var mu sync.Mutex // Guards log and o where there are several.
	var all sync.WaitGroup
	for range max(1, s.lanes) {
		all.Go(func() {
			for j := range queue {
				var printed bytes.Buffer
				out := log
				if s.lanes > 1 {
					out = &printed
				}
				part := outcome{}
				j.run(ctx, out, &part)
				mu.Lock()
				_, _ = printed.WriteTo(log)
				o.merge(part)
				mu.Unlock()
			}
		})
	}
	all.Wait()
}
