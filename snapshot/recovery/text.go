package recovery

import (
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/snapshot"
)

// Text is the plan for people, in Markdown: what is kept, what may be lost, what
// the new cluster is, and what keeps the old one out.
func (p *Plan) Text() (string, error) {
	next, err := p.Targets()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Recovery plan %s\n\n", p.ID)
	fmt.Fprintf(&b, "Source: member %s (%s), %s, of cluster %s on timeline %d.\n", p.Name, p.Member, p.Source.DataDir, p.OldCluster, p.OldTimeline)
	if p.Running {
		b.WriteString("IT RUNS, and this plan can not be applied: freeze it (recover collect --freeze), and plan again.\n")
	}
	if len(p.Dead) > 0 {
		fmt.Fprintf(&b, "Given up: %s.\n", joined(p.Dead))
	}
	b.WriteString("\n## What is kept\n\n")
	fmt.Fprintf(&b, "Entries up to %d are proven to be committed.\n", p.Committed)
	p.writeUncertain(&b)
	p.writeLoss(&b)
	p.writeCluster(&b, next)
	return b.String(), nil
}

func (p *Plan) writeUncertain(b *strings.Builder) {
	if len(p.Uncertain) == 0 {
		return
	}
	fmt.Fprintf(b, "Entries %d to %d are uncertain: nothing here proves that they were committed. They are kept:\n\n", p.Committed+1, p.Keep.Index)
	for _, e := range p.Uncertain {
		fmt.Fprintf(b, "- %d of term %d", e.Index, e.Term)
		if !e.Time.IsZero() {
			fmt.Fprintf(b, ", %s", stamp(e.Time))
		}
		if len(e.Requests) == 0 {
			b.WriteString(": changes nothing")
		}
		for i, r := range e.Requests {
			separator := "; "
			if i == 0 {
				separator = ": "
			}
			b.WriteString(separator + r.String())
		}
		b.WriteString("\n")
	}
}

// String is a request in words.
func (r Request) String() string {
	switch {
	case len(r.Key) == 0:
		return r.What
	case len(r.End) == 0:
		return fmt.Sprintf("%s %q", r.What, r.Key)
	}
	return fmt.Sprintf("%s from %q to %q", r.What, r.Key, r.End)
}

func (p *Plan) writeLoss(b *strings.Builder) {
	b.WriteString("\n## What may be lost\n\n")
	if !p.Loss.Possible {
		b.WriteString("Nothing: each write that was acknowledged lies in what is kept.\n")
		return
	}
	for _, why := range p.Loss.Why {
		fmt.Fprintf(b, "- %s\n", why)
	}
	fmt.Fprintf(b, "\nWhat is lost was proposed after %s, by the clock of the leader, and before %s, when the facts were collected.\n", stamp(p.Loss.From), stamp(p.Loss.Until))
	if p.Bump > 0 {
		fmt.Fprintf(b, "The revision is raised by %d, and all before is compacted: whoever saw what is lost is told.\n", p.Bump)
	} else {
		b.WriteString("Revisions go on without a gap: whoever saw what is lost may take new writes for it, unless --bump-revision raises them.\n")
	}
	fmt.Fprintf(b, "Whoever accepts that says so with --accept-loss %s.\n", p.ID)
}

func (p *Plan) writeCluster(b *strings.Builder, next *snapshot.Plan) {
	fmt.Fprintf(b, "\n## The new cluster\n\nCluster %s on timeline %d; its log goes on at entry %d, term %d.\n\n", next.Cluster, next.Timeline, next.At, next.Term)
	for _, m := range next.Members {
		fmt.Fprintf(b, "- member %s (%s), %s, in %s", m.Name, m.ID, strings.Join(m.PeerURLs, ","), m.DataDir)
		if m.WALDir != "" {
			fmt.Fprintf(b, ", log in %s", m.WALDir)
		}
		b.WriteString("\n")
	}
	b.WriteString(`
What lies in those places is renamed aside. Members of the old cluster that come back are refused by the new one and refuse it: IDs and
timeline differ. `)
	if p.Fence == nil {
		b.WriteString("Nothing but that keeps them from serving clients that still reach them: stop them, or freeze their directories.\n")
		return
	}
	fmt.Fprintf(b, "Epoch %d in %s ends them: those that look for epochs (--archive-epoch) acknowledge nothing 10 s after it. It is taken before anything is built.\n", p.Fence.Epoch, p.Fence.URL)
}

func joined(ids []ID) string {
	var words []string
	for _, id := range ids {
		words = append(words, id.String())
	}
	return strings.Join(words, ", ")
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 MST") }
