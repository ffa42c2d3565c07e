package ctl

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// patience is how long a command may take on a busy machine.
const patience = time.Minute

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && flag.Lookup("test.run").Value.String() == "" {
		code = everything()
	}
	if reference.dir != "" {
		_ = os.RemoveAll(reference.dir)
	}
	member.Cleanup()
	os.Exit(code)
}

// reference is etcd's tools, built once.
var reference struct {
	once sync.Once
	dir  string
	err  error
}

// etcdTool is the path of a tool of etcd 3.7.
func etcdTool(t *testing.T, name string) string {
	t.Helper()
	reference.once.Do(func() {
		if reference.dir, reference.err = os.MkdirTemp("", "etcd-tools-"); reference.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", reference.dir+"/", "go.etcd.io/etcd/etcdctl/v3", "go.etcd.io/etcd/etcdutl/v3")
		cmd.Dir = filepath.Join(member.Root(), "tests", "compat")
		if out, err := cmd.CombinedOutput(); err != nil {
			reference.err = fmt.Errorf("build etcd's tools: %w\n%s", err, out)
		}
	})
	if reference.err != nil {
		t.Fatal(reference.err)
	}
	return filepath.Join(reference.dir, name)
}

// ours is holdfastctl under another name.
func ours(t *testing.T, name string) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(member.Program(t, "holdfastctl"), link); err != nil {
		t.Fatal(err)
	}
	return link
}

// side is one of the two programs, with what it has seen so far.
type side struct {
	t        *testing.T
	program  string
	endpoint string // Empty: it needs none.
	dir      string // Where it works.
	leases   []string
}

// outcome of a command.
type outcome struct {
	stdout, stderr string
	code           int
	err            error // It could not be run, or did not end.
}

// step is a command line that both programs get.
type step struct {
	args  string   // Words between spaces; {form} is the form of this time, {L1} a lease.
	words []string // In place of args, where a word has spaces in it.
	stdin string
	env   []string
	lines int  // Ends it by an interrupt when so many lines have come.
	once  bool // In the form simple only.
	// anyOrder: members are listed by ID, and that of a new one follows the time.
	anyOrder bool
	notIn    string // Forms that it is not given in: etcdctl makes the change and then fails to print.
}

// noEndpoint among the variables of a step: those of the side are not given.
const noEndpoint = "NO_ENDPOINT=1"

var forms = []string{"simple", "json", "fields", "table", "protobuf"}

