package recovery

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// confs are all configurations that may have been in force from the source's
// state on: a change counts before it is committed and after.
func (j *judge) confs() []Conf {
	list := []Conf{j.source.State.Conf}
	for _, c := range j.log.Changes {
		if c.After != nil {
			list = append(list, *c.After)
		}
	}
	return list
}

// peers are all who are or may become members, with what is known of them.
func (j *judge) peers() map[ID]Peer {
	known := map[ID]Peer{}
	for _, c := range j.confs() {
		for _, id := range c.all() {
			known[id] = Peer{ID: id}
		}
	}
	for _, p := range j.source.Peers {
		if _, votes := known[p.ID]; votes {
			known[p.ID] = p
		}
	}
	return known
}

func (j *judge) member(id ID) *Member {
	i := slices.IndexFunc(j.facts.Members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return nil
	}
	return &j.facts.Members[i]
}

// nameDead finds the members that are said to be dead.
func (j *judge) nameDead() error {
	known := j.peers()
	for _, word := range j.ask.Dead {
		var found []ID
		for id, p := range known { //tidy:ordered at most one counts
			if p.Name == word || id.String() == word {
				found = append(found, id)
			}
		}
		if len(found) != 1 {
			return refuse("%q is the name or ID of %d members; the members are %s", word, len(found), describe(known))
		}
		if m := j.member(found[0]); m != nil {
			return refuse("%q is said to be dead, but its directory %s is among the facts", word, m.DataDir)
		}
		if slices.Contains(j.ask.Answering, word) {
			return refuse("%q is said to be dead, but somebody listens at its peer URLs %s: stop it first", word, strings.Join(known[found[0]].PeerURLs, ","))
		}
		j.dead[found[0]] = true
	}
	return nil
}

func describe(known map[ID]Peer) string {
	var words []string
	for id, p := range known { //tidy:ordered sorted below
		words = append(words, fmt.Sprintf("%s (%s)", p.Name, id))
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

func (j *judge) deadIDs() []ID {
	var ids []ID
	for id := range j.dead { //tidy:ordered sorted below
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// allAccounted refuses while there is a member of which nothing is said: it may
// hold what nobody else has, and may be running.
func (j *judge) allAccounted() error {
	missing := map[ID]Peer{}
	for id, p := range j.peers() { //tidy:ordered into a map
		if j.member(id) == nil && !j.dead[id] {
			missing[id] = p
		}
	}
	if len(missing) > 0 {
		return refuse("nothing is known of %s: collect from its data directory, or name it with --dead", describe(missing))
	}
	return nil
}

// noQuorum refuses where the members can go on by themselves.
func (j *judge) noQuorum() error {
	for _, c := range j.confs() {
		if c.quorum(func(id ID) bool { return j.proves(id) && j.member(id).State != nil }) {
			return refuse("the members that are there are a quorum: start them, nothing is lost")
		}
	}
	return nil
}

// proves reports whether what a member once acknowledged is in its log for
// certain.
func (j *judge) proves(id ID) bool {
	m := j.member(id)
	return m != nil && m.Log != nil && m.Log.Cut == nil && !m.Log.Failed && !m.damaged("identity")
}

// witness asks the archive. Where it disagrees it is right, where it reaches
// further it is what to restore from.
func (j *judge) witness() error {
	if j.ask.Archive == nil {
		return nil
	}
	s, tip := j.source, j.ask.Archive.Tip()
	if end, _ := s.end(); tip.Index > end.Index {
		return refuse("the archive reaches entry %d, the best log ends at %d: restore from the archive", tip.Index, end.Index)
	}
	// An index alone says nothing: the tail of a deposed leader may be longer than
	// what its successor committed instead.
	if s.contradicts(tip) {
		return refuse("the archive ends with entry %d of term %d, and the best log has another there: restore from the archive", tip.Index, tip.Term)
	}
	if d, known := j.ask.Archive.DigestAt(s.State.changed()); known && d.String() != s.State.Digest {
		return refuse("the archive has another digest than %s at entry %d: the archive is right, restore from it", s.DataDir, s.State.changed())
	}
	return nil
}

// committed is K, the largest proof of commitment.
func (j *judge) committed() ident.Index {
	var k ident.Index
	for _, proof := range j.proofs() {
		k = max(k, proof.Index)
	}
	return k
}

// proofs are the entries that somebody proves to be committed, the archive too.
func (j *judge) proofs() []Mark {
	var list []Mark
	for i := range j.facts.Members {
		list = append(list, j.facts.Members[i].proofs()...)
	}
	if j.ask.Archive != nil {
		list = append(list, j.ask.Archive.Tip())
	}
	return list
}

// loss says what may be missing. Nothing is only if each write that was ever
// acknowledged must lie in a log that is here, and the chosen log is the best of
// those.
func (j *judge) loss(p *Plan) Loss {
	l := Loss{From: j.log.Newest, Until: j.source.Collected}
	if l.Missing = j.missing(p); l.Missing > 0 {
		l.Why = append(l.Why, fmt.Sprintf("entry %d was committed, and the best log that can be used does not hold it", l.Missing))
	}
	if j.ask.Archive == nil || !j.ask.Archive.Synchronous() {
		l.Why = append(l.Why, j.doubts(p)...)
	}
	l.Possible = len(l.Why) > 0
	for i := range j.facts.Members {
		if at := j.facts.Members[i].Collected; at.After(l.Until) {
			l.Until = at
		}
	}
	return l
}

// missing is the newest entry that is proven to be committed and not in the
// chosen log, or with other contents; 0 when there is none.
func (j *judge) missing(p *Plan) ident.Index {
	var newest ident.Index
	for _, proof := range j.proofs() {
		if proof.Index > p.Keep.Index || j.source.contradicts(proof) {
			newest = max(newest, proof.Index)
		}
	}
	return newest
}

// doubts are the reasons why acknowledged entries beyond L may exist.
func (j *judge) doubts(p *Plan) []string {
	var why []string
	for _, c := range j.confs() {
		if c.quorum(func(id ID) bool { return !j.proves(id) }) {
			why = append(why, fmt.Sprintf("the members that are gone or damaged (%s) were a quorum and may have acknowledged writes without the others", j.gone(&c)))
			break
		}
	}
	for i := range j.facts.Members {
		m := &j.facts.Members[i]
		if m.Log != nil && !m.Log.Apart && p.Keep.Less(m.Log.Last) && m != j.source {
			why = append(why, fmt.Sprintf("the log of member %s reaches entry %d of term %d, but its state can not be used", m.ID, m.Log.Last.Index, m.Log.Last.Term))
		}
	}
	// A leader may commit by the configuration before the one that it has applied;
	// which that was can be told only as long as no change lies in the log.
	if n := len(j.log.Changes); n > 0 {
		why = append(why, fmt.Sprintf("entry %d changed who votes: who made the last decisions can not be told", j.log.Changes[n-1].Index))
	} else if j.log.Apart || j.log.Start.Index >= p.Committed {
		why = append(why, "the log does not reach back to what was committed: whether the members changed just before can not be told")
	}
	return why
}

func (j *judge) gone(c *Conf) string {
	missing := map[ID]Peer{}
	for id, p := range j.peers() { //tidy:ordered into a map
		if (slices.Contains(c.Voters, id) || slices.Contains(c.Outgoing, id)) && !j.proves(id) {
			missing[id] = p
		}
	}
	return describe(missing)
}
