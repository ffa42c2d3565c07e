//go:build linux

package native

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/stage"
	"github.com/holdfast-db/holdfast/kube/runtime/supervised"
)

// files of a pod that are mounted into /etc of its containers.
var files = []string{"hosts", "hostname", "resolv.conf"}

// writeNames writes them. They are written in place: containers have them mounted.
func writeNames(p *supervised.Pod) error {
	resolv, err := resolvConf(&p.Spec.DNS)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"hosts": hosts(p), "hostname": []byte(p.Spec.Hostname + "\n"), "resolv.conf": resolv} {
		at := filepath.Join(p.Dir(), name)
		if old, err := os.ReadFile(at); err == nil && bytes.Equal(old, text) {
			continue
		}
		if err := os.WriteFile(at, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func hosts(p *supervised.Pod) []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	ip := p.IP
	if ip == "" {
		ip = "127.0.1.1" // A name that can be looked up, whatever the network.
	}
	if p.Spec.Hostname != "" {
		fmt.Fprintf(&b, "%s\t%s\n", ip, p.Spec.Hostname)
	}
	for _, h := range p.Spec.Hosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, strings.Join(h.Names, " "))
	}
	return []byte(b.String())
}

// resolvConf is what a pod asks for, or the node's.
func resolvConf(d *runtime.DNS) ([]byte, error) {
	if len(d.Servers)+len(d.Searches)+len(d.Options) == 0 {
		text, err := os.ReadFile("/etc/resolv.conf")
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return text, err
	}
	var b strings.Builder
	for _, s := range d.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(d.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(d.Searches, " "))
	}
	if len(d.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(d.Options, " "))
	}
	return []byte(b.String()), nil
}

// mounts of a container: its own, and the pod's files where it has none at their place.
func mounts(p *supervised.Pod, spec *runtime.ContainerSpec) []stage.Mount {
	var all []stage.Mount
	taken := map[string]bool{}
	for _, m := range spec.Mounts {
		all = append(all, stage.Mount(m))
		taken[filepath.Clean("/"+m.Target)] = true
	}
	for _, name := range files {
		if to := "/etc/" + name; !taken[to] && !taken["/etc"] {
			all = append(all, stage.Mount{Source: filepath.Join(p.Dir(), name), Target: to, ReadOnly: spec.Security.ReadOnlyRoot})
		}
	}
	return all
}
