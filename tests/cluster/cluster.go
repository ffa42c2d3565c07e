// Package cluster runs members as processes, with certificates: what tests and
// the demonstration do harm to. They live on loopback ports of the system's
// choice, or at the places they are given, such as network namespaces.
package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/tests/bounded"
	"github.com/holdfast-db/holdfast/tests/ports"
)

// ReadyMax bounds the wait for a member to serve.
const ReadyMax = 60 * time.Second

// Binaries are the programs under test.
type Binaries struct{ Holdfast, Ctl string }

// Build builds them from this module into dir.
func Build(ctx context.Context, module, dir string) (Binaries, error) {
	b := Binaries{Holdfast: filepath.Join(dir, "holdfast"), Ctl: filepath.Join(dir, "holdfastctl")}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "./cmd/holdfast", "./cmd/holdfastctl")
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return b, fmt.Errorf("build: %w\n%s", err, out)
	}
	return b, nil
}

// Cluster is some members with one authority.
type Cluster struct {
	Dir     string // Certificates, logs, and a data directory for each member.
	Members []*Member

	bin   Binaries
	certs pki.Store
}

// Place is where a member lives.
type Place struct {
	ClientURL string
	PeerURL   string // What the others are told.
	ListenURL string // Where it listens for them, if something stands in between.

	// Launch starts the process of the member, in a namespace for example. Nil
	// means cmd.Start().
	Launch func(cmd *exec.Cmd) error
}

// Member is one of them, running or not.
type Member struct {
	Place
	Name    string
	DataDir string

	// What the next start is done with.
	Flags    []string
	Env      []string // Beside the environment of this process.
	Program  string   // In place of the cluster's.
	Existing bool     // It joins a running cluster, of which Initial tells.
	Initial  string   // In place of the cluster's.

	c   *Cluster
	now atomic.Pointer[process] // The last that was started.
}

type process struct {
	cmd   *exec.Cmd
	log   *watchedLog
	ended chan struct{}
}

// New makes the certificates and chooses the ports of n members. None runs yet.
func New(dir string, bin Binaries, n int, flags ...string) (*Cluster, error) {
	var places []Place
	for range n {
		urls, err := freeURLs(2)
		if err != nil {
			return nil, err
		}
		places = append(places, Place{ClientURL: urls[0], PeerURL: urls[1]})
	}
	return NewAt(dir, bin, places, flags...)
}

// NewAt is New for members with places of their own.
func NewAt(dir string, bin Binaries, places []Place, flags ...string) (*Cluster, error) {
	c := &Cluster{Dir: dir, bin: bin, certs: pki.Store{FS: vfs.OS(), Clock: yesterday{clock.Real()}, Dir: filepath.Join(dir, "certs")}}
	for _, p := range places {
		c.Members = append(c.Members, c.NewMember(p, flags...))
	}
	ca, _, err := c.certs.CreateAuthority(pki.AuthorityRequest{CommonName: "test authority"})
	if err != nil {
		return nil, err
	}
	return c, c.issue(ca)
}

// NewMember is one more member of which the cluster does not know. The caller
// adds it to Members.
func (c *Cluster) NewMember(p Place, flags ...string) *Member {
	name := fmt.Sprintf("m%d", len(c.Members)+1)
	return &Member{Place: p, Name: name, DataDir: filepath.Join(c.Dir, name), Flags: flags, c: c}
}

// yesterday makes certificates that members with a wrong wall clock take too.
type yesterday struct{ clock.Clock }

func (y yesterday) Wall() time.Time { return y.Clock.Wall().Add(-24 * time.Hour) }

// Renew replaces the certificates of servers, peers and clients, under the same
// authority. Members and clients take the new ones with their next connections.
func (c *Cluster) Renew() error {
	ca, err := c.certs.Authority()
	if err != nil {
		return err
	}
	c.certs.Replace = true
	return c.issue(ca)
}

