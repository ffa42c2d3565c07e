package conformance

import (
	"net/netip"
	"os"
	"strings"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func networkCases() []test {
	return []test{
		{name: "a port of a pod can be dialled", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "serve", "127.0.0.1:0", "hello")
			s.ready(c)
			port := strings.Fields(s.says(c, "ready"))[1]
			s.equal("answer", s.ask(pod, port, "you"), "hello you")
			s.equal("answer to another", s.ask(pod, port, "again"), "hello again")
		}},
		{name: "a port at which nobody listens cannot be dialled", run: func(s *scene) {
			pod := s.pod()
			s.ready(s.spec(pod, "wait"))
			conn, err := s.engine.Dial(s.ctx, pod.UID, 1)
			if err != nil {
				return
			}
			defer conn.Close()
			// Through a runtime of others the refusal comes as the end of the connection.
			if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
				s.Error("somebody answers")
			}
		}},
		{name: "pods have addresses of their own, and their localhosts do not meet", podNetwork: true, run: func(s *scene) {
			a, b := s.podSpec(), s.podSpec()
			ipA, err := netip.ParseAddr(s.open(a).IP)
			s.ok(err)
			ipB, err := netip.ParseAddr(s.open(b).IP)
			s.ok(err)
			if ipA == ipB {
				s.Errorf("both have %v", ipA)
			}
			inA, inB := s.spec(a, "serve", "127.0.0.1:7777", "a"), s.spec(b, "serve", "127.0.0.1:7777", "b")
			s.ready(inA)
			s.ready(inB)
			s.equal("one answers", s.ask(a, "7777", "x"), "a x")
			s.equal("the other answers", s.ask(b, "7777", "x"), "b x")
			c := s.spec(a, "open", ipA.String()+":7778", "x")
			s.named(a, c, "client", 0)
			own := s.spec(a, "serve", ipA.String()+":7778", "own")
			s.named(a, own, "own", 0)
			s.ready(own)
			s.equal("who answers at its own address", s.output(a, c), "own x\n")
		}},
		{name: "a pod on the network of the node sees it and has no address", run: func(s *scene) {
			spec := s.podSpec()
			spec.HostNetwork = true
			s.equal("its address", s.open(spec).IP, "")
			net, err := os.Readlink("/proc/self/ns/net")
			s.ok(err)
			s.equal("its network", s.parse(s.output(spec, s.spec(spec, "report"))).Namespaces["net"], net)
		}},
	}
}

func nameCases() []test {
	return []test{
		{name: "a pod has the name that it was given", isolated: true, run: func(s *scene) {
			pod := s.pod()
			s.equal("name", s.parse(s.output(pod, s.spec(pod, "report"))).Hostname, pod.Hostname)
		}},
		{name: "a container knows the names of its pod and those that were added", isolated: true, podNetwork: true, run: func(s *scene) {
			pod := s.pod(func(p *runtime.PodSpec) {
				p.Hosts = []runtime.Host{{IP: "192.0.2.7", Names: []string{"one.test", "two.test"}}}
			})
			hosts := s.output(pod, s.spec(pod, "read", "/etc/hosts"))
			for _, want := range [][]string{{"127.0.0.1", "localhost"}, {s.listed(pod.UID).IP, pod.Hostname}, {"192.0.2.7", "one.test", "two.test"}} {
				if !hasLine(hosts, want) {
					s.Errorf("no line %v in\n%s", want, hosts)
				}
			}
		}},
		{name: "a container asks the name servers of its pod", isolated: true, run: func(s *scene) {
			pod := s.pod(func(p *runtime.PodSpec) {
				p.DNS = runtime.DNS{Servers: []string{"192.0.2.53"}, Searches: []string{"a.test", "b.test"}, Options: []string{"ndots:5"}}
			})
			conf := s.output(pod, s.spec(pod, "read", "/etc/resolv.conf"))
			for _, want := range [][]string{{"nameserver", "192.0.2.53"}, {"search", "a.test", "b.test"}, {"options", "ndots:5"}} {
				if !hasLine(conf, want) {
					s.Errorf("no line %v in\n%s", want, conf)
				}
			}
		}},
	}
}

// hasLine reports whether a line of a text begins with some words and, in whatever
// order, has the others.
func hasLine(text string, words []string) bool {
	for l := range strings.Lines(text) {
		fields := strings.Fields(l)
		if len(fields) == 0 || fields[0] != words[0] {
			continue
		}
		all := true
		for _, w := range words[1:] {
			all = all && contains(l, w)
		}
		if all {
			return true
		}
	}
	return false
}
