package recovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/snapshot"
)

// FreshMax is how old facts may be when a plan is made of them.
const FreshMax = time.Hour

// Ask is what the operator wants, and what is known beside the facts.
type Ask struct {
	// Dead are the members that will not come back, by name or ID.
	Dead []string
	// Answering are those of them at whose peer URLs somebody listens.
	Answering []string
	// Members is the new cluster. Empty: the source alone, in its own place.
	Members []snapshot.Target
	// BumpRevision raises the revision by so much and compacts all before: where
	// writes were lost, those who saw them must not take new ones for them.
	BumpRevision int64
	// Nonce makes the new IDs, see snapshot.NewNonce.
	Nonce string
	Now   time.Time
	// Archive is one more witness. Nil: there is none.
	Archive Witness
	// ArchiveURL is where Apply takes an epoch; empty: nowhere. NewestEpoch is the one
	// that is there, 0 for none; with Supersede that is not another's.
	ArchiveURL  string
	NewestEpoch ident.Timeline
	Supersede   bool
}

// Witness knows of committed entries from elsewhere than a member's disk, as an
// archive does.
type Witness interface {
	// Tip is the newest entry that it holds, or an earlier one: all of them up to
	// there were committed.
	Tip() Mark
	// DigestAt is the digest after an entry that changed something.
	DigestAt(ident.Index) (ident.Digest, bool)
	// Synchronous says that nothing was acknowledged before it held it.
	Synchronous() bool
}

// Plan is what a recovery will do and what it will cost.
type Plan struct {
	ID    string    `json:"id"`
	Made  time.Time `json:"made"`
	Nonce string    `json:"nonce"`

	Source      Source `json:"source"` // Whose state and log the new cluster grows from.
	Member      ID     `json:"member"`
	Name        string `json:"name,omitempty"`
	Fingerprint string `json:"fingerprint"` // Of the source's facts.
	Digest      string `json:"digest"`      // Of its state at the checkpoint.
	Revision    int64  `json:"revision"`    // The same.

	OldCluster  ID             `json:"old_cluster"`
	OldTimeline ident.Timeline `json:"old_timeline"`
	UUID        string         `json:"uuid,omitempty"`
	Dead        []ID           `json:"dead,omitempty"`

	Committed ident.Index `json:"committed"`       // K: up to here all is proven to be committed.
	Keep      Mark        `json:"keep"`            // L: the end of the chosen log. All up to here is kept.
	Terms     []Mark      `json:"terms,omitempty"` // First entries of each term in the chosen log.
	Uncertain []Entry     `json:"uncertain,omitempty"`
	Loss      Loss        `json:"loss"`

	Running bool   `json:"running,omitempty"` // The source ran when it was looked at: nothing is applied.
	Fence   *Fence `json:"fence,omitempty"`   // Absent: no epoch is taken.

	Bump    int64             `json:"bump,omitempty"` // What the revision is raised by.
	At      Mark              `json:"at"`             // Where the new cluster's log goes on.
	Members []snapshot.Target `json:"members"`
}

// Loss says what may be missing afterwards.
type Loss struct {
	Possible bool     `json:"possible"`
	Why      []string `json:"why,omitempty"`
	// Missing is the newest entry that is known to have been committed and lies
	// beyond what is kept; 0 when there is none.
	Missing ident.Index `json:"missing,omitempty"`
	// What is lost was proposed between the two, by the clocks of the leader and of
	// whoever collected the facts.
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
}

