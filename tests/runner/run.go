package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	tailLines = 40               // Of a failed case are shown; the log has all.
	killDelay = 10 * time.Second // For the command's own children to let go of its output.
)

// run runs one command and counts its cases.
func (j job) run(ctx context.Context, log io.Writer, o *outcome) {
	ctx, cancel := context.WithTimeout(ctx, j.limit)
	defer cancel()
	fmt.Fprintf(log, "== %s: %s\n", j.name, strings.Join(j.argv, " "))
	cmd := exec.CommandContext(ctx, j.argv[0], j.argv[1:]...)
	cmd.Dir = j.dir
	// A group of its own, so that what the command started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killDelay

	all := &bytes.Buffer{}
	results := newResults(log)
	out := io.MultiWriter(log, all)
	if j.tests {
		out = io.MultiWriter(results, all)
	}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("stopped after %v: %w", j.limit, ctx.Err())
	}
	if j.fuzz != 0 {
		err = j.judge(all.String(), err, o)
	}
	before := o.failed
	if j.tests {
		results.count(o)
	}
	switch {
	case err != nil && (!j.tests || o.failed == before):
		o.fail(j.name, fmt.Sprintf("%v\n%s", err, tail(all.String())))
	case err == nil && !j.tests:
		o.passed++
	}
}

// tail is the end of a command's output.
func tail(text string) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "")
}

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string // Of build output: the package, perhaps with its test in brackets.
}

// key names a test of a package, or the package itself.
type key struct{ pkg, test string }

// results reads the events of go test and writes what the tests printed to
// the log.
type results struct {
	log     io.Writer
	partial bytes.Buffer
	begun   []key
	order   []key
	ended   map[key]string
	output  map[key]*strings.Builder
	parents map[key]bool
}

func newResults(log io.Writer) *results {
	return &results{log: log, ended: map[key]string{}, output: map[key]*strings.Builder{}, parents: map[key]bool{}}
}

// Write takes output in any pieces.
func (r *results) Write(p []byte) (int, error) {
	r.partial.Write(p)
	for {
		line, err := r.partial.ReadBytes('\n')
		if err != nil {
			r.partial.Write(line)
			return len(p), nil
		}
		r.take(line)
	}
}

func (r *results) take(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		_, _ = r.log.Write(line) // Compiler's words, or make's.
		return
	}
	if e.Action == "build-output" {
		e.Package, _, _ = strings.Cut(e.ImportPath, " ")
		e.Action = "output"
	}
	k := key{e.Package, e.Test}
	switch e.Action {
	case "output":
		_, _ = io.WriteString(r.log, e.Output)
		if r.output[k] == nil {
			r.output[k] = &strings.Builder{}
		}
		r.output[k].WriteString(e.Output)
	case "run":
		r.begun = append(r.begun, k)
	case "pass", "fail", "skip":
		r.order = append(r.order, k)
		r.ended[k] = e.Action
		if at := strings.LastIndex(e.Test, "/"); at > 0 {
			r.parents[key{e.Package, e.Test[:at]}] = true
		}
	}
}

var logged = regexp.MustCompile(`(?m)^\s+\S+\.go:\d+: (.*)$`)

// count adds what ran to an outcome: tests without parts, and parents and
// packages only where they failed by themselves.
func (r *results) count(o *outcome) {
	failedBelow := map[key]bool{}
	r.countUnended(o, failedBelow)
	for _, k := range r.order { // Parts end before their parents.
		action := r.ended[k]
		if action == "fail" && !failedBelow[k] {
			o.fail(strings.TrimSuffix(k.pkg+"."+k.test, "."), tail(r.text(k)))
		}
		if action == "fail" {
			failsAbove(failedBelow, k)
		}
		if k.test == "" || r.parents[k] {
			continue
		}
		switch action {
		case "pass":
			o.passed++
		case "skip":
			o.skip(k.pkg+"."+k.test, r.reason(k))
		}
	}
}

// countUnended counts the tests that began and did not end, because of which go
// test, at the end of its time, says nothing but that the package failed.
func (r *results) countUnended(o *outcome, failedBelow map[key]bool) {
	for _, k := range slices.Backward(r.begun) { // Parts begin after their parents.
		if _, ok := r.ended[k]; ok {
			continue
		}
		if !failedBelow[k] {
			o.fail(k.pkg+"."+k.test, "it did not end\n"+tail(r.text(k)))
		}
		failsAbove(failedBelow, k)
	}
}

// failsAbove notes that the parent of a test and its package fail because of it.
func failsAbove(failed map[key]bool, k key) {
	failed[key{k.pkg, ""}] = true
	if at := strings.LastIndex(k.test, "/"); at > 0 {
		failed[key{k.pkg, k.test[:at]}] = true
	}
}

func (r *results) text(k key) string {
	if b := r.output[k]; b != nil {
		return b.String()
	}
	return "the log says more\n"
}

func (r *results) reason(k key) string {
	found := logged.FindAllStringSubmatch(r.text(k), -1)
	if len(found) == 0 {
		return "no reason given"
	}
	return found[len(found)-1][1]
}
