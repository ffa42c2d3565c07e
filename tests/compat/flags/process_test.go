package flags

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.uber.org/zap"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// patience is for a machine that other suites use too.
const patience = 30 * time.Second

// supervised is a process as a supervisor with Type=notify starts it.
type supervised struct {
	t      *testing.T
	cmd    *exec.Cmd
	notify *net.UnixConn
	log    string // File of all that it writes.
	ended  chan error
}

func supervise(t *testing.T, args ...string) *supervised {
	t.Helper()
	folder, err := os.MkdirTemp("", "hf") // Short: the path of a socket has a limit.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	s := &supervised{t: t, log: filepath.Join(folder, "log"), ended: make(chan error, 1)}
	socket := &net.UnixAddr{Name: filepath.Join(folder, "notify"), Net: "unixgram"}
	if s.notify, err = net.ListenUnixgram("unixgram", socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.notify.Close() })
	out, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s.cmd = exec.Command(member.Program(t, "holdfast"), args...)
	s.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket.Name, "ETCD_OF_NO_SUCH_FLAG=1")
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cmd.Process.Kill() })
	go func() { s.ended <- s.cmd.Wait() }()
	return s
}

// ready waits for the word to the supervisor.
func (s *supervised) ready() {
	s.t.Helper()
	if err := s.notify.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	word := make([]byte, 100)
	n, err := s.notify.Read(word)
	if err != nil || string(word[:n]) != "READY=1" {
		s.t.Fatalf("the supervisor hears %q, %v\n%s", word[:n], err, s.said())
	}
}

func (s *supervised) said() string {
	s.t.Helper()
	b, err := os.ReadFile(s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

func (s *supervised) terminate() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-s.ended:
		if err != nil {
			s.t.Errorf("SIGTERM: %v", err)
		}
	case <-time.After(patience):
		s.t.Fatal("SIGTERM does not end it")
	}
}

// A line of the log, in the order that collectors rely on.
var logLine = regexp.MustCompile(`^\{"level":"(debug|info|warn)","ts":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","caller":"[\w./-]+:\d+","msg":"`)

func (s *supervised) checkLog() {
	s.t.Helper()
	readyLines := 0
	for line := range strings.Lines(s.said()) {
		if !logLine.MatchString(line) || !json.Valid([]byte(line)) {
			s.t.Errorf("on the terminal: %s", line)
		}
		if strings.Contains(line, "ready to serve client requests") {
			readyLines++
		}
	}
	if readyLines != 1 {
		s.t.Errorf("%d times ready", readyLines)
	}
}

