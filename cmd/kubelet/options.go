package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	valid "k8s.io/apimachinery/pkg/util/validation"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/logs"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/network"
	"github.com/holdfast-db/holdfast/kube/node"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
)

// options is what the command line says.
type options struct {
	servers          []string
	dir              string
	staticDir        string
	node             string
	token, tokenFile string
	runtime          string
	pods             int64

	// Of nodes that run containers.
	socket   string
	address  string
	labels   map[string]string
	zone     string
	reserve  map[string]string
	reserved corev1.ResourceList
	backend  string

	podRange, serviceRange   string
	podPrefix, servicePrefix netip.Prefix

	// Of simulated nodes.
	count       int
	certs, cert string
	cpu, memory string
	zones       int
	capacity    corev1.ResourceList

	logLevel, logFormat string

	log      *logs.Log
	instance string
}

const (
	// countMax is what one process can be.
	countMax = 20_000

	// rootDir is the folder of a node whose kubelet is root.
	rootDir = "/var/lib/holdfast-kubelet"

	// simulated is the runtime that runs nothing.
	simulated = "sim"

	// serviceRange is that of control planes to which nothing was said.
	serviceRange = "10.96.0.0/16"
)

// flags declares them; all are also those of commands below.
func (o *options) flags(fs, all *pflag.FlagSet) {
	fs.StringSliceVar(&o.servers, "server", nil, "host:port of the API of each control plane, comma-separated")
	all.StringVar(&o.dir, "dir", "", "folder of the node, with its certificate, images, and what belongs to pods; kept from run to run; left out: "+rootDir+" for root, else kubelet")
	fs.StringVar(&o.staticDir, "static-dir", "", "folder of manifests of pods that this node runs by itself, with or without a control plane")
	all.StringVar(&o.node, "node-name", "", "name of the node; left out: the host's, in lower case")
	fs.StringVar(&o.token, "token", "", "join token, needed for the first start; others on this machine can see it: prefer --token-file")
	fs.StringVar(&o.tokenFile, "token-file", "", "file with the join token")
	all.StringVar(&o.runtime, "runtime", "", "what runs containers: native (this program, as root), process (plain processes), cri (the engine at --cri-socket), sim (nothing does); left out: sim for a fleet, cri with --cri-socket, native for root, else process")
	fs.Int64Var(&o.pods, "pods", node.PodsMax, "pods that each node takes")

	all.StringVar(&o.socket, "cri-socket", "", "socket of containerd or another engine, as unix:///run/containerd/containerd.sock")
	fs.StringVar(&o.address, "node-ip", "", "address of the node, as others reach it; left out: that by which it reaches the control plane")
	fs.StringToStringVar(&o.labels, "node-labels", nil, "labels of the node, NAME=VALUE,…")
	fs.StringVar(&o.zone, "zone", "", "zone of the node: its label "+corev1.LabelTopologyZone)
	fs.StringToStringVar(&o.reserve, "reserve", map[string]string{"memory": "100Mi"}, "what is kept from pods, as cpu=500m,memory=1Gi,ephemeral-storage=10Gi")

	fs.StringVar(&o.backend, "network", string(network.HostGateway), "how packets come to pods of other nodes, with --runtime native (with cri the CNI configuration says it): host-gw (nodes are on one wire), vxlan (by UDP), none (there is one node, or somebody else routes)")
	fs.StringVar(&o.podRange, "pod-range", "10.244.0.0/16", "addresses of all pods, as the control planes have them")
	fs.StringVar(&o.serviceRange, "service-range", "", "addresses of services, as the control planes have them; left out: "+serviceRange+", or with --runtime process and each --server on loopback "+node.LoopbackServices+", as 'controlplane dev' has it")

	fs.IntVar(&o.count, "count", 1, "number of simulated nodes; more than one need the certificate of a fleet")
	fs.StringVar(&o.certs, "certs-dir", "certs", "folder with ca.pem and the certificate of a fleet")
	fs.StringVar(&o.cert, "cert", "", "name of the pair of files of a simulated fleet, whose common name is system:fleet:PREFIX; fleet, for example")
	fs.StringVar(&o.cpu, "cpu", "8", "cores of each simulated node")
	fs.StringVar(&o.memory, "memory", "32Gi", "memory of each simulated node")
	fs.IntVar(&o.zones, "zones", 0, "zones that the nodes of a fleet are spread over; 0: none")

	fs.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&o.logFormat, "log-format", logs.JSON, "json or console")
}

