// Package member runs members of holdfast as processes, for tests that meet
// them as any client does.
//
// Nothing of the server is linked into the tests: etcd's packages register the
// same protobuf files as ours. The program is built once for each test binary.
// Each member has ports that were free a moment ago, a folder of the test for
// its data, and a log there, the end of which is shown when the test fails.
// Members end with the test that started them, also when that is killed.
package member

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 2 * time.Minute // The machine may be busy with other suites.
	stopTimeout  = time.Minute
	tailBytes    = 4096 // Of the log are shown when a test fails.
)

// readyWords appear once in a member's log, when it serves.
const readyWords = "ready to serve client requests"

// Programs that were built, by name.
var programs struct {
	sync.Mutex
	dir   string
	built map[string]string
}

// Program is the path of a command of ours, built from this tree.
func Program(t testing.TB, name string) string {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	if path := programs.built[name]; path != "" {
		return path
	}
	if programs.dir == "" {
		dir, err := os.MkdirTemp("", "holdfast-bin-")
		if err != nil {
			t.Fatal(err)
		}
		programs.dir, programs.built = dir, map[string]string{}
	}
	path := filepath.Join(programs.dir, name)
	out, err := exec.Command("go", "build", "-C", Root(), "-o", path, "./cmd/"+name).CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	programs.built[name] = path
	return path
}

// Cleanup removes what Program built. TestMain calls it.
func Cleanup() {
	programs.Lock()
	defer programs.Unlock()
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
}

// Root is the top of the repository: the tests of all packages run in folders
// of their own below it.
func Root() string {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, statErr := os.Stat(filepath.Join(dir, "cmd", "holdfast")); statErr == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return "."
}

// Below those from which a system takes the ports of outgoing connections: one of
// these may be gone again before the program that is told of it listens.
const firstPort, lastPort = 12_000, 30_000

var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// FreePorts are ports that nobody listens on just now, and that no other test of
// this process has.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	var ports []int
	for len(ports) < n {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if given.ports[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		given.ports[port] = true
		ports = append(ports, port)
	}
	return ports
}

// Config is what a member is started with.
type Config struct {
	Name    string   // Default "m1".
	DataDir string   // Default a folder of the test.
	Scheme  string   // Of all URLs. Default "http".
	Args    []string // More flags.

	InitialCluster string   // Default this member alone.
	Existing       bool     // Join a running cluster.
	Discovery      []string // Flags in place of those two.

	ClientPort, PeerPort int // Default free ones.
}

// Member is a process of holdfast.
type Member struct {
	Name    string
	DataDir string
	Client  string // host:port.
	Peer    string

	t       testing.TB
	args    []string
	workDir string // Empty: the test's.
	logPath string
	cmd     *exec.Cmd
	exited  chan struct{}
}

// New prepares a member without starting it, so that its addresses are known.
func New(t testing.TB, cfg Config) *Member {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "m1"
	}
	if cfg.Scheme == "" {
		cfg.Scheme = "http"
	}
	dir := t.TempDir()
	if cfg.DataDir == "" {
		cfg.DataDir = filepath.Join(dir, "data")
	}
	if cfg.ClientPort == 0 {
		ports := FreePorts(t, 2)
		cfg.ClientPort, cfg.PeerPort = ports[0], ports[1]
	}
	m := &Member{
		Name:    cfg.Name,
		DataDir: cfg.DataDir,
		Client:  fmt.Sprintf("127.0.0.1:%d", cfg.ClientPort),
		Peer:    fmt.Sprintf("127.0.0.1:%d", cfg.PeerPort),
		t:       t,
		logPath: filepath.Join(dir, "log"),
	}
	client, peer := cfg.Scheme+"://"+m.Client, cfg.Scheme+"://"+m.Peer
	if cfg.InitialCluster == "" {
		cfg.InitialCluster = m.Name + "=" + peer
	}
	state := "new"
	if cfg.Existing {
		state = "existing"
	}
	if cfg.Discovery == nil {
		cfg.Discovery = []string{"--initial-cluster", cfg.InitialCluster, "--initial-cluster-state", state}
	}
	m.args = append([]string{
		"--name", m.Name, "--data-dir", m.DataDir,
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
	}, cfg.Discovery...)
	m.args = append(m.args, cfg.Args...) // Last: they may replace what stands before.
	t.Cleanup(func() {
		m.Kill()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", m.Name, m.tail())
		}
	})
	return m
}

// Start starts the process and waits until it serves.
func (m *Member) Start() {
	m.t.Helper()
	m.Spawn()
	m.WaitReady()
}

// StartWith is Start with other flags, and paths among them relative to a folder.
func (m *Member) StartWith(dir string, args ...string) {
	m.t.Helper()
	m.args, m.workDir = args, dir
	m.Start()
}

// Spawn starts the process without waiting.
func (m *Member) Spawn() {
	m.t.Helper()
	log, err := os.Create(m.logPath)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	m.cmd = exec.Command(Program(m.t, "holdfast"), m.args...)
	m.cmd.Stdout, m.cmd.Stderr, m.cmd.Dir = log, log, m.workDir
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // How it ended is in its log.
		close(exited)
	}(m.cmd, m.exited)
}

// WaitReady waits until the member says that it serves.
func (m *Member) WaitReady() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), startTimeout)
	defer cancel()
	for {
		if strings.Contains(m.Log(), readyWords) {
			return
		}
		select {
		case <-m.exited:
			m.t.Fatalf("%s ended while starting:\n%s", m.Name, m.tail())
		case <-ctx.Done():
			m.t.Fatalf("%s is not ready after %v:\n%s", m.Name, startTimeout, m.tail())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Stop asks the process to end, and waits.
func (m *Member) Stop() {
	m.t.Helper()
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(syscall.SIGTERM) // It may have ended already.
	select {
	case <-m.exited:
	case <-time.After(stopTimeout):
		m.t.Errorf("%s has not ended %v after SIGTERM", m.Name, stopTimeout)
		m.Kill()
	}
}

// Kill ends the process as a power cut would.
func (m *Member) Kill() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill() // It may have ended already.
	<-m.exited
}

// Exited is closed when the process has ended.
func (m *Member) Exited() <-chan struct{} { return m.exited }

// Log is what the member has written so far.
func (m *Member) Log() string {
	text, _ := os.ReadFile(m.logPath) // A file that cannot be read says nothing.
	return string(text)
}

func (m *Member) tail() string {
	text, err := os.ReadFile(m.logPath)
	if err != nil {
		return err.Error()
	}
	if len(text) > tailBytes {
		text = text[len(text)-tailBytes:]
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	return strings.TrimRight(string(text), "\n")
}
