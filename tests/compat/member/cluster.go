package member

import (
	"fmt"
	"strings"
	"testing"
)

// Cluster is some members, all with certificates of one authority.
type Cluster struct {
	Members []*Member
	Certs   *Certs
}

// SlowElections is the flag of a cluster whose leader stays: a busy machine may hold a
// process up for seconds.
const SlowElections = "--election-timeout=3000"

// StartCluster starts n members with TLS on all ports, and waits until all serve.
func StartCluster(t testing.TB, n int, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{Certs: NewCerts(t)}
	ports := FreePorts(t, 2*n)
	var initial []string
	for i := range n {
		initial = append(initial, fmt.Sprintf("m%d=https://127.0.0.1:%d", i+1, ports[2*i+1]))
	}
	for i := range n {
		c.Members = append(c.Members, New(t, Config{
			Name: fmt.Sprintf("m%d", i+1), Scheme: "https", Args: append(c.Certs.Flags(), args...),
			InitialCluster: strings.Join(initial, ","),
			ClientPort:     ports[2*i], PeerPort: ports[2*i+1],
		}))
	}
	for _, m := range c.Members {
		m.Spawn()
	}
	for _, m := range c.Members {
		m.WaitReady()
	}
	return c
}

// Endpoints are the client URLs of all members.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, "https://"+m.Client)
	}
	return all
}
