package etcdctl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	member.Cleanup()
	os.Exit(code)
}

// requireEtcdctl is the path of Debian's etcdctl.
func requireEtcdctl(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("etcdctl")
	if err != nil && os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal("etcdctl is not installed (package etcd-client), and HOLDFAST_REQUIRE_ALL=1")
	}
	if err != nil {
		t.Skip("etcdctl is not installed: install package etcd-client")
	}
	return path
}

// ctl is one of the two programs, and the members that it talks to.
type ctl struct {
	*testing.T
	program string
	cluster *member.Cluster
	vars    map[string]string // Values that outputs have shown, for later commands.
}

func (c *ctl) command(ctx context.Context, args ...string) *exec.Cmd {
	c.T.Helper()
	certs := c.cluster.Certs
	flags := []string{
		"--endpoints", strings.Join(c.cluster.Endpoints(), ","), "--cacert", certs.CA, "--cert", certs.Client, "--key", certs.ClientKey,
		"--command-timeout", patience.String(), "--dial-timeout", patience.String(),
	}
	cmd := exec.CommandContext(ctx, c.program, append(flags, args...)...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	return cmd
}

// logLine is what the library in etcdctl logs of a failed call.
var logLine = regexp.MustCompile(`(?m)^\{"level":"warn".*\n`)

// run runs a command and returns what it printed on both streams.
func (c *ctl) run(stdin string, args ...string) (string, error) {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(c.T.Context(), 2*patience)
	defer cancel()
	cmd := c.command(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return logLine.ReplaceAllString(string(out), ""), err
}

// must runs a command that succeeds.
func (c *ctl) must(args ...string) string {
	c.T.Helper()
	out, err := c.run("", args...)
	if err != nil {
		c.T.Fatalf("%s %s: %v\n%s", filepath.Base(c.program), strings.Join(args, " "), err, out)
	}
	return out
}

// programs runs a test with both programs, each on a cluster of its own.
func programs(t *testing.T, members int, test func(*ctl)) {
	for _, name := range []string{"etcdctl", "holdfastctl"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var path string
			if name == "etcdctl" {
				path = requireEtcdctl(t)
			} else {
				path = member.Program(t, name)
			}
			test(&ctl{T: t, program: path, cluster: member.StartCluster(t, members, member.SlowElections), vars: map[string]string{}})
		})
	}
}

// line is a command with all that it prints. In the output {name} stands for a
// word that later commands may use.
type line struct {
	args, stdin, out string
	fails            bool
}

func (c *ctl) play(lines []line) {
	c.T.Helper()
	for _, l := range lines {
		args := strings.Fields(c.fill(l.args))
		out, err := c.run(l.stdin, args...)
		if (err != nil) != l.fails {
			c.T.Errorf("$ ctl %s\n%s%v", strings.Join(args, " "), out, err)
			continue
		}
		if !c.matches(out, l.out) {
			c.T.Errorf("$ ctl %s\n  got  %q\n  want %q", strings.Join(args, " "), out, c.fill(l.out))
		}
	}
}

func (c *ctl) fill(s string) string {
	for name, value := range c.vars {
		s = strings.ReplaceAll(s, "{"+name+"}", value)
	}
	return s
}

var hole = regexp.MustCompile(`\\\{(\w+)\\\}`)

func (c *ctl) matches(out, want string) bool {
	var names []string
	pattern := hole.ReplaceAllStringFunc(regexp.QuoteMeta(c.fill(want)), func(s string) string {
		names = append(names, hole.FindStringSubmatch(s)[1])
		return `(\S+)`
	})
	found := regexp.MustCompile("^" + pattern + "$").FindStringSubmatch(out)
	for i, name := range names {
		if found != nil {
			c.vars[name] = found[i+1]
		}
	}
	return found != nil
}

