package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/statemachine/alarm"
)

// errDiverged means that a quorum has another history than this member.
var errDiverged = errors.New("state of this member differs from that of a quorum")

// witness knows what the members last said of their digests. Digests are equal
// on all members at equal entries (I-5), and one that is not never becomes so
// again: each contains all before it.
type witness struct {
	mu      sync.Mutex
	reports map[ident.MemberID][]mvcc.DigestAt
	split   time.Duration // Since when members differ and no digest has a quorum; 0: not.
}

// compareDigests asks the other members for their digests, each second, and acts
// when somebody's differ: one that differs from a quorum stops serving, and the
// leader raises the alarm for it. Where no digest has a quorum nobody guesses:
// then the alarm names no member.
func (s *Server) compareDigests(ctx context.Context) error {
	w := &witness{reports: make(map[ident.MemberID][]mvcc.DigestAt)}
	return s.eachPeer(ctx, "compare digests", digestInterval, func(ctx context.Context, peer ident.MemberID) {
		report, err := s.digestsOf(ctx, peer)
		if err == nil {
			err = s.act(ctx, s.judge(w, peer, report))
		} else {
			w.forget(peer)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Debug("digests of a member are not compared now", "member", peer, "error", err)
		}
	})
}

// compareApplied asks the other members how far they have applied, while something
// waits for apply here: what follows from that is raftnode's to decide. It reads
// nothing of the state, which may be what hangs, as the comparison of digests does.
func (s *Server) compareApplied(ctx context.Context) error {
	return s.eachPeer(ctx, "compare what is applied", digestInterval, func(ctx context.Context, peer ident.MemberID) {
		if st := s.node.Status(); st.Applied >= st.Commit {
			return
		}
		report, err := s.askForDigests(ctx, peer, 0) // None has an index so low: only where it stands.
		if err != nil {
			s.log.Debug("a member does not say what it has applied", "member", peer, "error", err)
			return
		}
		s.node.ReportApplied(peer, report[0].Index)
	})
}

// forget drops what a member said: it may be a rebuilt one that answers next.
func (w *witness) forget(id ident.MemberID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.reports, id)
}

// digestsOf asks a member where it stands, and for digests at or below our index.
func (s *Server) digestsOf(ctx context.Context, peer ident.MemberID) ([]mvcc.DigestAt, error) {
	return s.askForDigests(ctx, peer, s.replica.Store().Applied().Position.Index)
}

func (s *Server) askForDigests(ctx context.Context, peer ident.MemberID, upTo ident.Index) ([]mvcc.DigestAt, error) {
	answer, err := s.transport.Ask(ctx, peer, askDigests, binary.BigEndian.AppendUint64(nil, uint64(upTo)))
	if err != nil {
		return nil, err
	}
	return decodeDigests(answer)
}

func (c *core) answerDigests(upTo ident.Index) []byte {
	now, list := c.replica.Store().Digests(upTo, digestsReported)
	return encodeDigests(append([]mvcc.DigestAt{now}, list...))
}

const digestBytes = 8 + len(ident.Digest{})

func encodeDigests(list []mvcc.DigestAt) []byte {
	var b []byte
	for _, d := range list {
		b = append(binary.BigEndian.AppendUint64(b, uint64(d.Index)), d.Digest[:]...)
	}
	return b
}

func decodeDigests(b []byte) ([]mvcc.DigestAt, error) {
	if len(b) == 0 || len(b)%digestBytes != 0 || len(b) > (1+digestsReported)*digestBytes {
		return nil, fmt.Errorf("digests of %d bytes: %w", len(b), errAnswer)
	}
	var list []mvcc.DigestAt
	for ; len(b) > 0; b = b[digestBytes:] {
		list = append(list, mvcc.DigestAt{Index: ident.Index(binary.BigEndian.Uint64(b)), Digest: ident.Digest(b[8:digestBytes])})
	}
	return list, nil
}