// NewPlan decides what to do about some facts. It is a pure function: the same
// facts and wishes give the same plan. All reasons not to recover are told at
// once, each matched by ErrRefused.
func NewPlan(f *Facts, ask Ask) (*Plan, error) {
	j := &judge{facts: f, ask: &ask, dead: map[ID]bool{}}
	if err := j.refusals(); err != nil {
		return nil, err
	}
	s := j.source
	end, _ := s.end()
	p := &Plan{
		Made: ask.Now.UTC(), Nonce: ask.Nonce, Source: s.Source, Member: s.ID, Name: s.Name, Running: s.Running,
		Digest: s.State.Digest, Revision: int64(s.State.Revision),
		OldCluster: s.Cluster, OldTimeline: s.Timeline, UUID: s.UUID, Dead: j.deadIDs(),
		Committed: min(j.committed(), end.Index), Keep: end, Terms: j.log.Terms, At: j.above(), Members: ask.Members, Bump: ask.BumpRevision,
	}
	if ask.ArchiveURL != "" {
		p.Fence = &Fence{URL: ask.ArchiveURL, Epoch: max(s.Timeline, ask.NewestEpoch) + 1, Sync: ask.Archive != nil && ask.Archive.Synchronous()}
	}
	for _, e := range j.log.Tail {
		if e.Index > p.Committed {
			p.Uncertain = append(p.Uncertain, e)
		}
	}
	p.Loss = j.loss(p)
	if len(p.Members) == 0 {
		if err := p.alone(s); err != nil {
			return nil, err
		}
	}
	var err error
	if p.Fingerprint, err = s.fingerprint(); err != nil {
		return nil, err
	}
	if p.ID, err = p.computeID(); err != nil {
		return nil, err
	}
	if err := j.staged(p.ID); err != nil {
		return nil, err
	}
	_, err = p.Targets()
	return p, err
}

// alone makes the source the only member, in its own place.
func (p *Plan) alone(s *Member) error {
	i := slices.IndexFunc(s.Peers, func(m Peer) bool { return m.ID == s.ID })
	if i < 0 {
		return fmt.Errorf("%w: member %s is not in its own table of members: describe the new cluster", ErrRefused, s.ID)
	}
	row := s.Peers[i]
	p.Members = []snapshot.Target{{
		Name: cmp.Or(row.Name, "recovered"), PeerURLs: row.PeerURLs, ClientURLs: row.ClientURLs, DataDir: s.DataDir, WALDir: s.WALDir,
	}}
	return nil
}

// computeID names a plan by what it does and costs, and by nothing else: the same
// facts, collected and planned again, give the same ID.
func (p *Plan) computeID() (string, error) {
	still := *p
	still.ID, still.Made, still.Nonce, still.Loss.Until = "", time.Time{}, "", time.Time{}
	b, err := json.Marshal(&still)
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:6]), err
}

// Targets computes the new cluster, with all its IDs.
func (p *Plan) Targets() (*snapshot.Plan, error) {
	digest, err := hex.DecodeString(p.Digest)
	if err != nil || len(digest) != len(ident.Digest{}) {
		return nil, fmt.Errorf("digest %q: %w", p.Digest, ErrDocument)
	}
	next, err := snapshot.PlanRestore(&holdfastpb.SnapshotHeader{
		ClusterId: uint64(p.OldCluster), Timeline: &holdfastpb.TimelineInfo{Number: uint64(p.OldTimeline)},
		Applied: &holdfastpb.Position{Index: uint64(p.Keep.Index)}, Term: uint64(p.Keep.Term), Digest: digest, Revision: p.Revision,
	}, snapshot.RestoreOptions{
		Members: p.Members, Nonce: p.Nonce, Replace: true, BumpRevision: p.Bump, MarkCompacted: p.Bump > 0,
	})
	if err != nil {
		return nil, err
	}
	if p.Nonce == "" {
		return nil, fmt.Errorf("a plan without a nonce would reuse IDs: %w", ErrDocument)
	}
	next.At, next.Term = p.At.Index, p.At.Term
	if p.Fence != nil {
		next.Timeline = p.Fence.Epoch
	}
	return next, nil
}

