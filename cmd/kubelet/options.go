package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/logs"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/runtime/sim"
)

// options is what the command line says.
type options struct {
	servers          []string
	dir              string
	node             string
	token, tokenFile string
	runtime          string
	count            int
	certs, cert      string
	cpu, memory      string
	pods             int64
	zones            int

	logLevel, logFormat string

	log      *logs.Log
	capacity corev1.ResourceList
	instance string
}

// countMax is what one process can be.
const countMax = 20_000

func (o *options) flags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.servers, "server", nil, "host:port of the API of each control plane, comma-separated")
	fs.StringVar(&o.dir, "dir", "kubelet", "folder of the node's certificate and its instance; kept from run to run")
	fs.StringVar(&o.node, "node-name", "", "name of the node; left out: the host's, in lower case")
	fs.StringVar(&o.token, "token", "", "join token, needed for the first start; others on this machine can see it: prefer --token-file")
	fs.StringVar(&o.tokenFile, "token-file", "", "file with the join token")
	fs.StringVar(&o.runtime, "runtime", "sim", "what runs containers: sim (nothing does)")
	fs.IntVar(&o.count, "count", 1, "number of simulated nodes; more than one need the certificate of a fleet")
	fs.StringVar(&o.certs, "certs-dir", "certs", "folder with ca.pem and the certificate of a fleet")
	fs.StringVar(&o.cert, "cert", "", "name of the pair of files of the fleet, whose common name is system:fleet:PREFIX; fleet, for example")
	fs.StringVar(&o.cpu, "cpu", "8", "cores of each node")
	fs.StringVar(&o.memory, "memory", "32Gi", "memory of each node")
	fs.Int64Var(&o.pods, "pods", 110, "pods that each node takes")
	fs.IntVar(&o.zones, "zones", 0, "zones that the nodes of a fleet are spread over; 0: none")
	fs.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&o.logFormat, "log-format", logs.JSON, "json or console")
}

// planned are runtimes that have a name and no code yet.
var planned = map[string]string{
	"native": "containers by this program's own code", "cri": "containers by containerd or CRI-O", "process": "plain processes",
}

func (o *options) run(ctx context.Context, stderr io.Writer) error {
	if what, ok := planned[o.runtime]; ok {
		return fmt.Errorf("--runtime is %s: runtime %s is not built yet (%s: planned for the next version): use --runtime sim", o.runtime, o.runtime, what)
	}
	if err := o.check(); err != nil {
		return err
	}
	var err error
	if o.log, err = logs.New(stderr, o.logLevel, o.logFormat, clock.Real()); err != nil {
		return usage{err}
	}
	if err := vfs.MakeFolder(vfs.OS(), o.dir); err != nil {
		return err
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
	if o.runtime != "sim" {
		return wrong("--runtime is %q: use sim", o.runtime)
	}
	if len(o.servers) == 0 {
		return wrong("--server is missing: give host:port of a control plane")
	}
	for _, s := range o.servers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			return wrong("--server: %q is no host:port", s)
		}
	}
	if o.count < 1 || o.count > countMax {
		return wrong("--count is %d: use 1 to %d", o.count, countMax)
	}
	if o.count > 1 && o.cert == "" {
		return wrong("--count is %d: a fleet needs --certs-dir and --cert, a pair with the common name system:fleet:PREFIX of the organization system:fleets", o.count)
	}
	o.capacity = sim.DefaultCapacity()
	for _, r := range []struct {
		flag, text string
		name       corev1.ResourceName
	}{{"cpu", o.cpu, corev1.ResourceCPU}, {"memory", o.memory, corev1.ResourceMemory}} {
		q, err := resource.ParseQuantity(r.text)
		if err != nil || q.Sign() <= 0 {
			return wrong("--%s is %q: use a quantity such as 8, 500m or 32Gi", r.flag, r.text)
		}
		o.capacity[r.name] = q
	}
	if o.pods < 1 {
		return wrong("--pods is %d: use 1 or more", o.pods)
	}
	o.capacity[corev1.ResourcePods] = *resource.NewQuantity(o.pods, resource.DecimalSI)
	if o.node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("the host has no name: %w: give --node-name", err)
		}
		o.node = strings.ToLower(host)
	}
	return nil
}