func TestKeysTransactionsAndLeases(t *testing.T) {
	t.Parallel()
	programs(t, 1, func(c *ctl) {
		c.play([]line{
			{args: "put a 1", out: "OK\n"},
			{args: "put a 2 --prev-kv", out: "OK\na\n1\n"},
			{args: "put b", stdin: "from stdin", out: "OK\n"},
			{args: "get a", out: "a\n2\n"},
			{args: "get a --rev=2", out: "a\n1\n"},
			{args: "get a c", out: "a\n2\nb\nfrom stdin\n"},
			{args: "get a --from-key --limit=1 --print-value-only", out: "2\n"},
			{args: "get a z --keys-only --order=DESCEND --sort-by=KEY", out: "b\n\na\n\n"},
			{args: "get none", out: ""},
			{args: "put a --ignore-value", out: "OK\n"},
			{args: "put none --ignore-value", fails: true, out: "Error: etcdserver: key not found\n"},
			{args: "del b --prev-kv", out: "1\nb\nfrom stdin\n"},
			{args: "del b", out: "0\n"},
			{args: "txn", stdin: "value(\"a\") = \"2\"\n\nput x \"1\"\nget a\n\nput never 1\n\n", out: "SUCCESS\n\nOK\n\na\n2\n"},
			{args: "txn", stdin: "mod(\"a\") > \"100\"\n\nput never 1\n\ndel x\n\n", out: "FAILURE\n\n1\n"},
			{args: "lease grant 600", out: "lease {lease} granted with TTL(600s)\n"},
			{args: "put leased 1 --lease={lease}", out: "OK\n"},
			{args: "lease timetolive {lease} --keys", out: "lease {lease} granted with TTL(600s), remaining({left}), attached keys([leased])\n"},
			{args: "lease list", out: "found 1 leases\n{lease}\n"},
			{args: "lease keep-alive {lease} --once", out: "lease {lease} keepalived with TTL(600)\n"},
			{args: "lease revoke {lease}", out: "lease {lease} revoked\n"},
			{args: "lease revoke {lease}", fails: true, out: "Error: failed to revoke lease (etcdserver: requested lease not found)\n"},
			{args: "get leased", out: ""},
			{args: "compaction 3", out: "compacted revision 3\n"},
			{args: "get a --rev=2", fails: true, out: "Error: etcdserver: mvcc: required revision has been compacted\n"},
			{args: "alarm list", out: ""},
		})
	})
}

func TestWatches(t *testing.T) {
	t.Parallel()
	programs(t, 1, func(c *ctl) {
		c.must("put", "w/a", "1")
		c.must("put", "w/a", "2")
		c.must("del", "w/a")
		c.must("put", "w/b", "x")
		want := "PUT\nw/a\n1\nPUT\nw/a\n1\nw/a\n2\nDELETE\nw/a\n2\nw/a\n\nPUT\nw/b\nx\n"
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := c.command(ctx, "watch", "--prefix", "w/", "--rev=2", "--prev-kv")
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			c.T.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			c.T.Fatal(err)
		}
		got := make([]byte, len(want))
		n := 0
		for n < len(got) && err == nil {
			var m int
			m, err = pipe.Read(got[n:])
			n += m
		}
		if string(got[:n]) != want {
			c.T.Errorf("got  %q\nwant %q (%v)", got[:n], want, err)
		}
		cancel()
		_ = cmd.Wait() // It was killed.
	})
}

func TestMembersAndEndpoints(t *testing.T) {
	t.Parallel()
	programs(t, 3, func(c *ctl) {
		list := c.must("member", "list")
		for i, m := range c.cluster.Members {
			want := fmt.Sprintf("started, m%d, https://%s, https://%s, false\n", i+1, m.Peer, m.Client)
			if !strings.Contains(list, want) {
				c.T.Errorf("no %q in\n%s", want, list)
			}
		}
		if status := c.must("endpoint", "status"); strings.Count(status, ", 3.7.3, ") != 3 || strings.Count(status, ", true, false, ") != 1 {
			c.T.Errorf("endpoint status:\n%s", status)
		}
		if health := c.must("endpoint", "health"); strings.Count(health, "is healthy: successfully committed proposal") != 3 {
			c.T.Errorf("endpoint health:\n%s", health)
		}
		hashes := map[string]bool{}
		for l := range strings.Lines(c.must("endpoint", "hashkv")) {
			hashes[strings.Fields(l)[1]] = true
		}
		if len(hashes) != 1 {
			c.T.Errorf("hashes %v", hashes)
		}
		learner(c)
		if out := c.must("defrag"); strings.Count(out, "Finished defragmenting etcd member") != 3 {
			c.T.Errorf("defrag:\n%s", out)
		}
	})
}

var memberAdded = regexp.MustCompile(`Member +([0-9a-f]+) added (?:as learner )?to cluster +[0-9a-f]+\n`)