func (s *side) run(st step, form string) outcome {
	s.t.Helper()
	words := st.words
	if words == nil {
		words = strings.Fields(st.args)
	}
	var args []string
	for _, w := range words {
		w = strings.ReplaceAll(w, "{form}", form)
		for i, id := range s.leases {
			w = strings.ReplaceAll(w, fmt.Sprintf("{L%d}", i+1), id)
		}
		args = append(args, w)
	}
	if form != "simple" {
		args = append([]string{"-w", form}, args...)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Dir, cmd.Env = s.dir, append([]string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}, st.env...)
	if s.endpoint != "" && !slices.Contains(st.env, noEndpoint) {
		cmd.Env = append(cmd.Env, "ETCDCTL_ENDPOINTS="+s.endpoint)
	}
	cmd.Stdin = strings.NewReader(st.stdin)
	var stderr bytes.Buffer
	out := &counting{left: st.lines, enough: func() { _ = cmd.Process.Signal(syscall.SIGTERM) }} // It may have ended.
	cmd.Stdout, cmd.Stderr = out, &stderr
	err := run(cmd, st)
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		return outcome{err: fmt.Errorf("%s %q: %w", s.program, args, err)}
	}
	if ctx.Err() != nil {
		return outcome{err: fmt.Errorf("%s %q has not ended after %v\n%s%s", s.program, args, patience, out.buf.String(), stderr.String())}
	}
	s.note(out.buf.String())
	return outcome{stdout: s.mask(out.buf.String()), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// run runs a command to its end. The input of one that is to be interrupted does
// not end before.
func run(cmd *exec.Cmd, st step) error {
	if st.lines == 0 {
		return cmd.Run()
	}
	cmd.Stdin = nil
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := io.WriteString(in, st.stdin); err != nil {
		return err
	}
	return cmd.Wait()
}

// counting tells when there are enough lines.
type counting struct {
	buf    bytes.Buffer
	left   int
	enough func()
}

func (c *counting) Write(b []byte) (int, error) {
	before := c.left
	c.left -= bytes.Count(b, []byte("\n"))
	if before > 0 && c.left <= 0 {
		c.enough()
	}
	return c.buf.Write(b)
}

var granted = []*regexp.Regexp{
	regexp.MustCompile(`^lease ([0-9a-f]{16}) granted`),
	regexp.MustCompile(`"ID":(\d{15,}),"TTL"`),
	regexp.MustCompile(`(?s)^"ClusterID".*"ID" : (\d{15,})\n"TTL"`),
}

var added = regexp.MustCompile(`^Member +([0-9a-f]+) added`)

// note keeps the IDs of leases and of new members, as hexadecimal numbers.
func (s *side) note(out string) {
	if m := added.FindStringSubmatch(out); m != nil {
		s.leases = append(s.leases, m[1])
	}
	for i, is := range granted {
		m := is.FindStringSubmatch(out)
		if m == nil {
			continue
		}
		id := m[1]
		if i > 0 {
			n, err := strconv.ParseInt(id, 10, 64)
			if err != nil {
				s.t.Error(err)
			}
			id = fmt.Sprintf("%016x", n)
		}
		for _, known := range s.leases {
			if known == id {
				return
			}
		}
		s.leases = append(s.leases, id)
	}
}

// What differs from run to run with any program.
var masks = []struct {
	is   *regexp.Regexp
	mask string
}{
	{regexp.MustCompile(`(?m)^(l|e)/[0-9a-f]+$`), "$1/LEASE"},
	{regexp.MustCompile(`took( = |\W+)[0-9.]+(ns|µs|ms|s)`), "took${1}TIME"},
	{regexp.MustCompile(`([|│]) +[0-9.]+(ns|µs|ms|s) +([|│])`), "$1 TIME $3"},
	{regexp.MustCompile(`"Took" : .*`), `"Took" : TIME`},
	{regexp.MustCompile(`("(?:dbSize|dbSizeInUse|raftIndex|raftAppliedIndex)":)[0-9]+`), "${1}N"},
	{regexp.MustCompile(`("(?:DBSize|DBSizeInUse|RaftIndex|RaftAppliedIndex)" : )[0-9]+`), "${1}N"},
	{regexp.MustCompile(`remaining\(\d+s\)`), "remaining(Ns)"},
	{regexp.MustCompile(`("ttl":|"TTL" : )\d+`), "${1}N"},
	{regexp.MustCompile(`\b\d+(\.\d+)? [kM]B\b`), "SIZE"},
	{regexp.MustCompile(`used : -?\d+\.\d\d MB`), "used : N MB"},
	{regexp.MustCompile(`\b\d+%`), "SHARE"},
	{regexp.MustCompile(`(?m)(, \d+), \d+, \d+, , , false$`), "$1, N, N, , , false"},
	{regexp.MustCompile(`([|│] +\d+ [|│]) +\d+ [|│] +\d+ ([|│])`), "$1 N | N $2"},
	{regexp.MustCompile(`-{3,}|─{3,}| {2,}`), "--"}, // Widths of columns follow what stands in them.
}

func (s *side) mask(out string) string {
	if s.endpoint != "" {
		out = strings.ReplaceAll(out, s.endpoint, "ENDPOINT")
	}
	for i, id := range s.leases {
		n, err := strconv.ParseUint(id, 16, 64)
		if err != nil {
			s.t.Error(err)
		}
		name := fmt.Sprintf("L%d", i+1)
		out = strings.ReplaceAll(strings.ReplaceAll(out, id, name), strconv.FormatUint(n, 10), name)
		out = strings.ReplaceAll(out, strings.TrimLeft(id, "0"), name)
	}
	for _, m := range masks {
		out = m.is.ReplaceAllString(out, m.mask)
	}
	return out
}

// seen are the command lines that were given, for the test that all were.
var seen struct {
	sync.Mutex
	lines []string
}

// compare plays steps with both programs. list is what may differ, by form and
// command line.
func compare(t *testing.T, theirs, ours *side, list *differences, steps []step) {
	t.Helper()
	for _, st := range steps {
		name := st.args
		if st.words != nil {
			name = strings.Join(st.words, " ")
		}
		name = strings.Join(append(append([]string(nil), st.env...), name), " ")
		seen.Lock()
		seen.lines = append(seen.lines, name)
		seen.Unlock()
		for _, form := range list.forms {
			if st.once && form != "simple" || slices.Contains(strings.Fields(st.notIn), form) {
				continue
			}
			var want, got outcome
			var both sync.WaitGroup
			both.Go(func() { want = theirs.run(st, form) })
			both.Go(func() { got = ours.run(st, form) })
			both.Wait()
			if err := errors.Join(want.err, got.err); err != nil {
				t.Fatal(err)
			}
			if st.anyOrder {
				got.stdout, want.stdout = pieces(got.stdout), pieces(want.stdout)
			}
			if list.unordered {
				got.stdout, want.stdout = sorted(got.stdout), sorted(want.stdout)
			}
			var wrong string
			if got.stdout != want.stdout {
				wrong = fmt.Sprintf("  ours   %q\n  theirs %q\n", got.stdout, want.stdout)
			}
			if want.code < 0 {
				want.code = 0 // It leaves the signal to the system; ours ends by itself.
			}
			if got.code != want.code {
				wrong += fmt.Sprintf("  exit code ours %d, theirs %d\n", got.code, want.code)
			}
			list.judge(t, form, name, wrong, "  errors ours   "+got.stderr+"  errors theirs "+want.stderr)
		}
	}
}

var between = regexp.MustCompile(`[,{}\[\]\n"]+`)

// pieces are the words of an output in one order.
func pieces(text string) string {
	words := between.Split(text, -1)
	slices.Sort(words)
	return strings.Join(words, "\n")
}

// sorted brings the lines of an output, and the parts of JSON, into one order.
func sorted(text string) string {
	lines := strings.SplitAfter(strings.NewReplacer("[{", "{", "}]", "}", "},{", "}\n{").Replace(text), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}
