package server

import (
	"context"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
)

// promoteLearners gives learners their vote once they have kept up for a while.
// The leader alone knows that, and forgets it when it no longer leads.
func (s *Server) promoteLearners(ctx context.Context) error {
	kept := map[ident.MemberID]int{} // Looks in a row.
	return every(ctx, s.cfg.Clock, promoteInterval, func() {
		st := s.node.Status()
		if st.Leader != s.id.Member {
			clear(kept)
			return
		}
		for _, m := range s.replica.Machine.Members.List() {
			id := ident.MemberID(m.Id)
			if !m.IsLearner || m.Name == "" || !keepsUp(st, id) || !s.isConnected(id) {
				delete(kept, id)
				continue
			}
			if kept[id]++; kept[id] < promoteLooks {
				continue
			}
			delete(kept, id) // If it fails, not again at once.
			if err := s.promoteHere(ctx, id); err != nil {
				s.log.Warn("could not give a learner its vote", "member", id, "error", err)
				continue
			}
			s.log.Info("a learner has caught up and votes now", "member", id, "name", m.Name)
		}
	})
}

// keepsUp tells whether a learner has what is committed, but for the last few
// entries, which are on their way.
func keepsUp(st raftnode.Status, id ident.MemberID) bool {
	for _, p := range st.Progress {
		if p.ID == id {
			return learnerReady(st, id) && p.Match+promoteLagMax >= st.Commit
		}
	}
	return false
}