// onlyOf are flags that mean nothing to the other sort of node.
var onlyOf = map[bool][]string{
	true:  {"count", "cert", "certs-dir", "cpu", "memory", "zones"},
	false: {"cri-socket", "node-ip", "node-labels", "zone", "reserve", "network", "pod-range", "service-range"},
}

// choose fills in what was left out, and refuses what does not go together.
func (o *options) choose(given func(flag string) bool) error {
	root := os.Geteuid() == 0
	if o.runtime == "" {
		switch {
		case o.cert != "" || given("count"):
			o.runtime = simulated
		case o.socket != "":
			o.runtime = string(node.CRI)
		case root:
			o.runtime = string(node.Native)
		default:
			o.runtime = string(node.Process)
		}
	}
	sims := o.runtime == simulated
	for _, flag := range onlyOf[!sims] {
		switch {
		case !given(flag):
		case sims:
			return wrong("--%s is of nodes that run containers: leave it out, or use another --runtime than sim", flag)
		case flag == "cpu" || flag == "memory":
			return wrong("--%s is of simulated nodes: what a machine has is measured, and --reserve keeps some of it from pods", flag)
		default:
			return wrong("--%s is of simulated nodes: use --runtime sim, or leave it out", flag)
		}
	}
	if err := o.oneOrFleet(given); err != nil {
		return err
	}
	if o.dir == "" {
		o.dir = "kubelet"
		if root && !sims {
			o.dir = rootDir
		}
	}
	return nil
}

// oneOrFleet refuses what is of a single node beside the certificate of a fleet.
func (o *options) oneOrFleet(given func(flag string) bool) error {
	for _, flag := range []string{"node-name", "token", "token-file"} {
		if o.cert != "" && given(flag) {
			return wrong("--%s goes with one node, and --cert is of a fleet, which has its names from there: leave one of them out", flag)
		}
	}
	return nil
}

// alone reports whether all of the cluster is on this machine: nobody else reaches its
// control planes.
func (o *options) alone() bool {
	return !slices.ContainsFunc(o.servers, func(server string) bool {
		host, _, err := net.SplitHostPort(server)
		ip, _ := netip.ParseAddr(host) // A name is none.
		return err != nil || host != "localhost" && !ip.IsLoopback()
	})
}

func (o *options) run(ctx context.Context, stderr io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	var err error
	if o.log, err = logs.New(stderr, o.logLevel, o.logFormat, clock.Real()); err != nil {
		return usage{err}
	}
	if info, err := vfs.OS().Stat(o.dir); err == nil && !info.IsDir {
		return wrong("--dir: %s is a file: name a folder, which need not be there yet", o.dir)
	}
	if err := vfs.MakeFolder(vfs.OS(), o.dir); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	if o.instance, err = kubelet.InstanceOf(vfs.OS(), o.dir); err != nil {
		return err
	}
	if o.cert != "" {
		return o.runFleet(ctx)
	}
	return o.runNode(ctx)
}

func (o *options) check() error {
	if len(o.servers) == 0 {
		return wrong("--server is missing: give host:port of a control plane")
	}
	for _, s := range o.servers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			return wrong("--server: %q is no host:port", s)
		}
	}
	if o.pods < 1 {
		return wrong("--pods is %d: use 1 or more", o.pods)
	}
	if err := o.name(); err != nil {
		return err
	}
	if o.runtime == simulated {
		return o.checkSimulated()
	}
	return o.checkReal()
}

