package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// Target is a member of the cluster to be, and where it will live.
type Target struct {
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peer-urls"`
	ClientURLs []string `json:"client-urls"` // May be empty: the member tells them when it runs.
	DataDir    string   `json:"data-dir"`
	WALDir     string   `json:"wal-dir"` // Empty: within DataDir.
}

// ParseSpec reads a cluster spec file: YAML with a list `members`.
func ParseSpec(data []byte) ([]Target, error) {
	var spec struct {
		Members []Target `json:"members"`
	}
	if err := yaml.UnmarshalStrict(data, &spec); err != nil {
		// The parser ends with a type of Go's, which says nothing to whoever wrote the file.
		what, _, _ := strings.Cut(err.Error(), " into Go ")
		return nil, fmt.Errorf("cluster spec: %s: it is YAML with a list \"members\" of name, peer-urls, data-dir and, if need be, client-urls and wal-dir", what)
	}
	return spec.Members, nil
}

// RestoreOptions say what to make of a snapshot.
type RestoreOptions struct {
	Members []Target // The whole new cluster.
	Only    string   // Name of the one member to make here; empty: all of them.

	// Nonce makes the new IDs random: drawn once (NewNonce), and given again where
	// the other members are restored on other hosts. Without it IDs follow from
	// peer URLs and Token, as etcd computes them.
	Nonce string
	Token string

	// BumpRevision raises the revision, so that no revision ever has two contents
	// for those who saw writes after the snapshot. It goes with MarkCompacted:
	// watchers from before are told that what they want is compacted.
	BumpRevision  int64
	MarkCompacted bool

	Leases LeasePolicy // What becomes of leases; empty: LeasesRefill.

	Replace bool // What the targets hold is renamed aside.
}

// LeasePolicy says what becomes of the leases in a snapshot.
type LeasePolicy string

const (
	// LeasesRefill gives every lease its full time again.
	LeasesRefill LeasePolicy = "refill"
	// LeasesRemaining would give each what it had left. The state does not know
	// that: a renewal is between a client and the leader, and no entry of the log.
	// So it is the full time, the most that can have been left, and the plan says so.
	LeasesRemaining LeasePolicy = "remaining"
	// LeasesDrop takes all leases away, and the keys attached to them.
	LeasesDrop LeasePolicy = "drop"
)

// Plan is what a restore will do. It follows from the header of a snapshot and
// the options alone.
type Plan struct {
	Header  *holdfastpb.SnapshotHeader
	Cluster ident.ClusterID
	UUID    [16]byte
	// Timeline is new; it forks from the snapshot's at the snapshot's position.
	Timeline ident.Timeline
	At       ident.Index // Of the entry that makes the new cluster: where Raft's log goes on.
	Term     ident.Term
	Bump     int64 // 0: the revision stays.
	Leases   LeasePolicy
	Replace  bool
	Members  []PlannedMember // By rising ID.
}

// PlannedMember is a target with its ID.
type PlannedMember struct {
	Target
	ID   ident.MemberID
	Make bool // Here and now.
}