// judge compares what a member says now with what the others said last. A split
// counts once it has lasted for a while.
func (s *Server) judge(w *witness, peer ident.MemberID, report []mvcc.DigestAt) verdict {
	var voters []ident.MemberID
	for _, m := range s.replica.Machine.Members.List() {
		if !m.IsLearner {
			voters = append(voters, ident.MemberID(m.Id))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports[peer] = report
	all := maps.Clone(w.reports)
	all[s.id.Member] = s.ownDigests(w.reports)
	v := judge(all, voters)
	switch {
	case !v.split:
		w.split = 0
	case w.split == 0:
		w.split = s.cfg.Clock.Mono()
	}
	v.split = v.split && s.cfg.Clock.Mono()-w.split >= splitPatience
	return v
}

// act does what a verdict asks for.
func (s *Server) act(ctx context.Context, v verdict) error {
	switch {
	case slices.Contains(v.wrong, s.id.Member):
		return s.diverged(ctx, v)
	case !s.IsLeader():
		return nil
	case v.split:
		return s.raiseCorrupt(ctx, 0, v)
	}
	for _, id := range v.wrong {
		if err := s.raiseCorrupt(ctx, id, v); err != nil {
			return err
		}
	}
	return nil
}

// ownDigests is what this member has at the entries that others named.
func (s *Server) ownDigests(reports map[ident.MemberID][]mvcc.DigestAt) []mvcc.DigestAt {
	store, err := s.replica.Use()
	if err != nil {
		return nil // The member is stopping.
	}
	defer store.Release()
	var own []mvcc.DigestAt
	for _, report := range reports { //tidy:ordered judge sorts
		for _, d := range report {
			if slices.ContainsFunc(own, func(o mvcc.DigestAt) bool { return o.Index == d.Index }) {
				continue
			}
			if _, list := store.Digests(d.Index, 1); len(list) == 1 && list[0].Index == d.Index {
				own = append(own, list[0])
			} else if digest, err := store.DigestAt(d.Index); err == nil {
				own = append(own, mvcc.DigestAt{Index: d.Index, Digest: digest})
			}
		}
	}
	return own
}

// verdict is what digests say about members.
type verdict struct {
	index  ident.Index      // At which they differ.
	digest ident.Digest     // Of a quorum there.
	wrong  []ident.MemberID // Who differs from it, sorted.
	split  bool             // Voters differ and no digest has a quorum.
}

// judge finds the newest entry at which a quorum of the voters has one digest
// and somebody another.
func judge(reports map[ident.MemberID][]mvcc.DigestAt, voters []ident.MemberID) verdict {
	at := map[ident.Index]map[ident.Digest][]ident.MemberID{}
	for id, report := range reports { //tidy:ordered sorted below
		for _, d := range report {
			if at[d.Index] == nil {
				at[d.Index] = map[ident.Digest][]ident.MemberID{}
			}
			if who := at[d.Index][d.Digest]; !slices.Contains(who, id) {
				at[d.Index][d.Digest] = append(who, id)
			}
		}
	}
	var indexes []ident.Index
	for index, digests := range at { //tidy:ordered sorted below
		if len(digests) > 1 {
			indexes = append(indexes, index)
		}
	}
	slices.Sort(indexes)
	var v verdict
	for _, index := range slices.Backward(indexes) {
		if got := judgeAt(index, at[index], voters); len(got.wrong) > 0 {
			return got
		} else if got.split && !v.split {
			v = got
		}
	}
	return v
}

func judgeAt(index ident.Index, digests map[ident.Digest][]ident.MemberID, voters []ident.MemberID) verdict {
	v := verdict{index: index}
	sides, decided := 0, false
	for digest, who := range digests { //tidy:ordered one at most has a quorum
		votes := 0
		for _, id := range who {
			if slices.Contains(voters, id) {
				votes++
			}
		}
		if votes > 0 {
			sides++
		}
		if votes > len(voters)/2 {
			v.digest, decided = digest, true
		}
	}
	if !decided {
		v.split = sides > 1
		return v
	}
	for digest, who := range digests { //tidy:ordered sorted below
		if digest != v.digest {
			v.wrong = append(v.wrong, who...)
		}
	}
	slices.Sort(v.wrong)
	return v
}

// raiseCorrupt raises the alarm for a member, 0 for nobody knows whom.
func (s *Server) raiseCorrupt(ctx context.Context, id ident.MemberID, v verdict) error {
	if s.replica.Machine.Alarms.Has(alarm.Alarm{Member: id, Kind: alarm.Corrupt}) {
		return nil
	}
	if id == 0 {
		s.log.Error("members differ and no state has a quorum, raising alarm CORRUPT", "index", uint64(v.index))
	} else {
		s.log.Error("state of a member differs from that of a quorum, raising alarm CORRUPT", "member", id, "index", uint64(v.index), "digest", v.digest.String())
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	_, err := s.setAlarm(asMember(ctx), &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(id), Alarm: pb.AlarmType_CORRUPT})
	return err
}

// diverged stops this member: what it says can not be believed.
func (s *Server) diverged(ctx context.Context, v verdict) error {
	if s.fenced.Swap(true) {
		return nil
	}
	err := s.raiseCorrupt(ctx, s.id.Member, v)
	s.damaged(fmt.Errorf("at entry %d: %w", v.index, errDiverged), true)
	return err
}
