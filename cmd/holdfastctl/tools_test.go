package main

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/server"
)

// Each row of the tables is there in our own tree, and under the tool's name
// nothing else is. That no row is missing is for tests/compat/ctl, which has the
// tools themselves.
func TestTheTreeHasEveryRowOfTheTools(t *testing.T) {
	for _, tool := range []*tool{etcdctl, etcdutl} {
		whole, shaped := commands((&ctl{}).rootCommand()), commands((&ctl{tool: tool}).rootCommand())
		rows := map[string][]string{}
		for _, v := range tool.verbs {
			if rows[v.path] != nil {
				t.Errorf("%s %s has two rows", tool.name, v.path)
			}
			rows[v.path] = append([]string{}, strings.Fields(v.flags)...)
			if !slices.Equal(shaped[v.path], rows[v.path]) {
				t.Errorf("%s %s has the flags %q, the row %q", tool.name, v.path, shaped[v.path], rows[v.path])
			}
			if _, ok := whole[v.path]; !ok {
				t.Errorf("holdfastctl has no %q", v.path)
			}
			for _, flag := range rows[v.path] {
				if flag != "timeout" && !slices.Contains(whole[v.path], flag) { // That of etcdutl belongs to two of our commands.
					t.Errorf("holdfastctl %s has no --%s", v.path, flag)
				}
			}
		}
		for path := range shaped {
			if rows[path] == nil {
				t.Errorf("%s %s has no row", tool.name, path)
			}
		}
	}
}

// commands are all of a tree, with the flags of their own.
func commands(root *cobra.Command) map[string][]string {
	all := map[string][]string{}
	var visit func(cmd *cobra.Command, path string)
	visit = func(cmd *cobra.Command, path string) {
		names := []string{}
		for _, fs := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
			fs.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		}
		slices.Sort(names)
		all[path] = slices.Compact(names)
		for _, sub := range cmd.Commands() {
			visit(sub, strings.TrimSpace(path+" "+sub.Name()))
		}
	}
	root.InitDefaultCompletionCmd()
	visit(root, "")
	for path := range all {
		if strings.HasPrefix(path, "completion ") { // Of ours a command each, of theirs an argument.
			delete(all, path)
		}
	}
	return all
}

