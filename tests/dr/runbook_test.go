package dr

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/tests/cluster"
)

// fill writes for a while, and returns what was acknowledged and has reached
// all members.
func fill(t *testing.T, c *cluster.Cluster, round string) *acknowledged {
	t.Helper()
	stored := &acknowledged{revisions: map[string]int64{}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	write(ctx, t, c, round, stored)()
	check(t, c, stored)
	return stored
}

// without is the members but one.
func without(c *cluster.Cluster, gone *cluster.Member) []*cluster.Member {
	var rest []*cluster.Member
	for _, m := range c.Members {
		if m != gone {
			rest = append(rest, m)
		}
	}
	return rest
}

func TestTheRunbookForALostMember(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	stored := fill(t, c, "load")
	lost := c.Members[2]
	lost.Kill()
	if err := os.RemoveAll(lost.DataDir); err != nil {
		t.Fatal(err)
	}
	p := openPage(t, c, "lost-member.md")
	if out := p.Types(1); !strings.Contains(out, lost.ClientURL) {
		t.Error("the lost member is not named")
	}
	added := joins(t, c)
	p.Types(0)
	c.Members = without(c, lost)
	p.starts(added)
	p.Types(0)
	if out := p.Types(0); strings.Count(out, "is healthy") != 3 {
		t.Error("not three healthy members")
	}
	check(t, c, stored)

	old := c.Members[0]
	c.Members = append(c.Members, lost) // Names go on from the longest list.
	moved := joins(t, c)
	c.Members = without(c, lost)
	p.Types(0)
	p.starts(moved)
	if out := p.Types(0); strings.Count(out, "is healthy") != 3 {
		t.Error("not three healthy members")
	}
	c.Members = without(c, old)
	check(t, c, stored)
}