// learner adds a member that never starts, updates it and removes it.
func learner(c *ctl) {
	c.T.Helper()
	var out string
	var err error
	for start := time.Now(); time.Since(start) < patience; time.Sleep(100 * time.Millisecond) {
		out, err = c.run("", "member", "add", "m4", "--learner", "--peer-urls=https://127.0.0.1:1")
		if err == nil || !strings.Contains(out, "unhealthy cluster") {
			break
		}
	}
	found := memberAdded.FindStringSubmatch(out)
	if err != nil || found == nil || !strings.Contains(out, `ETCD_INITIAL_CLUSTER_STATE="existing"`) {
		c.T.Fatalf("member add: %v\n%s", err, out)
	}
	id := found[1]
	if out := c.must("member", "update", id, "--peer-urls=https://127.0.0.1:2"); !strings.Contains(out, fmt.Sprintf("Member %16s updated in cluster", id)) {
		c.T.Error(out)
	}
	if out, err := c.run("", "member", "promote", id); err == nil || !strings.Contains(out, "can only promote a learner member which is in sync with leader") {
		c.T.Errorf("promoted: %v\n%s", err, out)
	}
	if out := c.must("member", "list"); !strings.Contains(out, id+", unstarted, , https://127.0.0.1:2, , true\n") {
		c.T.Error(out)
	}
	if out := c.must("member", "remove", id); !strings.Contains(out, fmt.Sprintf("Member %16s removed from cluster", id)) {
		c.T.Error(out)
	}
}

func TestLocksAndElections(t *testing.T) {
	t.Parallel()
	programs(t, 3, locksAndElections)
}

func locksAndElections(c *ctl) {
	t := c.T
	t.Helper()
	if out := c.must("lock", "l", "echo", "held"); !strings.HasSuffix(out, "held\n") {
		t.Errorf("lock: %q", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out bytes.Buffer
	elect := c.command(ctx, "elect", "e", "me")
	pipe, err := elect.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := elect.Start(); err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 100); err == nil && !strings.HasSuffix(out.String(), "\nme\n"); {
		var n int
		n, err = pipe.Read(buf)
		out.Write(buf[:n])
	}
	if !strings.HasSuffix(out.String(), "\nme\n") {
		t.Errorf("elect: %q", out.String())
	}
	cancel()
	_ = elect.Wait() // It was killed.
}

// The file that the old client saves is verified and restored by ours, and a
// member starts on it with every key.
func TestASnapshotSavedByEtcdctlIsRestored(t *testing.T) {
	t.Parallel()
	old := &ctl{T: t, program: requireEtcdctl(t), cluster: member.StartCluster(t, 1)}
	for i := range 20 {
		old.must("put", fmt.Sprintf("key%02d", i), fmt.Sprint(i))
	}
	old.must("del", "key00")
	keys := old.must("get", "--prefix", "key")
	dir := t.TempDir()
	file := filepath.Join(dir, "saved.db")
	if out := old.must("snapshot", "save", file); !strings.Contains(out, "Snapshot saved at "+file) {
		t.Errorf("snapshot save: %s", out)
	}
	old.must("put", "key20", "after the snapshot")

	ours := &ctl{T: t, program: member.Program(t, "holdfastctl"), cluster: old.cluster}
	status := ours.must("snapshot", "status", file)
	if !strings.Contains(status, ", 22, ") {
		t.Errorf("snapshot status: %s", status)
	}
	ports := member.FreePorts(t, 2)
	peer := fmt.Sprintf("https://127.0.0.1:%d", ports[1])
	data := filepath.Join(dir, "restored")
	ours.must("snapshot", "restore", file, "--data-dir", data, "--name", "r1", "--initial-cluster", "r1="+peer, "--initial-advertise-peer-urls", peer)
	if out, err := ours.run("", "snapshot", "restore", file, "--data-dir", data); err == nil {
		t.Errorf("restored over data: %s", out)
	}

	certs := old.cluster.Certs
	restored := member.New(t, member.Config{
		Name: "r1", Scheme: "https", DataDir: data, Args: certs.Flags(), ClientPort: ports[0], PeerPort: ports[1],
	})
	restored.Start()
	again := &ctl{T: t, program: old.program, cluster: &member.Cluster{Members: []*member.Member{restored}, Certs: certs}}
	if got := again.must("get", "--prefix", "key"); got != keys {
		t.Errorf("restored\n%s\nsaved\n%s", got, keys)
	}
	if got := again.must("get", "key00", "--rev=21"); got != "key00\n0\n" {
		t.Errorf("the past is gone: %q", got)
	}

	damaged := filepath.Join(dir, "damaged.db")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(damaged, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := ours.run("", "snapshot", "status", damaged); err == nil {
		t.Errorf("a damaged snapshot is called good: %s", out)
	}
}