// NewNonce draws the nonce of a restore.
func NewNonce(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("draw a nonce: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// Validate reports all that is wrong.
func (o *RestoreOptions) Validate() error {
	c := &complaints{seen: make(map[string]bool)}
	c.when(len(o.Members) == 0, "no members are named")
	c.when(o.BumpRevision < 0, "--bump-revision %d is negative", o.BumpRevision)
	c.when((o.BumpRevision > 0) != o.MarkCompacted, "--bump-revision and --mark-compacted go together")
	c.when(!slices.Contains([]LeasePolicy{"", LeasesRefill, LeasesRemaining, LeasesDrop}, o.Leases), "--leases %q is not refill, remaining or drop", o.Leases)
	for _, m := range o.Members {
		c.target(&m)
		if o.Only == "" || m.Name == o.Only {
			c.when(m.DataDir == "" || c.taken("dir "+filepath.Clean(m.DataDir)), "data directory %q of member %s is empty or used twice", m.DataDir, m.Name)
			c.when(m.WALDir != "" && c.taken("dir "+filepath.Clean(m.WALDir)), "log directory %q of member %s is used twice", m.WALDir, m.Name)
		}
	}
	c.when(o.Only != "" && !c.seen["name "+o.Only], "member %q is not one of the new cluster's", o.Only)
	if len(c.wrong) > 0 {
		return fmt.Errorf("%w: %w", ErrInvalid, errors.Join(c.wrong...))
	}
	return nil
}

// complaints gathers all that is wrong with options.
type complaints struct {
	wrong []error
	seen  map[string]bool
}

func (c *complaints) when(bad bool, format string, args ...any) {
	if bad {
		c.wrong = append(c.wrong, fmt.Errorf(format, args...))
	}
}

func (c *complaints) taken(what string) bool {
	was := c.seen[what]
	c.seen[what] = true
	return was
}

func (c *complaints) target(m *Target) {
	c.when(m.Name == "" || c.taken("name "+m.Name), "member name %q is empty or used twice", m.Name)
	c.when(len(m.PeerURLs) == 0, "member %s has no peer URL", m.Name)
	for _, raw := range m.PeerURLs {
		u, err := url.Parse(raw)
		bad := err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == ""
		c.when(bad || c.taken("url "+raw), "peer URL %q of member %s is not http://host:port or https://host:port, or used twice", raw, m.Name)
	}
}

// PlanRestore decides on IDs and positions. It does nothing.
func PlanRestore(h *holdfastpb.SnapshotHeader, o RestoreOptions) (*Plan, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if h.HistoryOnly {
		return nil, fmt.Errorf("snapshot has no base, it only continues one: %w", ErrHistoryOnly)
	}
	if o.BumpRevision > revisionMax-h.Revision {
		return nil, fmt.Errorf("revision %d raised by %d is beyond %d, which leaves too few for writes: raise it by less: %w", h.Revision, o.BumpRevision, int64(revisionMax), ErrInvalid)
	}
	p := &Plan{
		Header: h, Bump: o.BumpRevision, Leases: cmp.Or(o.Leases, LeasesRefill), Replace: o.Replace,
		Timeline: ident.Timeline(h.Timeline.GetNumber() + 1),
		At:       position(h).Index + 1, Term: max(ident.Term(h.Term), 1),
	}
	nonce := o.Nonce
	if p.Leases == LeasesDrop { // Hosts that were not told the same must not become one cluster.
		nonce += " " + string(p.Leases)
	}
	if p.Bump > 0 {
		nonce += fmt.Sprintf(" bump %d", p.Bump)
	}
	for _, m := range o.Members {
		id := member.InitialID(m.PeerURLs, o.Token)
		if o.Nonce != "" {
			id = ident.MemberID(binary.BigEndian.Uint64(derive(h, nonce, "member", append([]string{m.Name}, slices.Sorted(slices.Values(m.PeerURLs))...)...)))
		}
		p.Members = append(p.Members, PlannedMember{Target: m, ID: id, Make: o.Only == "" || o.Only == m.Name})
	}
	slices.SortFunc(p.Members, func(a, b PlannedMember) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	ids, words := make([]ident.MemberID, 0, len(p.Members)), make([]string, 0, len(p.Members))
	for i, m := range p.Members {
		if m.ID == 0 || i > 0 && m.ID == p.Members[i-1].ID {
			return nil, fmt.Errorf("member %s gets ID %s, which is zero or another's: change its peer URLs, the token or the nonce: %w", m.Name, m.ID, ErrInvalid)
		}
		ids, words = append(ids, m.ID), append(words, m.ID.String())
	}
	p.Cluster = member.ClusterID(ids)
	// Every host comes to the same UUID without a word with the others.
	copy(p.UUID[:], derive(h, nonce, "uuid", words...))
	return p, nil
}

// derive makes random-looking bytes that are equal wherever the same snapshot
// is restored to the same cluster with the same nonce.
func derive(h *holdfastpb.SnapshotHeader, nonce, what string, words ...string) []byte {
	sha := sha256.New()
	fmt.Fprintf(sha, "holdfast restore\n%q %x %d %d\n%q\n", nonce, h.Digest, h.Applied.GetIndex(), h.Applied.GetGroup(), what)
	for _, w := range words {
		fmt.Fprintf(sha, "%q\n", w)
	}
	return sha.Sum(nil)
}

// String is the plan for people to read before it is done.
func (p *Plan) String() string {
	var b strings.Builder
	h := p.Header
	fmt.Fprintf(&b, "from cluster %x, timeline %d, position %s, term %d, revision %d\n", h.ClusterId, h.Timeline.GetNumber(), position(h), h.Term, h.Revision)
	fmt.Fprintf(&b, "to   cluster %s, timeline %d, index %d, term %d, revision %d\n", p.Cluster, p.Timeline, p.At, p.Term, h.Revision+p.Bump)
	if p.Bump > 0 {
		fmt.Fprintf(&b, "everything up to revision %d will be compacted\n", h.Revision+p.Bump)
	}
	fmt.Fprintf(&b, "alarms are dropped, %s, members are replaced:\n", p.leases())
	for _, m := range p.ByName() {
		fmt.Fprintf(&b, "  %s %s %s", m.ID, m.Name, strings.Join(m.PeerURLs, ","))
		if m.Make {
			fmt.Fprintf(&b, " -> %s", m.DataDir)
			if m.WALDir != "" {
				fmt.Fprintf(&b, ", log in %s", m.WALDir)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// ByName are the members in the order of their names, for people: that of IDs is
// another each time.
func (p *Plan) ByName() []PlannedMember {
	return slices.SortedFunc(slices.Values(p.Members), func(a, b PlannedMember) int { return strings.Compare(a.Name, b.Name) })
}

// leases is what the plan says of them.
func (p *Plan) leases() string {
	switch p.Leases {
	case LeasesDrop:
		if p.Bump > 0 {
			return "leases go with the keys attached to them"
		}
		return fmt.Sprintf("leases go with the keys attached to them (which makes revision %d, if there are any)", p.Header.Revision+1)
	case LeasesRemaining:
		return "leases get their full time again (what each had left is not known: renewals are not in the log)"
	}
	return "leases get their full time again"
}
