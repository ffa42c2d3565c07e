package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// terminalTest is a person at a terminal: commands against one member in this
// process, in an empty folder.
type terminalTest struct {
	t       testing.TB
	cluster *servertest.Cluster
	tool    *tool // Whose name the program has.
	environ []string
	leases  []string // IDs as they were printed first; transcripts call them L1, L2, …
}

const (
	memberURL = "http://m0.test:2379"
	peerURL   = "http://m0.test:2380"
)

func newTerminal(t testing.TB, set func(c *server.Config)) *terminalTest {
	t.(*testing.T).Chdir(t.TempDir())
	tt := &terminalTest{t: t}
	tt.cluster = servertest.New(t, 1, func(_ int, c *server.Config) {
		// IDs follow from the advertised URLs, so these are the same each time.
		c.AdvertisePeerURLs, c.AdvertiseClientURLs = []string{peerURL}, []string{memberURL}
		c.InitialCluster = c.Name + "=" + peerURL
		if set != nil {
			set(c)
		}
	})
	return tt
}

// dial reaches the member by the name that it has in transcripts.
func (tt *terminalTest) dial(ctx context.Context, address string) (net.Conn, error) {
	if address != "m0.test:2379" {
		return nil, fmt.Errorf("dial %s: nobody there", address)
	}
	url := tt.cluster.Members[0].Config.ListenClientURLs[0]
	return new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(url, "http://"))
}

// lookup is a DNS that knows the member as srv.test.
func lookup(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if service == "etcd-client" && name == "srv.test" {
		return "", []*net.SRV{{Target: "m0.test.", Port: 2379}}, nil
	}
	return "", nil, fmt.Errorf("no records for _%s._%s.%s", service, proto, name)
}

// patience is for a busy machine, which may need more than five seconds for a request.
var patience = []string{"ETCDCTL_COMMAND_TIMEOUT=1m"}

// run runs a command line until it ends, or has printed so many lines.
func (tt *terminalTest) run(lines int, input string, args ...string) (stdout, stderr string, code int) {
	ctx, cancel := context.WithCancel(tt.t.Context())
	defer cancel()
	out := &screen{enough: cancel, left: lines}
	var err screen
	c := &ctl{
		in: io.MultiReader(strings.NewReader(input), until{ctx, lines}), out: out, err: &err,
		environ: slices.Concat([]string{"HOLDFASTCTL_ENDPOINTS=" + memberURL, "ETCDCTL_ENDPOINTS=" + memberURL}, tt.environ, patience),
		tool:    tt.tool, dial: tt.dial, lookup: lookup,
	}
	code = c.run(ctx, args)
	return out.String(), err.String(), code
}

// must runs a command that has to succeed, and returns what it prints.
func (tt *terminalTest) must(args ...string) string {
	tt.t.Helper()
	stdout, stderr, code := tt.run(0, "", args...)
	if code != 0 {
		tt.t.Fatalf("%q ended with code %d: %s", args, code, stderr)
	}
	return stdout
}

// until is an input that ends only with ctx, if lines are waited for.
type until struct {
	ctx   context.Context
	lines int
}

func (u until) Read([]byte) (int, error) {
	if u.lines > 0 {
		<-u.ctx.Done()
	}
	return 0, io.EOF
}

// screen collects output, and says when there is enough.
type screen struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	left   int
	enough func()
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.left
	s.left -= bytes.Count(b, []byte("\n"))
	if before > 0 && s.left <= 0 {
		s.enough()
	}
	return s.buf.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// script plays a session. A line is a command line; "N lines of …" ends it when
// it has printed so many; "VAR=value …" sets variables for it. Below it stands
// its standard input. The transcript is standard output, then each line of
// standard error after a "!", then the exit code if it is not zero.
func (tt *terminalTest) script(file string) {
	golden.Script(tt.t, file, func(c golden.Command) string {
		words := []string{c.Name}
		for _, a := range c.Args {
			word := a.Key
			if a.Value != "" {
				word += "=" + a.Value
			}
			words = append(words, word)
		}
		args, err := splitWords(strings.Join(words, " "))
		if err != nil {
			tt.t.Fatalf("%s:%d: %v", file, c.Line, err)
		}
		lines := 0
		if len(args) > 3 && args[1] == "lines" && args[2] == "of" {
			if lines, err = strconv.Atoi(args[0]); err != nil {
				tt.t.Fatalf("%s:%d: %v", file, c.Line, err)
			}
			args = args[3:]
		}
		tt.environ = nil
		for len(args) > 0 && variable.MatchString(args[0]) {
			tt.environ, args = append(tt.environ, args[0]), args[1:]
		}
		for i, a := range args {
			args[i] = tt.actual(a)
		}
		stdout, stderr, code := tt.run(lines, tt.actual(c.Input), args...)
		text := stdout
		for line := range strings.Lines(stderr) {
			text += "! " + line
		}
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		if code != 0 {
			text += fmt.Sprintf("exit %d\n", code)
		}
		return tt.masked(text)
	})
}

