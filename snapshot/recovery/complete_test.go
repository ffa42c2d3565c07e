package recovery

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
)

func TestWhatIsCompleteIsProvenByAllMembers(t *testing.T) {
	uuid, digest := [16]byte{7}, ident.Digest{9}
	member := func(id ID) Member {
		m := survivor(id, voters(1, 2, 3), 100, Mark{100, 3})
		m.UUID, m.Frozen, m.Timeline, m.State.Digest = hex.EncodeToString(uuid[:]), "a restore", 1, digest.String()
		m.State.Applied = m.Log.Last
		return m
	}
	for _, c := range []struct {
		name    string
		members []Member
		want    string // Why not; empty: it is proven.
	}{
		{"all", []Member{member(1), member(2), member(3)}, ""},
		{"nobody", nil, "no facts"},
		{"a quorum", []Member{member(1), member(2)}, "nothing is known of member 3"},
		{"not frozen", []Member{member(1), member(2), with(member(3), func(m *Member) { m.Frozen = "" })}, "may go on"},
		{"running", []Member{member(1), member(2), with(member(3), func(m *Member) { m.Running = true })}, "may go on"},
		{"another cluster", []Member{member(1), member(2), with(member(3), func(m *Member) { m.UUID = "08" })}, "of cluster 08"},
		{"damage", []Member{member(1), member(2), with(member(3), func(m *Member) { m.Log = nil })}, "not whole"},
		{"a torn log", []Member{member(1), member(2), with(member(3), func(m *Member) { m.Log.Cut = &Cut{} })}, "not whole"},
		{"a longer log", []Member{member(1), member(2), with(member(3), func(m *Member) { m.Log.Last.Index++ })}, "ends with entry 101"},
		{"a newer state", []Member{member(1), member(2), with(member(3), func(m *Member) { m.State.Digest = ident.Digest{1}.String() })}, "has digest"},
	} {
		err := (&Facts{Members: c.members}).Complete(uuid, 1, digest)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
