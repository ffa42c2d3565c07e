package cri_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/objects"
)

// findsServices asks for the service "web", and for one without an address, as pods and
// the node itself do.
func (c *cluster) findsServices(pods []*corev1.Pod) {
	c.t.Helper()
	web, err := objects.Get[*corev1.Service](c.t.Context(), c.api, "default", "web")
	must(c.t, err)
	bare := &corev1.Service{}
	bare.Namespace, bare.Name, bare.Spec.ClusterIP, bare.Spec.Selector = "default", "bare", corev1.ClusterIPNone, web.Spec.Selector
	bare.Spec.Ports = []corev1.ServicePort{{Port: demoPort}}
	_, err = objects.Create(c.t.Context(), c.api, bare)
	must(c.t, err)
	for _, name := range []string{"web", "web.default", "web.default.svc.cluster.local", web.Spec.ClusterIP, "bare"} {
		c.answersAll("a pod at "+name, pods, func() (string, error) {
			return c.said("exec", "-q", pods[0].Name, "--", "/bin/holdfast", "demo", "get", "-n", "10", fmt.Sprintf("http://%s:%d/", name, demoPort))
		})
	}
	c.answersAll("the node at the address of the service", pods, func() (string, error) {
		return get(fmt.Sprintf("http://%s:%d/", web.Spec.ClusterIP, demoPort))
	})
	c.headless(pods)
	c.policies()
}

// answersAll asks until each of some pods has answered, of which one may be who asks.
func (c *cluster) answersAll(who string, pods []*corev1.Pod, ask func() (string, error)) {
	c.t.Helper()
	left := map[string]bool{}
	for _, p := range pods {
		left[p.Name] = true
	}
	c.eventually(who+" is answered by all", func() error {
		body, err := ask()
		for name := range left {
			if strings.Contains(body, name) {
				delete(left, name)
			}
		}
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("without %v", slices.Collect(maps.Keys(left)))
		}
		return err
	})
}

func (c *cluster) said(args ...string) (string, error) {
	out, ok := c.try(args...)
	if !ok {
		return out, errors.New(out)
	}
	return out, nil
}

// settings are what a pod's resolv.conf says, by word.
func (c *cluster) settings(p *corev1.Pod) map[string][]string {
	c.t.Helper()
	var pids []int
	waitFor(c.t, "the process of "+p.Name, func() bool { // It may be about to become what it is.
		pids = processesOf(c.t, string(p.UID), "demo")
		return len(pids) > 0
	})
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/etc/resolv.conf", pids[0]))
	must(c.t, err)
	found := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 {
			found[words[0]] = append(found[words[0]], words[1:]...)
		}
	}
	return found
}

// headless asks where pods do for a service without an address, and is told of the pods.
func (c *cluster) headless(pods []*corev1.Pod) {
	c.t.Helper()
	server := c.settings(pods[0])["nameserver"]
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(server[0], "53"))
	}}
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	found, err := r.LookupHost(ctx, "bare.default.svc.cluster.local.")
	must(c.t, err)
	var want []string
	for _, p := range pods {
		want = append(want, p.Status.PodIP)
	}
	slices.Sort(want)
	slices.Sort(found)
	if !slices.Equal(found, want) {
		c.t.Errorf("the service without an address is at %v, want %v", found, want)
	}
}

// policies has pods with each policy of names.
func (c *cluster) policies() {
	c.t.Helper()
	node := map[string][]string{}
	text, err := os.ReadFile("/etc/resolv.conf")
	must(c.t, err)
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 {
			node[words[0]] = append(node[words[0]], words[1:]...)
		}
	}
	two := "2"
	for name, change := range map[string]func(*corev1.PodSpec){
		"first":   func(s *corev1.PodSpec) { s.DNSPolicy = corev1.DNSClusterFirst },
		"default": func(s *corev1.PodSpec) { s.DNSPolicy = corev1.DNSDefault },
		"none": func(s *corev1.PodSpec) {
			s.DNSPolicy = corev1.DNSNone
			s.DNSConfig = &corev1.PodDNSConfig{
				Nameservers: []string{"192.0.2.53"}, Searches: []string{"example.test"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}},
			}
		},
	} {
		p := lone(name, corev1.Container{Image: "builtin/demo"})
		change(&p.Spec)
		_, err := objects.Create(c.t.Context(), c.api, p)
		must(c.t, err)
		p = c.ready(name, 1)[0]
		is := c.settings(p)
		switch name {
		case "first":
			want := append([]string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"}, node["search"]...)
			if !slices.Equal(is["search"], want) || !slices.Equal(is["options"], []string{"ndots:5"}) || len(is["nameserver"]) != 1 || !strings.HasPrefix(is["nameserver"][0], "169.254.") {
				c.t.Errorf("ClusterFirst is %v", is)
			}
		case "default":
			if !slices.Equal(is["nameserver"], node["nameserver"]) || !slices.Equal(is["search"], node["search"]) {
				c.t.Errorf("Default is %v, and the node has %v", is, node)
			}
		case "none":
			if want := map[string][]string{"nameserver": {"192.0.2.53"}, "search": {"example.test"}, "options": {"ndots:2"}}; fmt.Sprint(is) != fmt.Sprint(want) {
				c.t.Errorf("None is %v, want %v", is, want)
			}
		}
		must(c.t, objects.Delete[*corev1.Pod](c.t.Context(), c.api, "default", name))
	}
}

// removesItsNetwork has the node taken off the machine, after its kubelet has ended.
func (c *cluster) removesItsNetwork() {
	c.t.Helper()
	has := func() (all []string) {
		links, err := netlink.LinkList()
		must(c.t, err)
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, "hf") {
				all = append(all, l.Attrs().Name)
			}
		}
		nft, err := nftables.New()
		must(c.t, err)
		tables, err := nft.ListTables()
		must(c.t, err)
		for _, table := range tables {
			if strings.HasPrefix(table.Name, "holdfast-") {
				all = append(all, table.Name)
			}
		}
		return all
	}
	if len(has()) < 3 {
		c.t.Errorf("the node has only %v", has())
	}
	remove := exec.Command(filepath.Join(c.bin, "kubelet"), "remove", "--dir=node", "--node-name="+os.Getenv(insideVariable), "--runtime=cri", "--cri-socket=unix://"+c.socket)
	remove.Dir = c.dir
	if out, err := remove.CombinedOutput(); err != nil {
		c.t.Errorf("kubelet remove: %v\n%s", err, out)
	}
	if left := has(); len(left) > 0 {
		c.t.Errorf("what is left of the network: %v", left)
	}
}
