package recovery

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// ErrIncomplete means that facts do not prove that a restored point is all there
// ever was.
var ErrIncomplete = errors.New("it is not proven that nothing lies beyond")

// Complete tells whether a point of an archive is all that a cluster ever had:
// every member that votes is frozen, and ends with exactly that state. Then
// nobody can have seen anything beyond, and no revision needs to be passed over.
func (f *Facts) Complete(uuid [16]byte, timeline ident.Timeline, digest ident.Digest) error {
	if len(f.Members) == 0 {
		return fmt.Errorf("there are no facts: %w", ErrIncomplete)
	}
	known := map[ID]bool{}
	for i := range f.Members {
		m := &f.Members[i]
		if err := m.endsWith(uuid, timeline, digest); err != nil {
			return fmt.Errorf("member %s: %w: %w", m.ID, err, ErrIncomplete)
		}
		known[m.ID] = true
	}
	for i := range f.Members {
		for _, id := range f.Members[i].State.Conf.all() {
			if !known[id] {
				return fmt.Errorf("nothing is known of member %s: %w", id, ErrIncomplete)
			}
		}
	}
	return nil
}

func (m *Member) endsWith(uuid [16]byte, timeline ident.Timeline, digest ident.Digest) error {
	switch {
	case m.Running || m.Frozen == "":
		return errors.New("it is not frozen, and may go on")
	case m.UUID != hex.EncodeToString(uuid[:]) || m.Timeline != timeline:
		return fmt.Errorf("it is of cluster %s on timeline %d", m.UUID, m.Timeline)
	case len(m.Damage) > 0 || m.State == nil || m.Log == nil || m.Log.Cut != nil || m.Log.Failed || m.Log.Apart:
		return fmt.Errorf("its disk is not whole: %v", m.Damage)
	case m.Log.Last != m.State.Applied:
		return fmt.Errorf("its log ends with entry %d, its state with %d", m.Log.Last.Index, m.State.Applied.Index)
	case m.State.Digest != digest.String():
		return fmt.Errorf("its state has digest %s, the point %s", m.State.Digest, digest)
	}
	return nil
}