// name is the host's, unless there is another.
func (o *options) name() error {
	if o.node != "" {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("the host has no name: %w: give --node-name", err)
	}
	o.node = strings.ToLower(host)
	return nil
}

func (o *options) podsQuantity() resource.Quantity {
	return *resource.NewQuantity(o.pods, resource.DecimalSI)
}

func (o *options) checkSimulated() error {
	if o.count < 1 || o.count > countMax {
		return wrong("--count is %d: use 1 to %d", o.count, countMax)
	}
	if o.zones < 0 {
		return wrong("--zones is %d: use 0, for none, or more", o.zones)
	}
	if o.count > 1 && o.cert == "" {
		return wrong("--count is %d: a fleet needs --certs-dir and --cert, a pair with the common name system:fleet:PREFIX of the organization system:fleets", o.count)
	}
	o.capacity = sim.DefaultCapacity()
	for _, r := range []struct {
		flag, text string
		name       corev1.ResourceName
	}{{"cpu", o.cpu, corev1.ResourceCPU}, {"memory", o.memory, corev1.ResourceMemory}} {
		q, err := api.ParseQuantity(r.text)
		if err != nil || q.Sign() <= 0 {
			return wrong("--%s is %q: use a quantity such as 8, 500m or 32Gi", r.flag, r.text)
		}
		o.capacity[r.name] = q
	}
	o.capacity[corev1.ResourcePods] = o.podsQuantity()
	return nil
}

// checkReal looks at the machine, too.
func (o *options) checkReal() error {
	o.reserved = corev1.ResourceList{}
	for _, name := range slices.Sorted(maps.Keys(o.reserve)) {
		q, err := api.ParseQuantity(o.reserve[name])
		if err != nil || q.Sign() < 0 {
			return wrong("--reserve: %s=%s is no quantity such as cpu=500m or memory=1Gi", name, o.reserve[name])
		}
		switch r := corev1.ResourceName(name); r {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			o.reserved[r] = q
		default:
			return wrong("--reserve: there is no %s: use cpu, memory and ephemeral-storage", name)
		}
	}
	if o.zone != "" {
		if o.labels == nil {
			o.labels = map[string]string{}
		}
		o.labels[corev1.LabelTopologyZone] = o.zone
	}
	for _, name := range slices.Sorted(maps.Keys(o.labels)) {
		for _, problems := range [][]string{valid.IsQualifiedName(name), valid.IsValidLabelValue(o.labels[name])} {
			if len(problems) > 0 {
				return wrong("label %s=%s: %s", name, o.labels[name], problems[0])
			}
		}
	}
	if err := o.ranges(); err != nil {
		return err
	}
	if o.address == "" {
		var err error
		if o.address, err = node.Address(o.servers[0]); err != nil {
			return err
		}
	}
	if err := o.nodeConfig().Validate(); err != nil {
		return usage{err}
	}
	return nil
}

// ranges are those of the control planes.
func (o *options) ranges() (err error) {
	const mend = "give an address and its bits, as 10.96.0.0/16"
	if o.podPrefix, err = netip.ParsePrefix(o.podRange); err != nil {
		return wrong("--pod-range is %q: %s", o.podRange, mend)
	}
	if o.serviceRange == "" {
		o.serviceRange = serviceRange
		if o.runtime == string(node.Process) && o.alone() {
			o.serviceRange = node.LoopbackServices
		}
	}
	if o.servicePrefix, err = netip.ParsePrefix(o.serviceRange); err != nil {
		return wrong("--service-range is %q: %s", o.serviceRange, mend)
	}
	if o.podPrefix.Overlaps(o.servicePrefix) {
		return wrong("--pod-range %v and --service-range %v: pods and services would have the same addresses: give both as the control planes have them", o.podPrefix, o.servicePrefix)
	}
	return nil
}
