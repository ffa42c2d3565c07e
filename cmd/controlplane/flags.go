package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/logs"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/scheduler/placement"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/server"
)

// options is what the command line says. The flags of the member are named and preset
// as those of holdfast, which has more of them.
type options struct {
	member             server.Config
	heartbeat, timeout int64 // Milliseconds.

	certs        string
	listenAPI    string
	advertiseAPI string
	authority    string // Folder of ca.pem and ca-key.pem. Empty: certs.

	serviceRange, podRange string
	nodeProfile            string
	profile                string

	logLevel, logFormat string
}

func (o *options) flags(fs *pflag.FlagSet) {
	m := &o.member
	*m = server.DefaultConfig(nil)
	fs.StringVar(&m.Name, "name", "default", "name of this control plane and its member of the store, unique in the cluster")
	fs.StringVar(&m.DataDir, "data-dir", "", "folder for all data of the member; left out: NAME.holdfast")
	fs.StringVar(&m.WALDir, "wal-dir", "", "folder for the Raft log, if it shall be on another disk")
	fs.StringSliceVar(&m.ListenPeerURLs, "listen-peer-urls", []string{"https://localhost:2380"}, "URLs to listen on for other members of the store")
	fs.StringSliceVar(&m.ListenClientURLs, "listen-client-urls", []string{"https://localhost:2379"}, "URLs to listen on for clients of the store, whose own permissions (auth enable) must stay off: the control plane has no user in it")
	fs.StringSliceVar(&m.ListenMetricsURLs, "listen-metrics-urls", nil, "more addresses for /metrics and /health")
	fs.StringSliceVar(&m.AdvertisePeerURLs, "initial-advertise-peer-urls", nil, "URLs by which other members reach this one; left out: those listened on")
	fs.StringSliceVar(&m.AdvertiseClientURLs, "advertise-client-urls", nil, "URLs by which clients reach the member; left out: those listened on")
	fs.StringVar(&m.InitialCluster, "initial-cluster", "", "NAME=URL,… of all first members; left out: this one alone")
	fs.StringVar(&m.InitialClusterState, "initial-cluster-state", server.StateNew, "new, or existing to join a running cluster; ignored where there is data")
	fs.StringVar(&m.InitialClusterToken, "initial-cluster-token", "etcd-cluster", "keeps two clusters with equal URLs apart")
	fs.Int64Var(&o.heartbeat, "heartbeat-interval", 100, "milliseconds between heartbeats of the store's leader")
	fs.Int64Var(&o.timeout, "election-timeout", 1000, "milliseconds without a leader until an election; at least five heartbeats")
	fs.Int64Var(&m.QuotaBytes, "quota-backend-bytes", 0, "bytes that the store may reach before writes are refused; 0: 2 GiB; negative: no quota")
	fs.StringVar(&m.AutoCompactionMode, "auto-compaction-mode", "periodic", "periodic or revision")
	fs.StringVar(&m.AutoCompactionRetention, "auto-compaction-retention", "1h", "how much of the past the store keeps; 0: all")
	fs.BoolVar(&m.EnablePprof, "enable-pprof", false, "serve profiles on /debug/pprof of the store's client URLs")
	fs.StringVar(&m.ArchiveURL, "archive-url", "", "where the continuous archive of the store is kept: file:///folder or s3://bucket/prefix?…; left out: there is none")
	fs.StringVar(&m.ArchiveMode, "archive-mode", server.ArchiveAsync, "async, or sync: a write is answered once it is in the archive")

	fs.StringVar(&o.certs, "certs-dir", "certs", "folder of certificates: server, peer and apiserver, as 'holdfastctl certs set' makes them")
	tlsFlags(fs, "", "clients of the store", &m.ClientTLS)
	tlsFlags(fs, "peer-", "other members of the store", &m.PeerTLS)
	fs.StringVar(&o.authority, "authority-dir", "", "folder of ca.pem and, if this cluster signs certificates, ca-key.pem; left out: --certs-dir")

	fs.StringVar(&o.listenAPI, "listen-api", "localhost:6443", "host:port to serve the API of the cluster's state on")
	fs.StringVar(&o.advertiseAPI, "advertise-api", "", "host:port by which other control planes reach this API; left out: that of --listen-api, if it names a host of the network")
	fs.StringVar(&o.serviceRange, "service-range", state.DefaultServiceRange, "addresses of services")
	fs.StringVar(&o.podRange, "pod-range", state.DefaultPodRange, "addresses of pods: each node gets a /24 of them")
	fs.StringVar(&o.profile, "scheduler-profile", placement.Spread.Name, "how nodes are rated: "+placement.Spread.Name+" or "+placement.Binpack.Name)
	fs.StringVar(&o.nodeProfile, "node-profile", "default", "how soon a silent node is dead and its pods are replaced: default (10 s, and 15 s later) or fast (3 s, and 2 s later)")
	logFlags(fs, &o.logLevel, &o.logFormat)
}

