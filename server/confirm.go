package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/snapshot"
)

// errContradicted means that a second member has another state than a received one.
var errContradicted = errors.New("a second member contradicts the received state")

// claim is what a member says about an entry, and about its base.
type claim struct {
	known  byte
	digest ident.Digest
	base   mvcc.BaseClaim
}

const (
	claimDropped = 0 // History does not reach back to the entry.
	claimKnown   = 1
	claimBehind  = 2 // The entry is not applied yet.

	claimBytes = 1 + len(ident.Digest{}) + 1 + 8 + 8 + len(backend.Sum{})
)

// confirm compares a received state with what another member than its sender
// has, where there is one (rule 9): a sender whose state went wrong unnoticed
// would otherwise hand it on.
func (s *Server) confirm(ctx context.Context, sender ident.MemberID, staged raftnode.Staged) error {
	var others []ident.MemberID
	for _, p := range s.transport.Stats() {
		if p.ID != sender {
			others = append(others, p.ID)
		}
	}
	return confirmWith(ctx, s.core, others, staged.(*replica.Staged).State(), s.transport.Ask)
}

// confirmWith asks one member after the other until one can tell.
func confirmWith(ctx context.Context, c *core, others []ident.MemberID, got *snapshot.Received,
	ask func(context.Context, ident.MemberID, uint8, []byte) ([]byte, error)) error {
	ctx, cancel := c.limited(ctx, confirmMax)
	defer cancel()
	question := binary.BigEndian.AppendUint64(nil, uint64(got.Position.Index))
	for len(others) > 0 && ctx.Err() == nil {
		var behind []ident.MemberID
		for _, id := range others {
			once, cancel := c.limited(ctx, confirmAskMax)
			answer, err := ask(once, id, askClaim, question)
			cancel()
			if err != nil {
				c.log.Debug("a member can not confirm a snapshot", "member", id, "error", err)
				continue
			}
			there, err := decodeClaim(answer)
			if err != nil {
				return fmt.Errorf("member %s: %w", id, err)
			}
			if err := there.contradicts(got); err != nil {
				return fmt.Errorf("member %s: %w", id, err)
			}
			switch there.known {
			case claimKnown:
				c.log.Info("a second member confirms the snapshot", "member", id, "index", uint64(got.Position.Index))
				return nil
			case claimBehind:
				behind = append(behind, id)
			}
		}
		if others = behind; len(others) > 0 {
			select {
			case <-c.cfg.Clock.After(confirmPause):
			case <-ctx.Done():
			}
		}
	}
	c.log.Warn("no second member could confirm a snapshot, it is taken as its sender has it", "index", uint64(got.Position.Index))
	return nil
}

// limited is a context that ends after a while.
func (c *core) limited(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	timer := c.cfg.Clock.AfterFunc(d, cancel)
	return ctx, func() {
		timer.Stop()
		cancel()
	}
}

func (c *claim) contradicts(got *snapshot.Received) error {
	if c.known == claimKnown && c.digest != got.Digest {
		return fmt.Errorf("digest at entry %d is %s there, %s was received: %w", got.Position.Index, c.digest, got.Digest, errContradicted)
	}
	if err := c.base.Contradicts(got.Base); err != nil {
		return errors.Join(errContradicted, err)
	}
	return nil
}

// answerClaim tells what this member has at an entry.
func (c *core) answerClaim(index ident.Index) ([]byte, error) {
	store, err := c.replica.Use()
	if err != nil {
		return nil, err
	}
	defer store.Release()
	answer := claim{known: claimKnown, base: store.BaseClaim()}
	answer.digest, err = store.DigestAt(index)
	switch {
	case errors.Is(err, history.ErrDropped):
		answer.known = claimDropped
	case errors.Is(err, mvcc.ErrFutureRevision):
		answer.known = claimBehind
	case err != nil:
		return nil, err
	}
	return answer.encode(), nil
}

func (c *claim) encode() []byte {
	b := append([]byte{c.known}, c.digest[:]...)
	settled := byte(0)
	if c.base.Settled {
		settled = 1
	}
	b = append(b, settled)
	b = binary.BigEndian.AppendUint64(b, uint64(c.base.Merged))
	b = binary.BigEndian.AppendUint64(b, uint64(c.base.Rows))
	return append(b, c.base.Hash[:]...)
}

func decodeClaim(b []byte) (*claim, error) {
	if len(b) != claimBytes || b[0] > claimBehind {
		return nil, fmt.Errorf("claim of %d bytes: %w", len(b), errAnswer)
	}
	c := &claim{known: b[0], digest: ident.Digest(b[1:17])}
	c.base = mvcc.BaseClaim{
		Settled: b[17] == 1, Merged: ident.Revision(binary.BigEndian.Uint64(b[18:])),
		Rows: int64(binary.BigEndian.Uint64(b[26:])), Hash: backend.Sum(b[34:]),
	}
	return c, nil
}

const (
	// confirmMax bounds the wait for a member that has to apply what was received,
	// and confirmAskMax that for an answer: one that stands still must not take the
	// time in which another could tell.
	confirmMax    = 10 * time.Second
	confirmAskMax = 2 * time.Second
	confirmPause  = 200 * time.Millisecond
)
