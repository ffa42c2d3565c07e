package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/logs"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/auth"
	kubecontext "github.com/holdfast-db/holdfast/kube/context"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/server"
)

// dev is a cluster on one machine, in one process, with certificates made for the
// occasion.
type dev struct {
	dir                   string
	listenAPI             string
	clientURL, peerURL    string
	nodes                 int
	context, file         string // Of the context file. Empty file: that of the user who asks.
	logLevel              string
	metricsURL, retention string
	pprof                 bool
}

func devCommand() *cobra.Command {
	d := &dev{}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "All of a cluster on this machine, to try things",
		Long: `All of a cluster on this machine, to try things: a member of the store, the API, the
scheduler, the controllers, and simulated nodes, whose pods run no containers. What it
stores stays in --data-dir, with its certificates, and is found again the next time.
The context that holdfastctl looks for is written for the user who calls, through sudo
or not.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.nodes < 0 || d.nodes > simNodesMax {
				return fmt.Errorf("--sim-nodes is %d: use 0 to %d", d.nodes, simNodesMax)
			}
			return failed(d.run(cmd.Context(), cmd.OutOrStdout()))
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&d.dir, "data-dir", "holdfast-dev", "folder for data, log and certificates; kept from run to run")
	fs.StringVar(&d.listenAPI, "listen-api", "127.0.0.1:6443", "host:port of the API")
	fs.StringVar(&d.clientURL, "listen-client-url", "https://127.0.0.1:2379", "URL of the store, for its own clients")
	fs.StringVar(&d.peerURL, "listen-peer-url", "https://127.0.0.1:2380", "URL of the store for other members, of which there are none")
	fs.StringVar(&d.metricsURL, "listen-metrics-url", "", "URL for /metrics and /health beside the store's")
	fs.StringVar(&d.retention, "auto-compaction-retention", "1h", "how much of the past the store keeps; 0: all")
	fs.BoolVar(&d.pprof, "enable-pprof", false, "serve profiles on /debug/pprof of the store's URL")
	fs.IntVar(&d.nodes, "sim-nodes", 3, "`number` of simulated nodes")
	fs.StringVar(&d.context, "context", "dev", "`name` of the context that is written")
	fs.StringVar(&d.file, "context-file", "", "`file` that the context is written to; left out: $HOLDFAST_CONFIG, or ~/.holdfast/config")
	fs.StringVar(&d.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// simNodesMax is what one process can be.
const simNodesMax = 10_000

func (d *dev) run(ctx context.Context, stdout io.Writer) error {
	var err error
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	if err := vfs.MakeFolder(vfs.OS(), d.dir); err != nil {
		return err
	}
	if err := d.certificates(); err != nil {
		return fmt.Errorf("certificates in %s: %w", d.certs(), err)
	}
	logFile := filepath.Join(d.dir, "controlplane.log")
	w, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer w.Close()
	log, err := logs.New(w, d.logLevel, logs.JSON, clock.Real())
	if err != nil {
		return err
	}
	instance, err := kubelet.InstanceOf(vfs.OS(), d.dir)
	if err != nil {
		return err
	}
	cfg := d.config()
	cfg.Logger, cfg.Member.Logger = log, log
	err = runPlane(ctx, cfg, func(ctx context.Context, p *plane) error {
		path, err := d.writeContext(p.address.String())
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "The cluster is ready on this machine: API at %s, %d simulated nodes. Next:\n\n  holdfastctl get nodes\n\nThe context %q is in %s; data, certificates and log are in %s. Stop with Ctrl-C; the next run finds them again.\n",
			p.address, d.nodes, d.context, path, d.dir)
		return sim.RunFleet(ctx, sim.FleetConfig{
			Prefix: "sim", Count: d.nodes, Zones: min(d.nodes, 3), Instance: instance, Logger: log.Named("kubelet"),
			Dial: func(node string) (grpc.ClientConnInterface, error) { return p.service.Dial(auth.Node(node)), nil },
		})
	})
	if err != nil {
		return fmt.Errorf("%w; the log is %s", err, logFile)
	}
	return nil
}

func (d *dev) certs() string { return filepath.Join(d.dir, "certs") }

func (d *dev) config() *planeConfig {
	m := server.DefaultConfig(nil)
	m.Name, m.DataDir = "dev", filepath.Join(d.dir, "store")
	m.ListenClientURLs, m.ListenPeerURLs = []string{d.clientURL}, []string{d.peerURL}
	if d.metricsURL != "" {
		m.ListenMetricsURLs = []string{d.metricsURL}
	}
	m.EnablePprof = d.pprof
	m.AutoCompactionMode, m.AutoCompactionRetention = "periodic", d.retention
	defaultTLS(&m.ClientTLS, d.certs(), "server")
	defaultTLS(&m.PeerTLS, d.certs(), "peer")
	return &planeConfig{
		Member: m, ListenAPI: d.listenAPI, AdvertiseAPI: "127.0.0.1:0", AuthorityDir: d.certs(),
		API:          pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: d.certs()}.Files("apiserver"),
		ServiceRange: netip.MustParsePrefix("10.96.0.0/16"), PodRange: netip.MustParsePrefix("10.128.0.0/9"),
	}
}

// certificates makes what is not there yet: an authority, and all that it signs.
func (d *dev) certificates() error {
	store := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: d.certs()}
	ca, err := store.Authority()
	if errors.Is(err, fs.ErrNotExist) {
		store.Replace = true // Of a run that was cut short.
		ca, _, err = store.CreateAuthority(pki.AuthorityRequest{CommonName: "holdfast dev"})
	}
	if err != nil {
		return err
	}
	if _, err := store.Set(ca, pki.SetRequest{Hosts: []string{"127.0.0.1", "localhost"}}); err != nil {
		return err
	}
	for _, file := range []string{"fleet.pem", "fleet-key.pem"} {
		switch there, err := vfs.Exists(store.FS, filepath.Join(d.certs(), file)); {
		case err != nil:
			return err
		case !there:
			store.Replace = true
			subject := pki.UserSubject(auth.FleetPrefix+"fleet", auth.FleetGroup)
			_, err := store.Issue(ca, "fleet", pki.Request{Profile: pki.Client, CommonName: subject.CommonName, Organizations: subject.Organization})
			return err
		}
	}
	return nil
}

// writeContext tells holdfastctl where the cluster is. Certificates are in the file, not
// beside it: the folder may be another user's.
func (d *dev) writeContext(api string) (string, error) {
	path := d.file
	var err error
	if path == "" {
		if path, err = kubecontext.DefaultPath(os.Getenv); err != nil {
			return "", err
		}
	}
	c, err := kubecontext.Load(vfs.OS(), path)
	if errors.Is(err, kubecontext.ErrNoFile) {
		c, err = &kubecontext.Config{}, nil
	}
	if err != nil {
		return "", err
	}
	x := kubecontext.Context{Name: d.context, Server: []string{api}}
	for name, to := range map[string]*string{"ca.pem": &x.CA, "admin.pem": &x.Cert, "admin-key.pem": &x.Key} {
		text, err := vfs.ReadFile(vfs.OS(), filepath.Join(d.certs(), name))
		if err != nil {
			return "", err
		}
		*to = string(text)
	}
	c.Set(x)
	c.Current = d.context
	if err := c.Save(vfs.OS(), path, os.Getenv); err != nil {
		return "", fmt.Errorf("context file: %w", err)
	}
	return path, nil
}
