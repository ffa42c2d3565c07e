package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
)

// errAnswer means that a member's answer cannot be used.
var errAnswer = errors.New("answer of a member is of no use")

// compareClocks measures the wall clocks of the other members; what follows from
// that is raftnode's to decide.
func (s *Server) compareClocks(ctx context.Context) error {
	return s.eachPeer(ctx, "compare clocks", clockInterval, func(ctx context.Context, peer ident.MemberID) {
		offset, err := s.clockOf(ctx, peer)
		if err != nil {
			s.log.Debug("clock of a member could not be read", "member", peer, "error", err)
			return
		}
		s.node.ReportClock(peer, offset)
	})
}

// clockOf is how far a member's wall clock is ahead of ours. It was read at some
// time between question and answer: the middle is wrong by half of that at most.
func (s *Server) clockOf(ctx context.Context, peer ident.MemberID) (time.Duration, error) {
	asked, begun := s.cfg.Clock.Wall(), s.cfg.Clock.Mono()
	answer, err := s.transport.Ask(ctx, peer, askClock, nil)
	if err != nil {
		return 0, err
	}
	trip := s.cfg.Clock.Mono() - begun
	if len(answer) != 8 {
		return 0, fmt.Errorf("clock of %d bytes: %w", len(answer), errAnswer)
	}
	if trip > raftnode.ClockRoundTripMax {
		return 0, fmt.Errorf("the answer took %s: %w", trip, errAnswer)
	}
	there := time.Unix(0, int64(binary.BigEndian.Uint64(answer)))
	return there.Sub(asked) - trip/2, nil
}

// eachPeer does something with each other member, again and again, with all of
// them at the same time. One that takes longer than the interval is left out
// until it is through.
func (s *Server) eachPeer(ctx context.Context, name string, interval time.Duration, do func(context.Context, ident.MemberID)) error {
	busy := map[ident.MemberID]chan struct{}{}
	return every(ctx, s.cfg.Clock, interval, func() {
		for _, m := range s.replica.Machine.Members.List() {
			peer := ident.MemberID(m.Id)
			if peer == s.id.Member || running(busy[peer]) {
				continue
			}
			done := make(chan struct{})
			busy[peer] = done
			s.group.Go(name, func(ctx context.Context) error {
				defer close(done)
				do(ctx, peer)
				return nil
			})
		}
	})
}

func running(done chan struct{}) bool {
	if done == nil {
		return false
	}
	select {
	case <-done:
		return false
	default:
		return true
	}
}