var variable = regexp.MustCompile(`^[A-Z_]+=`)

// Things that differ from run to run.
var masks = []struct {
	is   *regexp.Regexp
	mask string
}{
	{regexp.MustCompile(`took( =)? [0-9.]+(ns|µs|ms|s)`), "took$1 TIME"},
	{regexp.MustCompile(`"took":"[^"]*"`), `"took":"TIME"`},
	{regexp.MustCompile(`"Took" : .*`), `"Took" : TIME`},
	{regexp.MustCompile(`("(?:dbSize|dbSizeInUse|raftIndex|raftAppliedIndex)":)[0-9]+`), "${1}N"},
	{regexp.MustCompile(`("(?:DBSize|DBSizeInUse|RaftIndex|RaftAppliedIndex)" : )[0-9]+`), "${1}N"},
	{regexp.MustCompile(`("TTL" : )9[0-9]`), "${1}9N"},
	{regexp.MustCompile(`(valid until )\S+`), "${1}DATE"},
	{regexp.MustCompile(`/tmp/\S*?/[0-9]{3}/`), "/DIR/"},
}

var granted = regexp.MustCompile(`lease ([0-9a-f]{16}) granted`)

// masked replaces what differs from run to run.
func (tt *terminalTest) masked(text string) string {
	for _, m := range granted.FindAllStringSubmatch(text, -1) {
		if tt.actual("L"+strconv.Itoa(len(tt.leases))) != m[1] {
			tt.leases = append(tt.leases, m[1])
		}
	}
	for i, id := range tt.leases {
		n, _ := strconv.ParseInt(id, 16, 64)
		text = strings.ReplaceAll(text, id, fmt.Sprintf("L%d", i+1))
		text = strings.ReplaceAll(text, strconv.FormatInt(n, 10), fmt.Sprintf("L%d", i+1))
	}
	for _, m := range masks {
		text = m.is.ReplaceAllString(text, m.mask)
	}
	return text
}

var leaseName = regexp.MustCompile(`\bL[1-9]\b`)

// actual puts back what transcripts have masked.
func (tt *terminalTest) actual(text string) string {
	return leaseName.ReplaceAllStringFunc(text, func(name string) string {
		if i := int(name[1] - '1'); i < len(tt.leases) {
			return tt.leases[i]
		}
		return name
	})
}

func TestCommandsPrintWhatTheirTranscriptsSay(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			file, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			newTerminal(t, func(c *server.Config) { c.BcryptCost = 4 }).script(file)
		})
	}
}

func TestAnAlarmShowsAndIsDisarmed(t *testing.T) {
	tt := newTerminal(t, func(c *server.Config) { c.QuotaBytes = 5 << 10 })
	for i := 0; ; i++ {
		_, stderr, code := tt.run(0, "", "put", fmt.Sprint("k", i), strings.Repeat("x", 2000))
		if code == 0 && i < 100 {
			continue
		}
		if !strings.HasPrefix(stderr, "Error: etcdserver: mvcc: database space exceeded") || !strings.Contains(stderr, "alarm disarm") {
			t.Fatalf("put %d into a full store: code %d, %s", i, code, stderr)
		}
		break
	}
	if got := tt.must("alarm", "list"); !regexp.MustCompile(`^memberID:\d+ alarm:NOSPACE\n$`).MatchString(got) {
		t.Errorf("alarm list: %q", got)
	}
	_, stderr, code := tt.run(0, "", "endpoint", "health")
	if code != exitFailed || !strings.Contains(stderr, "is unhealthy: failed to commit proposal: Active Alarm(s): NOSPACE") {
		t.Errorf("health with an alarm: code %d, %s", code, stderr)
	}
	if got := tt.must("alarm", "disarm"); !strings.Contains(got, "alarm:NOSPACE") {
		t.Errorf("alarm disarm: %q", got)
	}
	if got := tt.must("alarm", "list"); got != "" {
		t.Errorf("alarm list after disarm: %q", got)
	}
}

