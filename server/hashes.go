package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
)

// Digests (digests.go) compare what members were told to do, each second. Hashes
// compare what they have: they read all keys, and so find what a member did
// wrongly, or what has changed under it. Both are equal on all members (I-5).

// errHashDiffers means that a member has other keys than this one.
var errHashDiffers = errors.New("the keys of this member differ from those of another")

const hashAnswerBytes = 1 + 8 + 4

// answerHash tells the hash of all keys through a revision, and C. The first
// byte is 0 when there is none: the revision is compacted.
func (c *core) answerHash(ctx context.Context, revision ident.Revision) ([]byte, error) {
	if err := c.linearize(ctx); err != nil { // The revision may not be applied here yet.
		return nil, err
	}
	answer := make([]byte, hashAnswerBytes)
	h, err := c.hashAt(ctx, revision)
	if errors.Is(err, mvcc.ErrCompacted) || errors.Is(err, mvcc.ErrFutureRevision) {
		return answer, nil
	}
	if err != nil {
		return nil, err
	}
	answer[0] = 1
	binary.BigEndian.PutUint64(answer[1:], uint64(h.Compacted))
	binary.BigEndian.PutUint32(answer[9:], h.Hash)
	return answer, nil
}

func (c *core) hashAt(ctx context.Context, revision ident.Revision) (mvcc.Hash, error) {
	store, err := c.replica.Use()
	if err != nil {
		return mvcc.Hash{}, err
	}
	defer store.Release()
	start, took := c.cfg.Clock.Mono(), c.metrics.hashed
	if revision > 0 {
		took = c.metrics.hashedRev
	}
	h, err := store.HashKV(ctx, revision)
	took.Observe((c.cfg.Clock.Mono() - start).Seconds())
	return h, err
}

// hashOf asks a member. It reports false where the two can not be compared: C
// is another there, or the revision is compacted.
func (s *Server) hashOf(ctx context.Context, peer ident.MemberID, own mvcc.Hash) (uint32, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, hashPatience)
	defer cancel()
	answer, err := s.transport.Ask(ctx, peer, askHash, binary.BigEndian.AppendUint64(nil, uint64(own.Revision)))
	if err != nil {
		return 0, false, err
	}
	if len(answer) != hashAnswerBytes {
		return 0, false, fmt.Errorf("hash of %d bytes: %w", len(answer), errAnswer)
	}
	comparable := answer[0] == 1 && ident.Revision(binary.BigEndian.Uint64(answer[1:])) == own.Compacted
	return binary.BigEndian.Uint32(answer[9:]), comparable, nil
}

// compareHashes compares the members' keys through a revision, and acts as when
// digests differ. It reports whether every member could be compared.
func (s *Server) compareHashes(ctx context.Context, revision ident.Revision) (bool, error) {
	own, err := s.hashAt(ctx, revision)
	if err != nil {
		return false, err
	}
	at := s.replica.Store().Applied().Position.Index
	hashes := map[ident.Digest][]ident.MemberID{asDigest(own.Hash): {s.id.Member}}
	all, later, voters := true, false, []ident.MemberID{}
	for _, m := range s.replica.Machine.Members.List() {
		peer := ident.MemberID(m.Id)
		if !m.IsLearner {
			voters = append(voters, peer)
		}
		if peer == s.id.Member {
			continue
		}
		hash, comparable, err := s.hashOf(ctx, peer, own)
		if err != nil || !comparable {
			s.log.Debug("the keys of a member are not compared now", "member", peer, "revision", uint64(own.Revision), "error", err)
			all, later = false, later || err == nil && !m.IsLearner
			continue
		}
		hashes[asDigest(hash)] = append(hashes[asDigest(hash)], peer)
	}
	if len(hashes) == 1 {
		return all, nil
	}
	s.log.Error("the keys of members differ", "revision", uint64(own.Revision), "compacted", uint64(own.Compacted), "states", len(hashes))
	return all, s.act(ctx, judgeHashes(at, hashes, voters, later))
}

// judgeHashes is judgeAt for hashes. later says that a voter was at another
// compaction, as it is for a moment when one comes in between. It is compared the
// next time, and may then tell who is wrong: until then nobody is blamed for what
// no state has a quorum for.
func judgeHashes(at ident.Index, hashes map[ident.Digest][]ident.MemberID, voters []ident.MemberID, later bool) verdict {
	v := judgeAt(at, hashes, voters)
	v.split = v.split && !later
	return v
}

func asDigest(hash uint32) (d ident.Digest) {
	binary.BigEndian.PutUint32(d[:], hash)
	return d
}

// checkHashes compares the keys again and again, while this member leads.
func (s *Server) checkHashes(ctx context.Context) error {
	return s.eachWhileLeading(ctx, s.cfg.CorruptCheckTime, func(ctx context.Context) error {
		_, err := s.compareHashes(ctx, s.replica.Store().Head())
		return err
	})
}

// checkCompactions compares the keys as of each compaction, of those that come
// faster than the interval the last.
func (s *Server) checkCompactions(ctx context.Context) error {
	var checked ident.Revision
	return s.eachWhileLeading(ctx, s.cfg.CompactHashCheckTime, func(ctx context.Context) error {
		compacted := s.replica.Store().Compacted()
		if compacted <= checked {
			return nil
		}
		all, err := s.compareHashes(ctx, compacted)
		if all && err == nil {
			checked = compacted
		}
		return err
	})
}

func (s *Server) eachWhileLeading(ctx context.Context, interval time.Duration, do func(context.Context) error) error {
	return every(ctx, s.cfg.Clock, interval, func() {
		if !s.IsLeader() {
			return
		}
		if err := do(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("could not look after the other members", "error", err)
		}
	})
}

// checkAtBoot refuses to serve with other keys than another member has. Who can
// not be asked says nothing against it.
func (s *Server) checkAtBoot(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.cfg.Clock.AfterFunc(bootCheckMax, cancel).Stop()
	own, err := s.hashAt(ctx, 0)
	if err != nil {
		return fmt.Errorf("compare the keys with other members: %w", err)
	}
	compared := 0
	for _, m := range s.replica.Machine.Members.List() {
		peer := ident.MemberID(m.Id)
		if peer == s.id.Member {
			continue
		}
		hash, comparable, err := s.hashOf(ctx, peer, own)
		switch {
		case err != nil || !comparable:
			s.log.Warn("a member could not tell whether it has the same keys", "member", peer, "revision", uint64(own.Revision), "error", err)
		case hash != own.Hash:
			return fmt.Errorf("revision %d, member %s has hash %08x, this one %08x: %w: look which is right by `holdfastctl endpoint hashkv --cluster`, then give the other a new state",
				own.Revision, peer, hash, own.Hash, errHashDiffers)
		default:
			compared++
		}
	}
	s.log.Info("compared the keys with other members, they are equal", "revision", uint64(own.Revision), "members", compared)
	return nil
}