func TestTheNameOfTheProgramSaysWhichToolItIs(t *testing.T) {
	for name, want := range map[string]*tool{
		"etcdctl": etcdctl, "/usr/bin/etcdctl": etcdctl, "etcdctl-3.7": etcdctl, "etcdctl37": etcdctl, "etcdctl.exe": etcdctl,
		"./etcdutl": etcdutl, "etcdutl_v3": etcdutl, "holdfastctl": nil, "etcdctlx": nil, "myetcdctl": nil, "etcd": nil,
	} {
		if got := toolNamed(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What is refused says why, under both names.
func TestARefusedVerbSaysWhatToDoInItsPlace(t *testing.T) {
	tt := newTerminal(t, nil)
	refused := 0
	for _, row := range slices.Concat(etcdctl.verbs, etcdutl.verbs) {
		if row.why == "" {
			continue
		}
		refused++
		for _, tt.tool = range []*tool{nil, etcdutl} {
			stdout, stderr, code := tt.run(0, "", strings.Fields(row.path)...)
			if code != exitFailed || stdout != "" || !strings.Contains(stderr, row.why) {
				t.Errorf("%s: code %d, %q, %s", row.path, code, stdout, stderr)
			}
		}
	}
	if refused == 0 {
		t.Error("no row is refused")
	}
}

func TestAToolHasItsOwnVariablesOnly(t *testing.T) {
	tt := newTerminal(t, nil)
	tt.must("put", "a", "b")
	tt.tool = etcdctl
	tt.environ = []string{"HOLDFASTCTL_WRITE_OUT=json", "HOLDFASTCTL_HEX=true"}
	if got := tt.must("get", "a"); got != "a\nb\n" {
		t.Errorf("%q", got)
	}
	tt.environ = []string{"ETCDCTL_HEX=false"}
	if _, stderr, code := tt.run(0, "", "get", "a", "--hex"); code != exitFailed || !strings.Contains(stderr, "ETCDCTL_HEX is set") {
		t.Errorf("flag and variable: code %d, %s", code, stderr)
	}
	if got := tt.must("version", "--hex"); got != "etcdctl version: "+server.ProtocolVersion+"\nAPI version: 3.7\n" {
		t.Errorf("%q", got)
	}
	for _, limit := range []string{"--max-request-bytes", "--max-recv-bytes"} {
		if _, stderr, code := tt.run(0, "", "put", "a", strings.Repeat("x", 100), "--prev-kv", limit, "10"); code != exitFailed || !strings.Contains(stderr, "larger than max") {
			t.Errorf("%s: code %d, %s", limit, code, stderr)
		}
	}
}

func TestDiscoveryLeavesOutWhatDoesNotEncrypt(t *testing.T) {
	c := &ctl{err: &screen{}, lookup: func(_ context.Context, service, _, name string) (string, []*net.SRV, error) {
		if name != "d.test" || !strings.HasSuffix(service, "-x") {
			return "", nil, fmt.Errorf("no records for %s", service)
		}
		return "", []*net.SRV{{Target: strings.TrimSuffix(service, "-x") + ".test.", Port: 1}}, nil
	}}
	c.globals.commandTimeout = time.Minute
	c.globals.discovery = discoveryFlags{domain: "d.test", service: "x", insecure: true}
	c.discover(t.Context())
	if want := []string{"https://etcd-client-ssl.test:1", "http://etcd-client.test:1"}; !slices.Equal(c.globals.endpoints, want) || c.noClient != nil {
		t.Errorf("%q, %v", c.globals.endpoints, c.noClient)
	}
	c.globals.discovery.insecure = false
	c.discover(t.Context())
	if want := []string{"https://etcd-client-ssl.test:1"}; !slices.Equal(c.globals.endpoints, want) {
		t.Errorf("%q", c.globals.endpoints)
	}
	config, err := c.tls()
	if err != nil || config.ServerName != "d.test" {
		t.Errorf("name in certificates: %v, %v", config, err)
	}
}

// The hash of a file is that which the member tells, whether the file is a
// snapshot or the data directory.
func TestTheHashOfAFileIsThatOfTheMember(t *testing.T) {
	tt := newTerminal(t, func(c *server.Config) { c.DataDir = "m0" })
	for i := range 20 {
		tt.must("put", fmt.Sprint("key-", i%7), fmt.Sprint(i))
	}
	tt.must("compaction", "5")
	tt.must("snapshot", "save", "s.db")
	last, earlier := tt.must("endpoint", "hashkv"), tt.must("endpoint", "hashkv", "--rev", "15")
	_, stderr, code := tt.run(0, "", "hashkv", "m0", "--timeout", "60ms")
	if code != exitFailed || !strings.Contains(stderr, "in use") {
		t.Errorf("of a living member: code %d, %s", code, stderr)
	}
	tt.cluster.Members[0].Stop()
	for _, path := range []string{"s.db", "m0"} {
		if got, want := tt.must("hashkv", path), hashOf(last)+", 21, 5\n"; got != want {
			t.Errorf("%s: %q, the member says %q", path, got, want)
		}
		if got, want := tt.must("hashkv", path, "--rev", "15"), hashOf(earlier)+", 15, 5\n"; got != want {
			t.Errorf("%s at 15: %q, the member says %q", path, got, want)
		}
	}
	if got := tt.must("defrag", "--data-dir", "m0"); got != "" {
		t.Errorf("defrag: %q", got)
	}
	if _, stderr, code := tt.run(0, "", "defrag", "--data-dir", "."); code != exitFailed || !strings.Contains(stderr, "holds no member") {
		t.Errorf("defrag of no member: code %d, %s", code, stderr)
	}
}

func hashOf(line string) string { return regexp.MustCompile(`, (\d+), `).FindStringSubmatch(line)[1] }
