package pki

import (
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Node is a machine that runs pods.
type Node struct {
	Name  string
	Hosts []string // How it is dialed, beside its name.
}

// SetRequest is the certificates of a whole cluster.
type SetRequest struct {
	Hosts    []string // IP addresses and names of the machines with store members and API servers.
	Nodes    []Node
	Signing  Signing
	Validity time.Duration // 0: as the profiles say, else 5 years.
	Key      KeyType
}

// Named is a certificate and the name of its files.
type Named struct {
	Name    string
	Request Request
}

// Names by which programs in a cluster dial the API server.
var serviceNames = []string{"localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}

// Plan lists what makes up the set.
func (r SetRequest) Plan() ([]Named, error) {
	if len(r.Hosts) == 0 {
		return nil, fmt.Errorf("%w: a set needs the IP addresses and names of the store's members and API servers", ErrRequest)
	}
	local := union(r.Hosts, serviceNames[:3])
	set := []Named{
		{"server", Request{Profile: Server, CommonName: "holdfast server", Hosts: local}},
		{"peer", Request{Profile: Peer, CommonName: "holdfast peer", Hosts: local}},
		{"client", Request{Profile: Client, CommonName: "client"}},
		{"apiserver", Request{Profile: Kubernetes, CommonName: APIServerUser, Hosts: union(r.Hosts, serviceNames)}},
		{"kube-proxy", client(UserSubject(ProxyUser, ProxyGroup))},
		{"admin", client(UserSubject("admin", AdminsGroup))},
		{"scheduler", client(UserSubject(SchedulerUser))},
		{"controllers", client(UserSubject(ControllersUser))},
	}
	seen := map[string]bool{}
	for _, n := range r.Nodes {
		if err := CheckNodeName(n.Name); err != nil {
			return nil, err
		}
		if seen[n.Name] {
			return nil, fmt.Errorf("%w: node %q is named twice", ErrRequest, n.Name)
		}
		seen[n.Name] = true
		serving := client(NodeSubject(n.Name))
		serving.Profile, serving.Hosts = Server, union([]string{n.Name}, n.Hosts)
		set = append(set, Named{"kubelet-client-" + n.Name, client(NodeSubject(n.Name))}, Named{"kubelet-serving-" + n.Name, serving})
	}
	for i := range set {
		terms, err := r.Signing.Terms(set[i].Request.Profile)
		if err != nil {
			return nil, err
		}
		set[i].Request.Terms, set[i].Request.Key, set[i].Request.Validity = &terms, r.Key, r.Validity
	}
	return set, nil
}

func client(subject pkix.Name) Request {
	return Request{Profile: Client, CommonName: subject.CommonName, Organizations: subject.Organization}
}

func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// Set makes what a set lacks: who adds a node gives the same command with one
// node more. Pairs that are there stay, unless s replaces.
func (s Store) Set(a *Authority, req SetRequest) ([]*Written, error) {
	plan, err := req.Plan()
	if err != nil {
		return nil, err
	}
	now := s.Clock.Wall()
	for _, n := range plan { // Before the first file is written.
		if _, _, err := a.template(n.Request, now); err != nil {
			return nil, fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	var all []*Written
	for _, n := range plan {
		whole, err := s.hasPair(n.Name)
		if err != nil {
			return all, err
		}
		if whole && !s.Replace {
			cert, key := s.names(n.Name)
			all = append(all, &Written{Cert: cert, Key: key, Kept: true})
			continue
		}
		w, err := s.Issue(a, n.Name, n.Request)
		if err != nil {
			return all, err
		}
		all = append(all, w)
	}
	return all, nil
}

func (s Store) hasPair(name string) (bool, error) {
	cert, key := s.names(name)
	for _, file := range []string{cert, key} {
		if exists, err := vfs.Exists(s.FS, file); err != nil || !exists {
			return false, err
		}
	}
	return true, nil
}
