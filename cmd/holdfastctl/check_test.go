package main

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/server"
)

// small is a load that takes no time.
var small = checkLoad{clients: 5, rate: 200, duration: 200 * time.Millisecond, keyBytes: 16, valBytes: 32}

func checker(tt *terminalTest) (*ctl, *screen) {
	out := &screen{}
	c := &ctl{out: out, err: &screen{}, dial: tt.dial}
	c.globals.endpoints, c.globals.commandTimeout = []string{memberURL}, time.Minute
	return c, out
}

func TestCheckPerfJudgesAndLeavesNothing(t *testing.T) {
	tt := newTerminal(t, nil)
	tt.must("put", "beside", "1")
	c, out := checker(tt)
	// What is judged here is the lines: a busy machine may be slow.
	err := c.checkPerf(t.Context(), &checkFlags{prefix: "p/", autoCompact: true, autoDefrag: true}, small)
	want := regexp.MustCompile(`^Compacting with revision \d+\nCompacted with revision \d+\nDefragmenting "http://m0.test:2379"\nDefragmented "http://m0.test:2379"\n` +
		`(PASS: Throughput is \d+ writes/s|FAIL: Throughput too low: \d+ writes/s)\n(PASS: Slowest request took|Slowest request took too long:) \d\.\d+s\n(PASS: Stddev is|Stddev too high:) \d\.\d+s\n(PASS|FAIL)\n$`)
	m := want.FindStringSubmatch(out.String())
	if m == nil || (m[4] == "PASS") != (err == nil) {
		t.Errorf("%v\n%s", err, out)
	}
	if got := tt.must("get", "", "--prefix", "--keys-only"); got != "beside\n\n" {
		t.Errorf("left: %q", got)
	}
}

// A server that is slower than the load wants fails, in both senses.
func TestCheckPerfFailsWhereTheRateIsNotReached(t *testing.T) {
	tt := newTerminal(t, nil)
	c, out := checker(tt)
	load := small
	load.rate, load.clients = 1_000_000, 1
	err := c.checkPerf(t.Context(), &checkFlags{prefix: "p/"}, load)
	if err == nil || !strings.Contains(out.String(), "FAIL: Throughput too low") || !strings.HasSuffix(out.String(), "\nFAIL\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAnInterruptedCheckCleansUp(t *testing.T) {
	tt := newTerminal(t, nil)
	c, _ := checker(tt)
	load := small
	load.duration = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.checkPerf(ctx, &checkFlags{prefix: "p/"}, load) }()
	for tt.must("get", "p/", "--prefix", "--limit", "1") == "" {
	}
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("%v", err)
	}
	if got := tt.must("get", "p/", "--prefix", "--keys-only"); got != "" {
		t.Errorf("left: %q", got)
	}
}

func TestErrorsOfACheckAreCounted(t *testing.T) {
	tt := newTerminal(t, func(c *server.Config) { c.RequestBytesMax = 512 })
	c, out := checker(tt)
	load := small
	load.valBytes = 1024
	if err := c.checkPerf(t.Context(), &checkFlags{prefix: "p/"}, load); err == nil {
		t.Error("passed")
	}
	if !regexp.MustCompile(`FAIL: too many errors\nFAIL: ERROR\(etcdserver: request is too large\) -> \d+\n`).MatchString(out.String()) {
		t.Errorf("%s", out)
	}
}

func TestCheckDatascaleMeasuresMemory(t *testing.T) {
	tt := newTerminal(t, nil)
	c, out := checker(tt)
	load := scaleLoad(5, 100)
	if err := c.checkScale(t.Context(), &checkFlags{prefix: "p/"}, load); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^Start data scale check for work load \[100 key-value pairs, 1024 bytes per key-value, 5 concurrent clients\]\.\nPASS: Approximate system memory used : -?\d+\.\d\d MB\.\n$`)
	if !want.MatchString(out.String()) {
		t.Errorf("%s", out)
	}
	if got := tt.must("get", "p/", "--prefix", "--keys-only"); got != "" {
		t.Errorf("left: %q", got)
	}
}

func TestAChecksArguments(t *testing.T) {
	tt := newTerminal(t, nil)
	tt.must("put", "p/x", "1")
	for line, want := range map[string]int{
		"perf --load huge": exitFeature, "perf extra": exitArguments, "perf --prefix=": exitArguments, "perf --prefix=p/": exitInput, "datascale --load=x": exitFeature, "datascale --prefix=p/": exitInput,
	} {
		if _, stderr, code := tt.run(0, "", append([]string{"check"}, strings.Fields(line)...)...); code != want || stderr == "" {
			t.Errorf("check %s: code %d, %s", line, code, stderr)
		}
	}
	if got := tt.must("get", "p/x"); got != "p/x\n1\n" {
		t.Errorf("a key of others is gone: %q", got)
	}
}