// TestAProcessIsWhatItsSupervisorExpects follows a member through two lives, and
// compares its IDs with those that etcd's code computes.
func TestAProcessIsWhatItsSupervisorExpects(t *testing.T) {
	ports := member.FreePorts(t, 3)
	at := func(port int) string { return "http://127.0.0.1:" + strconv.Itoa(port) }
	client, peers := at(ports[0]), at(ports[2])+","+at(ports[1])
	args := []string{
		"--name=m1", "--data-dir=" + filepath.Join(t.TempDir(), "data"), "--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peers, "--initial-advertise-peer-urls=" + peers,
		"--initial-cluster=m1=" + at(ports[2]) + ",m1=" + at(ports[1]), "--initial-cluster-token=of-the-test",
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{client}, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	s := supervise(t, args...)
	s.ready()
	members, err := c.MemberList(t.Context()) // Once it is ready, at once.
	if err != nil {
		t.Fatal(err)
	}
	if m := members.Members; len(m) != 1 || m[0].Name != "m1" || len(m[0].ClientURLs) != 1 || m[0].ClientURLs[0] != client {
		t.Errorf("ready, and not published: %v", m)
	}
	urls, err := types.NewURLsMap("m1=" + at(ports[1]) + ",m1=" + at(ports[2]))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := membership.NewClusterFromURLsMap(zap.NewNop(), "of-the-test", urls)
	if err != nil {
		t.Fatal(err)
	}
	if h := members.Header; h.ClusterId != uint64(theirs.ID()) || h.MemberId != uint64(theirs.MemberIDs()[0]) {
		t.Errorf("member %x of cluster %x, in etcd %v of %v", h.MemberId, h.ClusterId, theirs.MemberIDs(), theirs.ID())
	}
	if _, err := c.Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	r, err := http.Get(client + "/health")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	s.terminate()
	s.checkLog()

	s = supervise(t, append(args, "--initial-cluster-state=existing", "--initial-cluster=somebody=http://127.0.0.1:1")...)
	s.ready()
	if got, err := c.Get(t.Context(), "k"); err != nil || len(got.Kvs) != 1 || got.Header.MemberId != members.Header.MemberId {
		t.Errorf("with data, other flags for a first start: %v, %v", got, err)
	}
	s.terminate()
	s.checkLog()
}

// How long a member takes alone. Of a start counts what it does not compute, nearly
// nothing, so that a slow machine does not matter, and the best of some tries, against
// a bound that whoever waits for an election or a timer (a second) does not keep.
const (
	startMax  = 700 * time.Millisecond
	stopMax   = time.Second
	startsMax = 20
)

func TestAProcessStartsAndEndsQuickly(t *testing.T) {
	ports := member.FreePorts(t, 2)
	client, peer := "http://127.0.0.1:"+strconv.Itoa(ports[0]), "http://127.0.0.1:"+strconv.Itoa(ports[1])
	member.Program(t, "holdfast") // Not while it is measured.
	start, stop := patience, patience
	for range startsMax {
		began := time.Now()
		s := supervise(t, "--data-dir="+filepath.Join(t.TempDir(), "data"), "--listen-client-urls="+client, "--advertise-client-urls="+client,
			"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
		s.ready()
		took := time.Since(began)
		began = time.Now()
		s.terminate()
		stop = min(stop, time.Since(began))
		worked := s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()
		start = min(start, max(took-worked, 0))
		if start <= startMax && stop <= stopMax {
			t.Logf("the best start waited for %v and the best end took %v", start, stop)
			return
		}
	}
	t.Errorf("of %d tries the best start waited for %v and the best end took %v", startsMax, start, stop)
}

// lockedBytes is what the kernel says of the memory of a process, in its words.
func (s *supervised) lockedBytes() string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid), "status"))
	if err != nil {
		s.t.Fatal(err)
	}
	locked := regexp.MustCompile(`VmLck:\s*(\d+) kB`).FindStringSubmatch(string(b))
	if locked == nil {
		s.t.Fatalf("the kernel does not tell what is locked:\n%s", b)
	}
	return locked[1]
}

func TestMemoryIsLockedIfAskedFor(t *testing.T) {
	for _, args := range [][]string{nil, {"--memory-mlock"}} {
		ports := member.FreePorts(t, 2)
		client, peer := "http://127.0.0.1:"+strconv.Itoa(ports[0]), "http://127.0.0.1:"+strconv.Itoa(ports[1])
		s := supervise(t, append(args, "--data-dir="+filepath.Join(t.TempDir(), "data"), "--listen-client-urls="+client, "--advertise-client-urls="+client,
			"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)...)
		if args != nil && mayNotLock() {
			if err := <-s.ended; err == nil || !strings.Contains(s.said(), "--memory-mlock") {
				t.Errorf("who may not lock memory: %v\n%s", err, s.said())
			}
			continue
		}
		s.ready()
		if got := s.lockedBytes(); (got != "0") != (args != nil) {
			t.Errorf("with %q %s kB are locked", args, got)
		}
		s.terminate()
	}
}

// mayNotLock tells whether this user may lock less memory than a member has.
func mayNotLock() bool {
	if err := syscall.Mlockall(syscall.MCL_CURRENT); err != nil {
		return true
	}
	return syscall.Munlockall() != nil
}
