package dr

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

const planOfThePage = "b1946ac92492"

var acceptLoss = regexp.MustCompile(`--accept-loss ([0-9a-f]+)`)

func TestTheRunbookForALostQuorumOnOneHost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	stored := fill(t, c, "load")
	loseDisks(t, c, c.Members[1:])
	p := openPage(t, c, "lost-quorum.md", "Is it lost?", "One host has all that is left", "Afterwards")
	p.Types(1)
	p.Names = []string{planOfThePage, planToAccept(t, p.Types(1)), "/mnt/old-disk/m2", lostDisk(c.Members[1])}
	p.Types(0)
	serveAlone(t, c.Members[0])
	for range 3 {
		p.Types(0)
	}
	hasAll(t, c, c.Members[0], stored)
}

func TestTheRunbookForALostQuorumOnSeveralHosts(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5)
	stored := fill(t, c, "load")
	loseDisks(t, c, c.Members[2:])
	p := openPage(t, c, "lost-quorum.md", "The survivors are on several hosts")
	other := *p.Page // "m2 likewise".
	p.Types(0)
	other.Names = []string{"m1.json", "m2.json", "/var/lib/holdfast/m1", c.Members[1].DataDir}
	other.Types(0)
	plan := p.Types(0)
	source := c.Members[0]
	if strings.Contains(plan, "Source: member m2 ") {
		source = c.Members[1]
	}
	p.Names = []string{planOfThePage, planToAccept(t, plan)}
	p.Types(0)
	serveAlone(t, source)
	hasAll(t, c, source, stored)
}

// loseDisks kills all members and takes the disks of some away.
func loseDisks(t *testing.T, c *cluster.Cluster, lost []*cluster.Member) {
	t.Helper()
	c.KillAll()
	for _, m := range lost {
		if err := os.Rename(m.DataDir, lostDisk(m)); err != nil {
			t.Fatal(err)
		}
	}
}

func lostDisk(m *cluster.Member) string { return m.DataDir + "-lost" }

func planToAccept(t *testing.T, out string) (id string) {
	t.Helper()
	found := acceptLoss.FindStringSubmatch(out)
	if found == nil {
		t.Fatal("no plan wants to be accepted")
	}
	return found[1]
}

func serveAlone(t *testing.T, m *cluster.Member) {
	t.Helper()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// hasAll wants what was acknowledged long before the quorum was lost.
func hasAll(t *testing.T, c *cluster.Cluster, m *cluster.Member, stored *acknowledged) {
	t.Helper()
	all := c.Members
	c.Members = []*cluster.Member{m}
	defer func() { c.Members = all }()
	check(t, c, stored)
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := cl.Put(t.Context(), client.Put{Key: "after", Value: []byte("after")}); err != nil {
		t.Fatal(err)
	}
}
