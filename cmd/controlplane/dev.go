package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/internal/build"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/logs"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/auth"
	kubecontext "github.com/holdfast-db/holdfast/kube/context"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/node"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/server"
)

// dev is a cluster on one machine, in one process, with certificates made for the
// occasion.
type dev struct {
	dir                   string
	listenAPI             string
	clientURL, peerURL    string
	runtime               string
	nodes                 int    // Simulated ones.
	node, address         string // Of the one that runs containers.
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
scheduler, the controllers, and this machine as a node; or with --runtime sim, simulated
nodes whose pods run no containers. What it stores stays in --data-dir, with its
certificates, and is found again the next time; pods go on in the meantime, and
'controlplane dev remove' ends them. The context that holdfastctl looks for is written
for the user who calls, through sudo or not.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := d.choose(cmd.Flags().Changed("nodes")); err != nil {
				return err
			}
			return failed(d.run(cmd.Context(), cmd.OutOrStdout()))
		},
	}
	fs := cmd.Flags()
	all := cmd.PersistentFlags()
	all.StringVar(&d.dir, "data-dir", "holdfast-dev", "folder for data, log and certificates; kept from run to run")
	fs.StringVar(&d.listenAPI, "listen-api", "127.0.0.1:6443", "host:port of the API")
	fs.StringVar(&d.clientURL, "listen-client-url", "https://127.0.0.1:2379", "URL of the store, for its own clients")
	fs.StringVar(&d.peerURL, "listen-peer-url", "https://127.0.0.1:2380", "URL of the store for other members, of which there are none")
	fs.StringVar(&d.metricsURL, "listen-metrics-url", "", "URL for /metrics and /health beside the store's")
	fs.StringVar(&d.retention, "auto-compaction-retention", "1h", "how much of the past the store keeps; 0: all")
	fs.BoolVar(&d.pprof, "enable-pprof", false, "serve profiles on /debug/pprof of the store's URL")
	all.StringVar(&d.runtime, "runtime", "", "what runs containers: native (this program, as root), process (plain processes), sim (nothing does); left out: native for root, else process")
	all.StringVar(&d.node, "node-name", "", "name of this machine as a node; left out: the host's, in lower case")
	fs.StringVar(&d.address, "node-ip", "", "address of this machine as a node; left out: the first that others reach it by")
	fs.IntVar(&d.nodes, "nodes", 3, "`number` of simulated nodes, with --runtime sim")
	fs.StringVar(&d.context, "context", "dev", "`name` of the context that is written")
	fs.StringVar(&d.file, "context-file", "", "`file` that the context is written to; left out: $HOLDFAST_CONFIG, or ~/.holdfast/config")
	fs.StringVar(&d.logLevel, "log-level", "info", "debug, info, warn or error")
	cmd.AddCommand(d.removeCommand())
	return cmd
}