func TestALearnerIsAddedChangedAndRemoved(t *testing.T) {
	tt := newTerminal(t, nil)
	got := tt.must("member", "add", "n", "--learner", "--peer-urls", "http://n.test:2380")
	m := regexp.MustCompile(`^Member ([ 0-9a-f]{16}) added as learner to cluster 6abf83e0d2127caa

ETCD_NAME="n"
ETCD_INITIAL_CLUSTER="[^"]*n=http://n.test:2380[^"]*"
ETCD_INITIAL_ADVERTISE_PEER_URLS="http://n.test:2380"
ETCD_INITIAL_CLUSTER_STATE="existing"
$`).FindStringSubmatch(got)
	if m == nil {
		t.Fatalf("member add: %s", got)
	}
	id := strings.TrimSpace(m[1])
	if got, want := tt.must("member", "list"), id+", unstarted, , http://n.test:2380, , true\n"; !strings.Contains(got, want) {
		t.Errorf("member list has no %q: %s", want, got)
	}
	if _, stderr, code := tt.run(0, "", "member", "promote", id); code != exitFailed || !strings.Contains(stderr, "can only promote a learner member which is in sync with leader") {
		t.Errorf("member promote: code %d, %s", code, stderr)
	}
	got = tt.must("member", "update", id, "--peer-urls", "http://n.test:1,http://n.test:2")
	if want := fmt.Sprintf("Member %16s updated in cluster 6abf83e0d2127caa\n", id); got != want {
		t.Errorf("member update: %q", got)
	}
	got = tt.must("member", "remove", id, "-w", "json", "--hex")
	if want := `{"header":{"cluster_id":"6abf83e0d2127caa","member_id":"1adc13696c1af70","raft_term":2},"members":[{"ID":"1adc13696c1af70",`; !strings.HasPrefix(got, want) {
		t.Errorf("member remove: %s", got)
	}
}

func TestASnapshotIsSavedCheckedAndRestored(t *testing.T) {
	tt := newTerminal(t, nil)
	for i := range 20 {
		tt.must("put", fmt.Sprintf("key-%02d", i), "value")
	}
	if got := tt.must("snapshot", "save", "s.db"); !strings.HasPrefix(got, "Snapshot saved at s.db\n") {
		t.Errorf("save: %q", got)
	}
	if _, err := os.Stat("s.db.part"); err == nil {
		t.Error("the temporary file is left")
	}
	if got := tt.must("snapshot", "status", "s.db"); !regexp.MustCompile(`^[0-9a-f]+, 21, 20, [0-9.]+ kB, holdfast-1\n$`).MatchString(got) {
		t.Errorf("status: %q", got)
	}
	if got := tt.must("snapshot", "restore", "s.db", "--data-dir", "r", "--bump-revision", "100", "--mark-compacted"); !strings.Contains(got, "revision 121") {
		t.Errorf("restore: %s", got)
	}
	if got := tt.must("inspect", "datadir", "r"); strings.Contains(got, "damaged") || !strings.Contains(got, "revision 121") {
		t.Errorf("the restored directory: %s", got)
	}
	_, stderr, code := tt.run(0, "", "snapshot", "restore", "s.db", "--data-dir", "r")
	if code != exitFailed || !strings.Contains(stderr, "--replace") {
		t.Errorf("restore over a directory: code %d, %s", code, stderr)
	}
	spoil(t, "s.db", 700)
	_, stderr, code = tt.run(0, "", "snapshot", "status", "s.db")
	if code != exitFailed || !strings.Contains(stderr, "s.db") || !strings.Contains(stderr, "offset") {
		t.Errorf("status of a damaged file: code %d, %s", code, stderr)
	}
	if _, stderr, code = tt.run(0, "", "snapshot", "restore", "s.db", "--data-dir", "r2"); code != exitFailed {
		t.Errorf("restore of a damaged file: code %d, %s", code, stderr)
	}
	if _, err := os.Stat("r2"); err == nil {
		t.Error("a damaged snapshot has left a data directory")
	}
}

