package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestDiffTellsWhatWasAddedChangedAndRemoved(t *testing.T) {
	tt := newTerminal(t, nil)
	for i := range 250 { // More than a page.
		tt.must("put", fmt.Sprintf("same/%03d", i), "value")
	}
	tt.must("put", "a", "1")
	tt.must("put", "b", "1")
	tt.must("put", "c", "1")
	tt.must("snapshot", "save", "a.snap")
	tt.must("del", "a")
	tt.must("put", "b", "2")
	tt.must("put", "c", "1") // The same again.
	tt.must("put", "d", "1")
	tt.must("snapshot", "save", "b.snap")
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"a.snap", "b.snap"}, "- a\n~ b\n+ d\n", 1},
		{[]string{"b.snap", "a.snap"}, "+ a\n~ b\n- d\n", 1},
		{[]string{"a.snap", "live"}, "- a\n~ b\n+ d\n", 1},
		{[]string{"a.snap", memberURL}, "- a\n~ b\n+ d\n", 1},
		{[]string{"a.snap", "b.snap", "--metadata", "--prefix", "c"}, "~ c\n", 1},
		{[]string{"live", "live", "--revision", "254,0"}, "- a\n~ b\n+ d\n", 1},
		{[]string{"b.snap", "live"}, "", 0},
		{[]string{"a.snap", "b.snap", "--prefix", "same/"}, "", 0},
		{[]string{"a.snap", "live", "--revision", "254"}, "", 0},
	} {
		stdout, stderr, code := tt.run(0, "", append([]string{"diff"}, c.args...)...)
		if stdout != c.want || code != c.code {
			t.Errorf("diff %q: code %d, %q %s, want %q", c.args, code, stdout, stderr, c.want)
		}
	}
	stdout, _, _ := tt.run(0, "", "diff", "a.snap", "b.snap", "-w", "json")
	var got struct {
		Changes                 []diffJSON
		Added, Changed, Removed int
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || len(got.Changes) != 3 || got.Added != 1 || got.Changed != 1 || got.Removed != 1 {
		t.Errorf("%v: %s", err, stdout)
	} else if b := got.Changes[1]; b.Change != "changed" || string(b.Key) != "b" || string(b.A.Value) != "1" || string(b.B.Value) != "2" || b.B.Version != 2 {
		t.Errorf("%+v", b)
	}
	stdout, _, _ = tt.run(0, "", "diff", "b.snap", "b.snap", "-w", "json")
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Errorf("no differences: %v: %s", err, stdout)
	}
	if stdout, _, _ = tt.run(0, "", "diff", "a.snap", "b.snap", "-w", "table"); !regexp.MustCompile(`│\s+changed │\s+b │\s+253 │\s+256 │\s+1 │\s+1 │`).MatchString(stdout) {
		t.Errorf("table: %s", stdout)
	}
}

func TestDiffEndsWithTwoWhereItCannotCompare(t *testing.T) {
	tt := newTerminal(t, nil)
	tt.must("put", "a", "1")
	tt.must("snapshot", "save", "a.snap")
	tt.must("snapshot", "export", "a.snap", "etcd.db")
	spoilLast(t, "a.snap")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"a.snap", "live"}, "damaged at offset"},
		{[]string{"none.snap", "live"}, "none.snap"},
		{[]string{"etcd.db", "live"}, "snapshot import"},
		{[]string{"live"}, "two points"},
		{[]string{"live", "live", "--revision", "9999"}, "future revision"},
		{[]string{"live", "live", "--revision", "1,1,1"}, "--revision"},
		{[]string{"live", "live", "--nonsense"}, "nonsense"},
		{[]string{"live", "live", "-w", "fields"}, "fields"},
	} {
		if _, stderr, code := tt.run(0, "", append([]string{"diff"}, c.args...)...); code != 2 || !strings.Contains(stderr, c.want) {
			t.Errorf("diff %q: code %d, %s", c.args, code, stderr)
		}
	}
}

// spoilLast changes a byte near the end.
func spoilLast(t *testing.T, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	spoil(t, file, info.Size()-5)
}

