package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

const fuzzBegin = "fuzz: elapsed: 0s, gathering baseline coverage: 0/12 completed\n" +
	"fuzz: elapsed: 0s, gathering baseline coverage: 12/12 completed, now fuzzing with 2 workers\n" +
	"fuzz: elapsed: 3s, execs: 40304 (13431/sec), new interesting: 4 (total: 16)\n" +
	"fuzz: elapsed: 5s, execs: 40900 (292/sec), new interesting: 4 (total: 16)\n"

const fuzzLate = "--- FAIL: FuzzSegment (5.10s)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\tm/mvcc/history\t5.142s\nFAIL\n"

func TestOnlyTheClockOfGoTestIsForgiven(t *testing.T) {
	crash := "--- FAIL: FuzzSegment (5.10s)\n    --- FAIL: FuzzSegment (0.00s)\n        a_test.go:1: wrong\n    \n" +
		"    Failing input written to testdata/fuzz/FuzzSegment/0123\nFAIL\nexit status 1\nFAIL\tm/x\t5.142s\nFAIL\n"
	for name, c := range map[string]struct {
		output string
		want   bool
	}{
		"the clock":              {fuzzBegin + fuzzLate, true},
		"before its time":        {fuzzBegin + strings.Replace(fuzzLate, "5.10s", "4.99s", 1), false},
		"a failing input":        {fuzzBegin + crash, false},
		"both":                   {fuzzBegin + strings.Replace(fuzzLate, "FAIL\nexit", "    Failing input written to x\nFAIL\nexit", 1), false},
		"words before it":        {fuzzBegin + "panic: no\n" + fuzzLate, false},
		"words in it":            {fuzzBegin + strings.Replace(fuzzLate, "exceeded", "exceeded: read", 1), false},
		"another exit status":    {fuzzBegin + strings.Replace(fuzzLate, "status 1", "status 2", 1), false},
		"words after it":         {fuzzBegin + fuzzLate + "panic: no\n", false},
		"a test's own deadline":  {fuzzBegin + strings.Replace(fuzzLate, "    context", "    a_test.go:3: context", 1), false},
		"something else at all":  {"x.go:1: does not compile\n", false},
		"an end without a trace": {"", false},
	} {
		if got := outOfTime(c.output, 5*time.Second); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestExecutionsAreCountedAndTooFewAreAFailure(t *testing.T) {
	var o outcome
	for _, c := range []struct {
		words string
		want  string
	}{
		{"printf '" + fuzzBegin + "'; echo PASS", ""},
		{"printf '" + fuzzBegin + fuzzLate + "'; exit 1", ""},
		{"printf 'fuzz: elapsed: 5s, execs: 99 (2/sec), new interesting: 0 (total: 1)\n'", "ran 99 times"},
		{"echo PASS", "ran 0 times"},
		{"printf '" + fuzzBegin + "'; echo panic; exit 2", "exit status 2"},
	} {
		j := script("fuzz", c.words, false)
		j.fuzz = 5 * time.Second
		failures := len(o.failures)
		j.run(context.Background(), &bytes.Buffer{}, &o)
		said := ""
		for _, f := range o.failures[failures:] {
			said += f.text
		}
		if (said == "") != (c.want == "") || !strings.Contains(said, c.want) {
			t.Errorf("%s: %q, want %q", c.words, said, c.want)
		}
	}
	if o.executions != 3*40900+99 || o.targets != 5 || o.passed != 2 {
		t.Errorf("%+v", o)
	}
	r := report{}
	r.add(o)
	if !strings.Contains(r.table(), "122799 executions of 5 targets") {
		t.Error(r.table())
	}
}