func TestAWholeClusterIsRestoredAtOnce(t *testing.T) {
	tt := newTerminal(t, nil)
	tt.must("put", "a", "b")
	tt.must("snapshot", "save", "s.db")
	spec := "members:\n"
	for i := range 3 {
		spec += fmt.Sprintf("- name: n%d\n  peer-urls: [http://127.0.0.1:%d]\n  data-dir: out/n%d\n", i, 9000+i, i)
	}
	if err := os.WriteFile("spec.yaml", []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tt.must("snapshot", "restore", "s.db", "--cluster", "spec.yaml", "--dry-run"); !strings.Contains(got, "Nothing was done") {
		t.Errorf("dry run: %s", got)
	}
	got := tt.must("snapshot", "restore", "s.db", "--cluster", "spec.yaml")
	for i := range 3 {
		if !strings.Contains(got, fmt.Sprintf("holdfast --name n%d", i)) {
			t.Errorf("no line that starts n%d: %s", i, got)
		}
		tt.must("inspect", "backend", fmt.Sprintf("out/n%d", i))
	}
}

// walRecord is one in what inspect wal prints, beside heads and ends of segments.
var walRecord = regexp.MustCompile(`\d  (begin|entry|hardstate|start|note|end) `)

func TestInspectReadsAStoppedMemberAndNamesDamage(t *testing.T) {
	tt := newTerminal(t, func(c *server.Config) { c.DataDir = "m0" })
	for i := range 20 {
		tt.must("put", fmt.Sprintf("key-%02d", i), "value")
	}
	_, stderr, code := tt.run(0, "", "inspect", "datadir", "m0")
	if code != exitFailed || !strings.Contains(stderr, "in use") {
		t.Errorf("inspect of a living member: code %d, %s", code, stderr)
	}
	tt.cluster.Members[0].Stop()
	for command, want := range map[string]string{
		"wal": `"kind":"entry"`, "history": `"revision":21`, "backend": `"keys":`,
	} {
		if got := tt.must("inspect", command, "m0", "-w", "json"); !strings.HasPrefix(got, "{") || !strings.Contains(got, want) {
			t.Errorf("inspect %s has no %q: %s", command, want, got)
		}
	}
	found, told, _ := tt.run(0, "", "inspect", "wal", "m0")
	if n := len(walRecord.FindAllString(found, -1)); n < 20 || !strings.Contains(told, fmt.Sprintf(": %d records, ", n)) {
		t.Errorf("inspect wal shows %d records, and says %q", n, told)
	}
	if got := tt.must("inspect", "history", "m0", "--keys"); !strings.Contains(got, `put "key-07"`) || strings.Contains(got, "value") {
		t.Errorf("inspect history --keys: %s", got)
	}
	tt.must("snapshot", "save", "--data-dir", "m0", "s.db")
	if got := tt.must("inspect", "snapshot", "s.db"); !strings.Contains(got, "keys             20") {
		t.Errorf("inspect snapshot: %s", got)
	}
	segments, err := filepath.Glob("m0/gen-000001/history/*.seg")
	if err != nil || len(segments) == 0 {
		t.Fatalf("no segments: %v", err)
	}
	spoil(t, segments[0], 400)
	for _, command := range []string{"history", "datadir"} {
		_, stderr, code = tt.run(0, "", "inspect", command, "m0")
		if code != exitFailed || !strings.Contains(stderr, filepath.Base(segments[0])) || !strings.Contains(stderr, "snapshot restore") {
			t.Errorf("inspect %s of a damaged history: code %d, %s", command, code, stderr)
		}
	}
}

// spoil changes one byte of a file.
func spoil(t *testing.T, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func TestBenchMeasuresAMember(t *testing.T) {
	tt := newTerminal(t, nil)
	for _, args := range [][]string{
		{"put"}, {"get", "--fill", "--key-space", "100"}, {"range", "--keys", "10"}, {"txn"}, {"lease"}, {"lease", "--renew"}, {"watch"},
	} {
		args = append([]string{"bench"}, args...)
		got := tt.must(append(args, "--total", "200", "--clients", "10", "--conns", "3", "-w", "json")...)
		for _, want := range []string{`"requests":200,`, `"failed":0,`, `"p99.9":`} {
			if !strings.Contains(got, want) {
				t.Errorf("%q has no %s: %s", args, want, got)
			}
		}
	}
	if got := tt.must("bench", "put", "--total", "10", "--clients", "2"); !strings.Contains(got, "P99.9 MS") {
		t.Errorf("no table of latencies: %s", got)
	}
	_, stderr, code := tt.run(0, "", "bench", "put", "--clients", "0")
	if code != exitArguments || !strings.Contains(stderr, "--clients") {
		t.Errorf("bench without clients: code %d, %s", code, stderr)
	}
}
