package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
)

const (
	devReadyMax = 30 * time.Second
	devStopMax  = 5 * time.Second
	devRestart  = 3 * time.Second // Long enough to see the others go on.
)

// devCluster is members on loopback, each a process of its own, with
// certificates made for the occasion.
type devCluster struct {
	dir     string
	ports   int // Of the first member's clients; each member takes two.
	members int
	stderr  io.Writer
}

// runDev starts a cluster for first use and keeps it until interrupted. What
// it stores stays, and is found again the next time.
func runDev(args []string, stdout, stderr io.Writer) int {
	d := &devCluster{stderr: stderr}
	flags := flag.NewFlagSet("holdfast dev", flag.ContinueOnError)
	var said strings.Builder // Help is an answer, all else is not.
	flags.SetOutput(&said)
	flags.StringVar(&d.dir, "dir", "holdfast-members", "`folder` for data, logs and certificates; kept from run to run")
	flags.IntVar(&d.members, "members", 3, "`number` of members")
	flags.IntVar(&d.ports, "port", 2379, "client `port` of the first member; the others follow in steps of 10")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, &said)
		return 0
	case err != nil:
		fmt.Fprint(stderr, &said)
		return exitUsage
	}
	if flags.NArg() > 0 || d.members < 1 || d.members > 9 || d.ports < 1 || d.ports+10*d.members > 65535 {
		fmt.Fprintf(stderr, "holdfast dev: want 1 to 9 members, a port that leaves room for them, and no further arguments\n")
		return exitUsage
	}
	if err := d.run(stdout); err != nil {
		fmt.Fprintf(stderr, "holdfast dev: %v\n", err)
		return exitFailed
	}
	return 0
}

func (d *devCluster) run(stdout io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	if err := errors.Join(d.checkFolder(), d.checkPorts()); err != nil {
		return err
	}
	if err := d.makeCertificates(); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var running sync.WaitGroup
	ready := make(chan struct{}, d.members)
	for i := range d.members {
		running.Go(func() {
			if err := d.keepMember(ctx, i, ready); err != nil {
				fail(err)
			}
		})
	}
	for range d.members {
		select {
		case <-ready:
		case <-ctx.Done():
		case <-time.After(devReadyMax):
			fail(fmt.Errorf("the members are not ready after %v: look at %s", devReadyMax, filepath.Join(d.dir, "*.log")))
		}
	}
	if ctx.Err() == nil {
		d.welcome(stdout)
	}
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (d *devCluster) name(i int) string { return fmt.Sprintf("m%d", i+1) }
func (d *devCluster) clientURL(i int) string {
	return fmt.Sprintf("https://127.0.0.1:%d", d.ports+10*i)
}
func (d *devCluster) peerURL(i int) string {
	return fmt.Sprintf("https://127.0.0.1:%d", d.ports+10*i+1)
}
func (d *devCluster) certs() string { return filepath.Join(d.dir, "certs") }

func (d *devCluster) endpoints() string {
	list := make([]string, d.members)
	for i := range list {
		list[i] = d.clientURL(i)
	}
	return strings.Join(list, ",")
}

// checkFolder refuses what another command, or as many members as there are not
// now, has left: it would be waited for members that nobody starts.
func (d *devCluster) checkFolder() error {
	if _, err := os.Stat(filepath.Join(d.dir, "store")); err == nil {
		return fmt.Errorf("%s is the folder of 'controlplane dev': name another with --dir", d.dir)
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	path, want := filepath.Join(d.dir, "members"), fmt.Sprintln(d.members)
	had, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.WriteFile(path, []byte(want), 0o600)
	case err != nil:
		return err
	case string(had) != want:
		return fmt.Errorf("%s holds a cluster of %s members: give --members %[2]s, or another --dir", d.dir, strings.TrimSpace(string(had)))
	}
	return nil
}

// checkPorts says which port is taken; a member would say so in its log alone.
func (d *devCluster) checkPorts() (err error) {
	for i := range d.members {
		for _, port := range []int{d.ports + 10*i, d.ports + 10*i + 1} {
			l, e := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if e != nil {
				err = errors.Join(err, fmt.Errorf("a port of %s is taken: %w: stop what listens there, or take others with --port", d.name(i), e))
				continue
			}
			_ = l.Close() // The member opens it.
		}
	}
	return err
}

// makeCertificates makes an authority and what it signs, unless a run before
// has.
func (d *devCluster) makeCertificates() error {
	store := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: d.certs()}
	if _, err := os.Stat(filepath.Join(d.certs(), "client.pem")); err == nil {
		return nil
	}
	store.Replace = true // Of a run that was cut short.
	ca, _, err := store.CreateAuthority(pki.AuthorityRequest{CommonName: "holdfast dev"})
	if err != nil {
		return err
	}
	for _, p := range []pki.Profile{pki.Server, pki.Peer, pki.Client} {
		req := pki.Request{Profile: p, CommonName: "holdfast-dev"}
		if p != pki.Client {
			req.Hosts = []string{"127.0.0.1", "localhost"}
		}
		if _, err := store.Issue(ca, "", req); err != nil {
			return err
		}
	}
	return nil
}