func TestAForkServesASnapshotUntilItIsInterrupted(t *testing.T) {
	tt := newTerminal(t, nil)
	tt.must("put", "a", "then")
	tt.must("snapshot", "save", "a.snap")
	tt.must("put", "a", "now")
	t.Setenv("TMPDIR", t.TempDir())
	for _, flags := range [][]string{nil, {"--dir", "kept"}} {
		url, end := startFork(t, append([]string{"fork", "a.snap"}, flags...))
		other := &terminalTest{t: t, cluster: tt.cluster, environ: nil}
		var out, stderr strings.Builder
		get := &ctl{in: strings.NewReader(""), out: &out, err: &stderr}
		if code := get.run(t.Context(), []string{"--endpoints", url, "get", "a"}); code != 0 || out.String() != "a\nthen\n" {
			t.Fatalf("get from the fork: code %d, %q, %s", code, out.String(), stderr.String())
		}
		if got := other.must("get", "a"); got != "a\nnow\n" {
			t.Fatalf("the cluster has %q", got)
		}
		if code := end(); code != 0 {
			t.Fatalf("the fork ended with code %d", code)
		}
	}
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) != 0 {
		t.Fatalf("%d files are left in the temporary folder", len(left))
	}
	tt.must("inspect", "datadir", "kept")
	if _, stderr, code := tt.run(0, "", "fork", "a.snap", "--dir", "kept"); code != exitFailed || !strings.Contains(stderr, "--dir") {
		t.Errorf("fork over a directory: code %d, %s", code, stderr)
	}
	spoilLast(t, "a.snap")
	if _, stderr, code := tt.run(0, "", "fork", "a.snap"); code != exitFailed || !strings.Contains(stderr, "damaged at offset") {
		t.Errorf("fork of a damaged file: code %d, %s", code, stderr)
	}
}

// startFork runs a fork beside the test and returns the URL that it prints.
func startFork(t *testing.T, args []string) (url string, end func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var stderr screen
	code := make(chan int, 1)
	go func() {
		c := &ctl{in: strings.NewReader(""), out: w, err: &stderr}
		code <- c.run(ctx, args)
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if _, url, found := strings.Cut(lines.Text(), "ETCDCTL_ENDPOINTS="); found {
			// What goes before may name the cluster that nobody wants to touch here.
			if want := "  export HOLDFASTCTL_ENDPOINTS=" + url + " ETCDCTL_ENDPOINTS=" + url; lines.Text() != want {
				t.Errorf("%q is to be pasted, want %q", lines.Text(), want)
			}
			go io.Copy(io.Discard, r)
			return url, func() int { cancel(); return <-code }
		}
	}
	cancel()
	t.Fatalf("fork ended with code %d: %s", <-code, stderr.String())
	return "", nil
}

func TestASnapshotGoesToEtcdsFormatAndBack(t *testing.T) {
	tt := newTerminal(t, nil)
	granted := strings.Fields(tt.must("lease", "grant", "600"))[1]
	for i := range 30 {
		tt.must("put", fmt.Sprintf("key-%02d", i%20), fmt.Sprint(i), "--lease", granted)
	}
	tt.must("del", "key-07")
	tt.must("snapshot", "save", "a.snap")
	for _, version := range []string{"3.4", "3.7"} {
		file := "etcd-" + version + ".db"
		if got := tt.must("snapshot", "export", "a.snap", file, "--format", "etcd", "--etcd-version", version); !strings.Contains(got, "Revision 32, keys 19, leases 1") {
			t.Errorf("export: %s", got)
		}
		got := tt.must("snapshot", "import", file, version+".snap")
		if !strings.Contains(got, "Revision 32, keys 19, leases 1") || !strings.Contains(got, "Left out: members") {
			t.Errorf("import: %s", got)
		}
		tt.must("diff", "a.snap", version+".snap", "--metadata") // Ends with 0: equal.
		if got := tt.must("snapshot", "restore", version+".snap", "--data-dir", "r"+version); !strings.Contains(got, "revision 32") {
			t.Errorf("restore: %s", got)
		}
	}
	if got := tt.must("snapshot", "restore", "a.snap", "--data-dir", "dropped", "--leases", "drop"); !strings.Contains(got, "leases go with the keys attached to them") {
		t.Errorf("restore without leases: %s", got)
	}
	tt.must("snapshot", "save", "dropped.snap", "--data-dir", "dropped")
	if got := tt.must("inspect", "snapshot", "dropped.snap"); !regexp.MustCompile(`keys +0\n(.*\n)*leases +0\n`).MatchString(got) {
		t.Errorf("restored without leases: %s", got)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"import", "etcd-3.4.db", "a.snap"}, exitFailed, "exists already"},
		{[]string{"import", "a.snap", "x.snap"}, exitFailed, "neither a snapshot nor a data directory of etcd"},
		{[]string{"import", "x"}, exitArguments, "source"},
		{[]string{"restore", "a.snap", "--data-dir", "x", "--leases", "keep"}, exitArguments, "refill, remaining or drop"},
		{[]string{"export", "a.snap", "x", "--etcd-version", "2.3"}, exitFailed, "3.4"},
		{[]string{"export", "a.snap", "x", "--format", "tar"}, exitFeature, "tar"},
	} {
		if _, stderr, code := tt.run(0, "", append([]string{"snapshot"}, c.args...)...); code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("snapshot %q: code %d, %s", c.args, code, stderr)
		}
	}
	if left, _ := filepath.Glob("x*"); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}
