package server

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/snapshot"
)

func TestAReceivedStateIsComparedWithASecondMember(t *testing.T) {
	got := &snapshot.Received{
		State: mvcc.State{Position: ident.Position{Index: 77}, Digest: ident.Digest{7}},
		Base:  mvcc.BaseClaim{Merged: 5, Settled: true, Rows: 3, Hash: backend.Sum{1}},
	}
	same := claim{known: claimKnown, digest: got.Digest, base: got.Base}
	change := func(f func(c *claim)) claim {
		c := same
		f(&c)
		return c
	}
	otherDigest := change(func(c *claim) { c.digest[15]++ })
	otherHash := change(func(c *claim) { c.base.Hash[31]++ })
	otherRows := change(func(c *claim) { c.base.Rows++ })
	merging := change(func(c *claim) { c.base.Hash[31]++; c.base.Settled = false })
	otherM := change(func(c *claim) { c.base.Hash[31]++; c.base.Merged++ })
	dropped := change(func(c *claim) { c.known, c.digest = claimDropped, ident.Digest{} })
	droppedOtherHash := change(func(c *claim) { c.known, c.base.Hash = claimDropped, backend.Sum{9} })
	behind := change(func(c *claim) { c.known, c.digest = claimBehind, ident.Digest{} })

	for _, test := range []struct {
		what    string
		answers map[ident.MemberID][]claim // One after the other; none: not reachable.
		refused bool
		asked   int
	}{
		{"nobody else is there", nil, false, 0},
		{"nobody can be reached", map[ident.MemberID][]claim{2: {}, 3: {}}, false, 2},
		{"the first agrees", map[ident.MemberID][]claim{2: {same}, 3: {otherDigest}}, false, 1},
		{"the first has another digest", map[ident.MemberID][]claim{2: {otherDigest}, 3: {same}}, true, 1},
		{"the first has another hash of the same rows", map[ident.MemberID][]claim{2: {otherHash}}, true, 1},
		{"the first has other rows", map[ident.MemberID][]claim{2: {otherRows}}, true, 1},
		{"a merge makes hashes differ", map[ident.MemberID][]claim{2: {merging}}, false, 1},
		{"hashes of different rows differ", map[ident.MemberID][]claim{2: {otherM}}, false, 1},
		{"the first does not know, the second contradicts", map[ident.MemberID][]claim{2: {dropped}, 3: {otherDigest}}, true, 2},
		{"the first knows no digest, and has another hash", map[ident.MemberID][]claim{2: {droppedOtherHash}}, true, 1},
		{"one that is behind is waited for", map[ident.MemberID][]claim{2: {behind, behind, otherDigest}}, true, 3},
	} {
		asked := 0
		ask := func(_ context.Context, id ident.MemberID, kind uint8, data []byte) ([]byte, error) {
			asked++
			list := test.answers[id]
			if len(list) == 0 {
				return nil, errors.New("unreachable")
			}
			if kind != askClaim || len(data) != 8 || data[7] != 77 {
				t.Errorf("%s: question %d, %x", test.what, kind, data)
			}
			test.answers[id] = list[1:]
			return list[0].encode(), nil
		}
		var others []ident.MemberID
		for id := ident.MemberID(2); id <= 3; id++ {
			if _, is := test.answers[id]; is {
				others = append(others, id)
			}
		}
		c := &core{cfg: Config{Clock: clock.Real()}, log: hclog.NewNullLogger()}
		err := confirmWith(t.Context(), c, others, got, ask)
		if test.refused != errors.Is(err, errContradicted) || !test.refused && err != nil || asked != test.asked {
			t.Errorf("%s: %v after %d questions, want %d", test.what, err, asked, test.asked)
		}
	}
}

func TestAMemberThatStandsStillKeepsNobodyFromContradicting(t *testing.T) {
	got := &snapshot.Received{State: mvcc.State{Position: ident.Position{Index: 77}, Digest: ident.Digest{7}}}
	clk := clocktest.New()
	ask := func(ctx context.Context, id ident.MemberID, _ uint8, _ []byte) ([]byte, error) {
		if id == 3 {
			return (&claim{known: claimKnown, digest: ident.Digest{8}}).encode(), nil
		}
		clk.Advance(confirmMax - 1)
		select {
		case <-ctx.Done():
		default:
			t.Error("waits for a member that does not answer until there is no time to ask another")
		}
		return nil, errors.New("no answer")
	}
	c := &core{cfg: Config{Clock: clk}, log: hclog.NewNullLogger()}
	if err := confirmWith(t.Context(), c, []ident.MemberID{2, 3}, got, ask); !errors.Is(err, errContradicted) {
		t.Errorf("member 3 has another digest: %v", err)
	}
}