// keepMember runs one member until ctx ends. One that ends by itself, or is
// killed to see what happens, is started again; one that never served is an
// error.
func (d *devCluster) keepMember(ctx context.Context, i int, ready chan<- struct{}) error {
	served := &readyWriter{ready: ready}
	for {
		err := d.runMember(ctx, i, served)
		if ctx.Err() != nil {
			return nil
		}
		if !served.told.Load() {
			return fmt.Errorf("member %s ended: %w; see %s", d.name(i), err, d.logName(i))
		}
		fmt.Fprintf(d.stderr, "member %s ended (%v), starting it again in %v\n", d.name(i), err, devRestart)
		select {
		case <-time.After(devRestart):
		case <-ctx.Done():
		}
	}
}

func (d *devCluster) logName(i int) string { return filepath.Join(d.dir, d.name(i)+".log") }

func (d *devCluster) runMember(ctx context.Context, i int, served *readyWriter) error {
	log, err := os.OpenFile(d.logName(i), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	served.w = log
	cmd := exec.CommandContext(ctx, self, d.flags(i)...)
	cmd.Stdout, cmd.Stderr = log, served
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = devStopMax
	if err := cmd.Run(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

func (d *devCluster) flags(i int) []string {
	all := make([]string, d.members)
	for j := range all {
		all[j] = d.name(j) + "=" + d.peerURL(j)
	}
	file := func(name string) string { return filepath.Join(d.certs(), name) }
	return []string{
		"--name=" + d.name(i),
		"--data-dir=" + filepath.Join(d.dir, d.name(i)),
		"--listen-client-urls=" + d.clientURL(i),
		"--advertise-client-urls=" + d.clientURL(i),
		"--listen-peer-urls=" + d.peerURL(i),
		"--initial-advertise-peer-urls=" + d.peerURL(i),
		"--initial-cluster=" + strings.Join(all, ","),
		"--initial-cluster-token=holdfast-dev",
		"--client-cert-auth",
		"--trusted-ca-file=" + file("ca.pem"), "--cert-file=" + file("server.pem"), "--key-file=" + file("server-key.pem"),
		"--peer-client-cert-auth",
		"--peer-trusted-ca-file=" + file("ca.pem"), "--peer-cert-file=" + file("peer.pem"), "--peer-key-file=" + file("peer-key.pem"),
	}
}

func (d *devCluster) welcome(w io.Writer) {
	fmt.Fprintf(w, `%d members are ready on this machine, with TLS on every connection. Paste this in another terminal:

%s  export ETCDCTL_ENDPOINTS=%s ETCDCTL_CACERT=%s ETCDCTL_CERT=%s ETCDCTL_KEY=%s
  holdfastctl put hello world && holdfastctl get hello && holdfastctl endpoint status -w table
%s
Data, logs and certificates are in %s. Stop with Ctrl-C; the next run finds them again.
`, d.members, findable(), d.endpoints(),
		filepath.Join(d.certs(), "ca.pem"), filepath.Join(d.certs(), "client.pem"), filepath.Join(d.certs(), "client-key.pem"), otherCluster(os.Environ()), d.dir)
}

// findable is what is to be pasted before where a shell does not find holdfastctl,
// which is built beside this program.
func findable() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	_, found := exec.LookPath("holdfastctl")
	if _, err := os.Stat(filepath.Join(filepath.Dir(self), "holdfastctl")); err != nil || found == nil {
		return ""
	}
	return fmt.Sprintf("  export PATH=%s:$PATH\n", filepath.Dir(self))
}

// otherCluster is what is to be pasted too where variables that holdfastctl
// prefers to those above name a cluster already.
func otherCluster(environ []string) string {
	var set []string
	for _, name := range []string{"ENDPOINTS", "CACERT", "CERT", "KEY", "USER"} {
		if slices.ContainsFunc(environ, func(e string) bool { return strings.HasPrefix(e, "HOLDFASTCTL_"+name+"=") }) {
			set = append(set, "HOLDFASTCTL_"+name)
		}
	}
	if len(set) == 0 {
		return ""
	}
	return fmt.Sprintf("\nThe variables HOLDFASTCTL_… name another cluster here, and go before these. So first:\n\n  unset %s\n", strings.Join(set, " "))
}

// readyWriter passes a member's log on and notices when it serves first.
type readyWriter struct {
	w     io.Writer
	ready chan<- struct{}
	told  atomic.Bool
}

func (r *readyWriter) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("ready to serve client requests")) && r.told.CompareAndSwap(false, true) {
		r.ready <- struct{}{}
	}
	return r.w.Write(b)
}
