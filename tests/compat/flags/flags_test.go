// Package flags compares the table of flags of holdfast with the flags that
// etcd declares.
package flags

import (
	"bufio"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

func TestMain(m *testing.M) {
	code := m.Run()
	member.Cleanup()
	os.Exit(code)
}

// declaredElsewhere are flags of etcd's program that its library does not have,
// from etcdmain, which links nothing else.
var declaredElsewhere = []string{
	"config-file", "discovery-fallback", "initial-cluster-state", "v2-deprecation", "version",
	"cluster-active-size", "cluster-remove-delay", "cluster-sync-interval", "config", "force", "max-result-buffer", "max-retry-attempts",
	"peer-heartbeat-interval", "peer-election-timeout", "retry-interval", "snapshot", "v", "vv", "test.coverprofile", "test.outputdir",
}

// table is the table of docs/flags.md, by flag: value, default, state, words.
func table(t *testing.T) map[string][]string {
	t.Helper()
	f, err := os.Open(filepath.Join(member.Root(), "docs", "flags.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := map[string][]string{}
	line := regexp.MustCompile("^\\| `([^`]+)` \\|(.*)\\|$")
	for s := bufio.NewScanner(f); s.Scan(); {
		if m := line.FindStringSubmatch(s.Text()); m != nil {
			cells := strings.Split(m[2], " | ")
			for i := range cells {
				cells[i] = strings.Trim(cells[i], " `")
			}
			rows[m[1]] = cells
		}
	}
	return rows
}

func etcdFlags() *flag.FlagSet {
	fs := flag.NewFlagSet("etcd", flag.ContinueOnError)
	embed.NewConfig().AddFlags(fs)
	return fs
}

func TestTheTableHasEveryFlagOfEtcd(t *testing.T) {
	rows := table(t)
	known := map[string]bool{}
	etcdFlags().VisitAll(func(f *flag.Flag) { known[f.Name] = true })
	for _, name := range declaredElsewhere {
		known[name] = true
	}
	if len(known) < 110 {
		t.Fatalf("etcd has only %d flags?", len(known))
	}
	for name := range known {
		if rows[name] == nil {
			t.Errorf("--%s has no row", name)
		}
	}
	for name, cells := range rows {
		if ours := len(cells) > 3 && strings.HasSuffix(cells[3], "(ours)"); len(cells) > 3 && known[name] == ours {
			t.Errorf("--%s: of etcd %v, but %v", name, known[name], cells)
		}
	}
}

// otherDefaults are those that we write otherwise, and why.
var otherDefaults = map[string]string{
	"initial-advertise-peer-urls": "follows the URLs listened on",
	"advertise-client-urls":       "follows the URLs listened on",
	"initial-cluster":             "follows the name and these URLs",
	"feature-gates":               "stands in a table of its own",
}

func TestDefaultsAreThoseOfEtcd(t *testing.T) {
	rows := table(t)
	etcdFlags().VisitAll(func(f *flag.Flag) {
		cells := rows[f.Name]
		if cells == nil || otherDefaults[f.Name] != "" {
			return
		}
		if got, want := plain(cells[1]), plain(f.DefValue); got != want {
			t.Errorf("--%s is %q by default, in etcd %q", f.Name, got, want)
		}
	})
}

// plain is a default without its form: what is empty, false or 0 says the same.
func plain(s string) string {
	if d, err := time.ParseDuration(s); err == nil {
		s = d.String()
	}
	switch s {
	case "", "false", "0", "0s":
		return ""
	}
	return s
}

func TestTheProgramSaysWhatThePageSays(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), member.Program(t, "holdfast"), "--help").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for name, cells := range table(t) {
		if len(cells) > 3 && !strings.Contains(string(out), "\n  --"+name) {
			t.Errorf("--help does not have --%s", name)
		}
	}
}
