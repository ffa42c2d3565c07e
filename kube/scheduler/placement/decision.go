package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Decision is where a pod shall go and why.
type Decision struct {
	Node    string // Empty: nowhere.
	Looked  int    // Nodes that were looked at.
	Nodes   int    // Nodes that there are.
	Reasons []Reason
	Scores  []Score // Of the best nodes, the best first.
	Refused Set     // The plugins that refused a node.
}

// Reason is why some of the nodes were not taken. A node that lacks two resources
// has two reasons.
type Reason struct {
	Plugin Plugin
	Text   string
	Nodes  int
}

// Score is how good a node is.
type Score struct {
	Node    string
	Total   int64
	Plugins []PluginScore
}

// PluginScore is what one plugin adds to a total: its points times its weight.
type PluginScore struct {
	Plugin Plugin
	Points int64
}

// Message says in one line why a pod is nowhere, in the words of Kubernetes.
func (d *Decision) Message() string {
	if d.Nodes == 0 {
		return "0/0 nodes are available: no nodes available to schedule pods."
	}
	parts := make([]string, 0, len(d.Reasons))
	for _, r := range d.Reasons {
		parts = append(parts, fmt.Sprintf("%d %s", r.Nodes, r.Text))
	}
	slices.Sort(parts)
	return fmt.Sprintf("0/%d nodes are available: %s.", d.Nodes, strings.Join(parts, ", "))
}

// refusal counts a node that is not taken.
func (c *Core) refusal(p Plugin, text string) {
	c.refused |= 1 << p
	for i := range c.reasons {
		if r := &c.reasons[i]; r.Plugin == p && r.Text == text {
			r.Nodes++
			return
		}
	}
	c.reasons = append(c.reasons, Reason{p, text, 1})
}

// counted are the reasons, the most frequent first.
func (c *Core) counted() []Reason {
	out := slices.Clone(c.reasons)
	slices.SortFunc(out, func(a, b Reason) int { return cmp.Or(cmp.Compare(b.Nodes, a.Nodes), cmp.Compare(a.Text, b.Text)) })
	return out
}