func tlsFlags(fs *pflag.FlagSet, prefix, whom string, t *server.TLS) {
	fs.StringVar(&t.CertFile, prefix+"cert-file", "", "certificate shown to "+whom+"; left out: from --certs-dir")
	fs.StringVar(&t.KeyFile, prefix+"key-file", "", "key of that certificate")
	fs.StringVar(&t.CAFile, prefix+"trusted-ca-file", "", "authorities that may sign certificates of "+whom)
}

func logFlags(fs *pflag.FlagSet, level, format *string) {
	fs.StringVar(level, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(format, "log-format", logs.JSON, "json or console")
}

// config checks what was said and reads nothing but names.
func (o *options) config(stderr io.Writer) (*planeConfig, error) {
	log, err := logs.New(stderr, o.logLevel, o.logFormat, clock.Real())
	if err != nil {
		return nil, err
	}
	m := o.member
	m.Logger = log
	m.HeartbeatInterval, m.ElectionTimeout = time.Duration(o.heartbeat)*time.Millisecond, time.Duration(o.timeout)*time.Millisecond
	defaultTLS(&m.ClientTLS, o.certs, "server")
	defaultTLS(&m.PeerTLS, o.certs, "peer")
	c := &planeConfig{
		Member: m, ListenAPI: o.listenAPI, Profile: o.profile, Logger: log,
		API:          pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: o.certs}.Files("apiserver"),
		AuthorityDir: o.authority,
	}
	if c.AuthorityDir == "" {
		c.AuthorityDir = o.certs
	}
	var errs []error
	errs = append(errs, o.ranges(c))
	if m.Name == "" {
		errs = append(errs, errors.New("--name is empty: each control plane has a name of its own; leave it out where there is one"))
	}
	if c.AdvertiseAPI, err = o.advertised(); err != nil {
		errs = append(errs, err)
	}
	if _, ok := placement.ProfileNamed(o.profile); !ok {
		errs = append(errs, fmt.Errorf("--scheduler-profile is %q: use %s or %s", o.profile, placement.Spread.Name, placement.Binpack.Name))
	}
	nodes, ok := nodeProfiles[o.nodeProfile]
	if !ok {
		errs = append(errs, fmt.Errorf("--node-profile is %q: use default or fast", o.nodeProfile))
	}
	c.Nodes = nodes
	return c, errors.Join(append(errs, m.Validate())...)
}

// ranges are looked at before the member starts: one that joined its cluster, and then
// ends because of them, is a voter that does not answer.
func (o *options) ranges(c *planeConfig) error {
	var errs []error
	for _, r := range []struct {
		flag, text string
		to         *netip.Prefix
	}{{"service-range", o.serviceRange, &c.ServiceRange}, {"pod-range", o.podRange, &c.PodRange}} {
		var err error
		if *r.to, err = netip.ParsePrefix(r.text); err != nil {
			errs = append(errs, fmt.Errorf("--%s is %q: give an address and its bits, as 10.96.0.0/16", r.flag, r.text))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := state.CheckRanges(c.ServiceRange, c.PodRange); err != nil {
		return fmt.Errorf("--service-range and --pod-range: %w", err)
	}
	return nil
}

// defaultTLS takes the files of a folder where none is named.
func defaultTLS(t *server.TLS, dir, name string) {
	if t.CertFile == "" && t.KeyFile == "" {
		t.CertFile, t.KeyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	}
	if t.CAFile == "" {
		t.CAFile = filepath.Join(dir, "ca.pem")
	}
	t.ClientCertAuth = true
}