// removeCommand leaves the machine as it was before.
func (d *dev) removeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove",
		Short: "End the pods of this machine and remove what they left",
		Long: `End the pods that a cluster for trials runs on this machine, and remove what it made
for them: processes, cgroups, networks, mounts, volumes. The store stays, and the next
run makes the pods anew; to be rid of all, remove --data-dir after this.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := d.choose(false); err != nil {
				return err
			}
			if d.runtime == simulated {
				return errors.New("--runtime is sim: simulated nodes leave nothing")
			}
			// A folder that was misspelt must not look like pods that have ended.
			if info, err := vfs.OS().Stat(filepath.Join(d.dir, "store")); err != nil || !info.IsDir {
				return failure{fmt.Errorf("no cluster for trials has run with --data-dir %s: nothing is removed; name its folder", d.dir)}
			}
			log, err := logs.New(cmd.ErrOrStderr(), "warn", logs.Console, clock.Real())
			if err != nil {
				return err
			}
			cfg := d.nodeConfig()
			cfg.Logger = log
			n, err := node.Remove(cmd.Context(), *cfg)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%d pods removed\n", n)
			}
			return failed(err)
		},
	}
}

// simNodesMax is what one process can be.
const simNodesMax = 10_000

// simulated is the runtime that runs nothing.
const simulated = "sim"

// choose fills in what was left out, and refuses what does not go together.
func (d *dev) choose(counted bool) error {
	if d.runtime == "" {
		d.runtime = string(node.Process)
		if os.Geteuid() == 0 {
			d.runtime = string(node.Native)
		}
	}
	switch {
	case d.runtime == simulated && (d.nodes < 0 || d.nodes > simNodesMax):
		return fmt.Errorf("--nodes is %d: use 0 to %d", d.nodes, simNodesMax)
	case d.runtime == simulated && d.node+d.address != "":
		return errors.New("--node-name and --node-ip are of a machine that runs containers: leave them out, or use another --runtime than sim")
	case d.runtime == simulated:
		return nil
	case d.runtime == string(node.CRI):
		return errors.New("--runtime is cri: dev brings its own runtime along; use native, process or sim, or a kubelet with --cri-socket beside it")
	case counted:
		return errors.New("--nodes is of simulated nodes: this machine is one node; use --runtime sim, or leave it out")
	}
	if d.node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("the host has no name: %w: give --node-name", err)
		}
		d.node = strings.ToLower(host)
	}
	if d.address == "" {
		var err error
		if d.address, err = node.Address(d.listenAPI); err != nil {
			return err
		}
	}
	return d.nodeConfig().Validate()
}

// nodeConfig is this machine as a node.
func (d *dev) nodeConfig() *node.Config {
	return &node.Config{
		Name: d.node, Dir: filepath.Join(d.dir, "node"), Kind: node.Kind(d.runtime), Address: d.address, Alone: true, Version: build.Version(),
		PodRange: d.podRange(), ServiceRange: d.serviceRange(), Random: rand.Uint64, Spread: rand.Float64,
	}
}

// podRange has room for thousands of nodes that are simulated, and whose addresses are in
// nobody's way.
func (d *dev) podRange() netip.Prefix {
	if d.runtime == simulated {
		return netip.MustParsePrefix("10.128.0.0/9")
	}
	return netip.MustParsePrefix(state.DefaultPodRange)
}

// serviceRange are addresses of services.
func (d *dev) serviceRange() netip.Prefix {
	if d.runtime == string(node.Process) {
		return netip.MustParsePrefix(node.LoopbackServices)
	}
	return netip.MustParsePrefix(state.DefaultServiceRange)
}

func (d *dev) run(ctx context.Context, stdout io.Writer) error {
	var err error
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(d.dir, "members")); err == nil {
		return fmt.Errorf("%s is the folder of 'holdfast dev': name another with --data-dir", d.dir)
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
		fmt.Fprintf(stdout, "The cluster is ready on this machine: API at %s, %s. Next:\n\n  holdfastctl get nodes\n\nThe context %q is in %s; data, certificates and log are in %s. Stop with Ctrl-C; the next run finds them again.\n",
			p.address, d.describe(), d.context, path, d.dir)
		return d.runNodes(ctx, p, instance, log.Named("kubelet"))
	})
	if err != nil {
		return fmt.Errorf("%w; the log is %s", err, logFile)
	}
	return nil
}

func (d *dev) describe() string {
	if d.runtime == simulated {
		return fmt.Sprintf("%d simulated nodes", d.nodes)
	}
	return "node " + d.node + " with runtime " + d.runtime
}

// runNodes runs the nodes, which reach the control plane within this process.
func (d *dev) runNodes(ctx context.Context, p *plane, instance string, log hclog.Logger) error {
	if d.runtime == simulated {
		return sim.RunFleet(ctx, sim.FleetConfig{
			Prefix: "sim", Count: d.nodes, Zones: min(d.nodes, 3), Instance: instance, Logger: log, Tunnels: true,
			Dial: func(node string) (grpc.ClientConnInterface, error) { return p.service.Dial(auth.Node(node)), nil },
		})
	}
	cfg, conn := d.nodeConfig(), p.service.Dial(auth.Node(d.node))
	cfg.Instance, cfg.Client, cfg.Logger = instance, objects.New(conn, "kubelet"), log
	cfg.Tunnels = []tunnel.Server{{Name: "this process", Conn: conn}}
	return node.Run(ctx, *cfg)
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
		ServiceRange: d.serviceRange(), PodRange: d.podRange(),
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