// judge weighs facts.
type judge struct {
	facts  *Facts
	ask    *Ask
	dead   map[ID]bool
	source *Member
	log    *Log // Of the source, an empty one where it has none to use.
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// refusals chooses the source, and finds all that speaks against a recovery.
func (j *judge) refusals() error {
	if err := j.chooseSource(); err != nil {
		return err
	}
	errs := []error{j.oneCluster(), j.fresh(), j.nameDead(), j.running()}
	if errors.Join(errs...) == nil {
		errs = append(errs, j.allAccounted(), j.noQuorum(), j.witness(), j.fence())
	}
	return errors.Join(errs...)
}

// chooseSource takes the best log that can be used, as voters would: by the term
// of its last entry, then by its length. Neither the applied index nor the hard
// state's term says anything about what a log holds. A log that contradicts what
// another member proves to be committed comes last: a leader that nobody here
// has an entry of may have overruled it.
func (j *judge) chooseSource() error {
	seen := map[ID]bool{}
	for i := range j.facts.Members {
		m := &j.facts.Members[i]
		if seen[m.ID] {
			return refuse("member %s is in the facts twice: which directory is the newer one?", m.ID)
		}
		seen[m.ID] = true
		end, usable := m.end()
		if !usable {
			continue
		}
		if j.source == nil || j.better(m, end) {
			j.source = m
		}
	}
	if j.source != nil {
		if j.log = j.source.Log; j.log == nil {
			j.log = &Log{Start: j.source.State.Applied, Last: j.source.State.Applied, Apart: true, Newest: j.source.State.Time}
		}
		return nil
	}
	err := refuse("of %d members none has a log and a state that can be used: restore a snapshot or the archive", len(j.facts.Members))
	for i := range j.facts.Members {
		for _, d := range j.facts.Members[i].Damage {
			err = fmt.Errorf("%w; %s of member %s: %s", err, d.Part, j.facts.Members[i].ID, d.What)
		}
	}
	return err
}

// better reports whether a member is to be preferred to the best so far.
func (j *judge) better(m *Member, end Mark) bool {
	best, _ := j.source.end()
	if a, b := j.contradicted(m), j.contradicted(j.source); a != b {
		return b
	}
	return best.Less(end) || end == best && m.ID < j.source.ID
}

// contradicted reports whether a member's log can not hold an entry that was
// committed.
func (j *judge) contradicted(m *Member) bool { return slices.ContainsFunc(j.proofs(), m.contradicts) }

func (m *Member) damaged(part string) bool {
	return slices.ContainsFunc(m.Damage, func(d Damage) bool { return d.Part == part })
}

func (j *judge) oneCluster() error {
	s := j.source
	for i := range j.facts.Members {
		m := &j.facts.Members[i]
		if m.Cluster != s.Cluster || m.Timeline != s.Timeline {
			return refuse("%s is of cluster %s on timeline %d, %s of %s on %d", m.DataDir, m.Cluster, m.Timeline, s.DataDir, s.Cluster, s.Timeline)
		}
		if m.UUID != s.UUID && m.UUID != "" && s.UUID != "" {
			return refuse("%s is of the cluster with UUID %s, %s of %s", m.DataDir, m.UUID, s.DataDir, s.UUID)
		}
	}
	return nil
}

func (j *judge) fresh() error {
	for i := range j.facts.Members {
		m := &j.facts.Members[i]
		if age := j.ask.Now.Sub(m.Collected); age > FreshMax || age < -FreshMax {
			return refuse("the facts of member %s were collected at %s, now it is %s: %w", m.ID, m.Collected.Format(time.RFC3339), j.ask.Now.UTC().Format(time.RFC3339), ErrStale)
		}
	}
	return nil
}

// staged refuses while another plan is being applied.
func (j *judge) staged(id string) error {
	for i := range j.facts.Members {
		if m := &j.facts.Members[i]; m.Staged != "" && m.Staged != id {
			return fmt.Errorf("%w: %w: plan %s is staged for %s: apply it again, or give it up with `holdfastctl recover thaw %s`", ErrRefused, ErrStaged, m.Staged, m.DataDir, m.DataDir)
		}
	}
	return nil
}

// above is a place for the new log that lies above all that left a trace.
func (j *judge) above() Mark {
	var at Mark
	for i := range j.facts.Members {
		s := j.facts.Members[i].seen()
		at.Index, at.Term = max(at.Index, s.Index), max(at.Term, s.Term)
	}
	if j.ask.Archive != nil {
		tip := j.ask.Archive.Tip()
		at.Index, at.Term = max(at.Index, tip.Index), max(at.Term, tip.Term)
	}
	return Mark{at.Index + 1, at.Term + 1}
}