func (c *Cluster) issue(ca *pki.Authority) error {
	hosts := []string{"127.0.0.1", "localhost"}
	for _, m := range c.Members {
		for _, raw := range []string{m.ClientURL, m.PeerURL} {
			u, err := url.Parse(raw)
			if err != nil {
				return err
			}
			if host := u.Hostname(); !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	for _, p := range []pki.Profile{pki.Server, pki.Peer, pki.Client} {
		req := pki.Request{Profile: p, CommonName: "test"}
		if p != pki.Client {
			req.Hosts = hosts
		}
		if _, err := c.certs.Issue(ca, "", req); err != nil {
			return err
		}
	}
	return nil
}

// ClientTLS is what clients of the cluster connect with.
func (c *Cluster) ClientTLS() (*tls.Config, error) {
	r, err := pki.NewReloader(pki.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: hclog.NewNullLogger(), Files: c.certs.Files(string(pki.Client))})
	if err != nil {
		return nil, err
	}
	return r.ClientConfig(""), nil
}

func freeURLs(n int) ([]string, error) {
	addrs, err := ports.Free(n)
	for i := range addrs {
		addrs[i] = "https://" + addrs[i]
	}
	return addrs, err
}

// Initial is the value of --initial-cluster.
func (c *Cluster) Initial() string {
	var parts []string
	for _, m := range c.Members {
		parts = append(parts, m.Name+"="+m.PeerURL)
	}
	return strings.Join(parts, ",")
}

// Endpoints of all members.
func (c *Cluster) Endpoints() []string {
	var urls []string
	for _, m := range c.Members {
		urls = append(urls, m.ClientURL)
	}
	return urls
}

// Client connects to the given members, or to all.
func (c *Cluster) Client(members ...*Member) (*client.Client, error) {
	secure, err := c.ClientTLS()
	if err != nil {
		return nil, err
	}
	endpoints := c.Endpoints()
	if len(members) > 0 {
		endpoints = nil
		for _, m := range members {
			endpoints = append(endpoints, m.ClientURL)
		}
	}
	return client.New(client.Config{Endpoints: endpoints, TLS: secure, Logger: hclog.NewNullLogger()})
}

func (c *Cluster) file(name string) string { return filepath.Join(c.certs.Dir, name) }

// Ctl runs holdfastctl against this member and returns what it printed.
func (m *Member) Ctl(ctx context.Context, args ...string) (string, error) {
	c := m.c
	args = append([]string{
		"--endpoints=" + m.ClientURL,
		"--cacert=" + c.file("ca.pem"), "--cert=" + c.file("client.pem"), "--key=" + c.file("client-key.pem"),
	}, args...)
	return c.ctl(ctx, m.Launch, args...)
}

// Offline runs holdfastctl on files.
func (c *Cluster) Offline(ctx context.Context, args ...string) (string, error) {
	return c.ctl(ctx, nil, args...)
}

func (c *Cluster) ctl(ctx context.Context, launch func(*exec.Cmd) error, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, c.bin.Ctl, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if launch == nil {
		launch = (*exec.Cmd).Start
	}
	err := launch(cmd)
	if err == nil {
		err = bounded.Wait(cmd, bounded.CommandMax)
	}
	if err != nil {
		return out.String(), fmt.Errorf("holdfastctl %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// Environ is that of a shell in which holdfastctl finds itself, the cluster and
// the certificates.
func (c *Cluster) Environ() []string {
	return append(os.Environ(), "PATH="+filepath.Dir(c.bin.Ctl)+string(filepath.ListSeparator)+os.Getenv("PATH"),
		"HOLDFASTCTL_ENDPOINTS="+strings.Join(c.Endpoints(), ","), "HOLDFASTCTL_CACERT="+c.file("ca.pem"),
		"HOLDFASTCTL_CERT="+c.file("client.pem"), "HOLDFASTCTL_KEY="+c.file("client-key.pem"))
}

// StartAll starts every member and waits until all serve.
func (c *Cluster) StartAll(ctx context.Context) error {
	for _, m := range c.Members {
		if err := m.Start(); err != nil {
			return err
		}
	}
	for _, m := range c.Members {
		if err := m.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// KillAll ends everything at once, as a power cut ends processes.
func (c *Cluster) KillAll() {
	for _, m := range c.Members {
		m.Signal(syscall.SIGKILL)
	}
	for _, m := range c.Members {
		m.wait()
	}
}

// Start starts the process; what lies in its data directory is taken up.
func (m *Member) Start() error {
	log, err := os.OpenFile(m.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	program := m.Program
	if program == "" {
		program = m.c.bin.Holdfast
	}
	p := &process{
		cmd:   exec.Command(program, m.args()...),
		log:   &watchedLog{w: log, ready: make(chan struct{})},
		ended: make(chan struct{}),
	}
	p.cmd.Env = append(os.Environ(), m.Env...)
	p.cmd.Stdout, p.cmd.Stderr = log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // Nothing is left behind.
	launch := m.Launch
	if launch == nil {
		launch = (*exec.Cmd).Start
	}
	if err := launch(p.cmd); err != nil {
		return errors.Join(err, log.Close())
	}
	m.now.Store(p)
	go func() { // Ends with the process.
		p.cmd.Wait() // That it was killed is no news.
		log.Close()
		close(p.ended)
	}()
	return nil
}

func (m *Member) args() []string {
	c := m.c
	listen, initial, state := m.ListenURL, m.Initial, "new"
	if listen == "" {
		listen = m.PeerURL
	}
	if initial == "" {
		initial = c.Initial()
	}
	if m.Existing {
		state = "existing"
	}
	return append([]string{
		"--name=" + m.Name, "--data-dir=" + m.DataDir,
		"--listen-client-urls=" + m.ClientURL, "--advertise-client-urls=" + m.ClientURL,
		"--listen-peer-urls=" + listen, "--initial-advertise-peer-urls=" + m.PeerURL,
		"--initial-cluster=" + initial, "--initial-cluster-state=" + state,
		"--client-cert-auth", "--trusted-ca-file=" + c.file("ca.pem"),
		"--cert-file=" + c.file("server.pem"), "--key-file=" + c.file("server-key.pem"),
		"--peer-client-cert-auth", "--peer-trusted-ca-file=" + c.file("ca.pem"),
		"--peer-cert-file=" + c.file("peer.pem"), "--peer-key-file=" + c.file("peer-key.pem"),
	}, m.Flags...)
}

// LogFile is what the member has ever logged.
func (m *Member) LogFile() string { return filepath.Join(m.c.Dir, m.Name+".log") }

// PID of the process, 0 when none runs.
func (m *Member) PID() int {
	p := m.now.Load()
	if !p.running() {
		return 0
	}
	return p.cmd.Process.Pid
}

// WaitReady waits until the member serves clients.
func (m *Member) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ReadyMax)
	defer cancel()
	p := m.now.Load()
	select {
	case <-p.log.ready:
		return nil
	case <-p.ended:
		return fmt.Errorf("member %s ended: %s", m.Name, p.log.tail())
	case <-ctx.Done():
		return fmt.Errorf("member %s is not ready: %w: %s", m.Name, ctx.Err(), p.log.tail())
	}
}

// Running tells whether the process lives.
func (m *Member) Running() bool { return m.now.Load().running() }

func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Kill ends the process at once and waits for its end. It panics, as Terminate does,
// with the stacks of a process that does not end.
func (m *Member) Kill() {
	m.Signal(syscall.SIGKILL)
	m.wait()
}

// Terminate asks the process to end, and waits.
func (m *Member) Terminate() {
	m.Signal(syscall.SIGTERM)
	m.wait()
}

// Signal sends a signal if the process runs.
func (m *Member) Signal(s syscall.Signal) {
	if p := m.now.Load(); p.running() {
		p.cmd.Process.Signal(s) // It may have ended meanwhile.
	}
}

// Said reports whether the end of what the process last printed has a text.
func (m *Member) Said(text string) bool {
	p := m.now.Load()
	return p != nil && strings.Contains(p.log.tail(), text)
}

func (m *Member) wait() {
	p := m.now.Load()
	if p == nil {
		return
	}
	if err := bounded.End(p.cmd, p.ended, bounded.EndMax); err != nil {
		log, _ := os.ReadFile(m.LogFile())
		panic(fmt.Sprintf("member %s: %v\n%s", m.Name, err, log[max(0, len(log)-stackBytes):]))
	}
}

// watchedLog keeps a member's log and notices when it serves.
type watchedLog struct {
	w     io.Writer
	ready chan struct{}

	mu   sync.Mutex
	seen bool
	last []byte
}

const (
	tailBytes  = 2000
	stackBytes = 100_000
)

func (l *watchedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.seen && bytes.Contains(b, []byte("ready to serve client requests")) {
		l.seen = true
		close(l.ready)
	}
	l.last = append(l.last, b...)
	if over := len(l.last) - tailBytes; over > 0 {
		l.last = l.last[over:]
	}
	return l.w.Write(b)
}

func (l *watchedLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.last)
}
