package mvcc

import (
	"bytes"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
)

// scanner walks the keys that exist at one revision, in order: the cursors of
// the young index, newest generation first, merged over the one of base.
//
//	for sc.next() { use sc.key, sc.found }; err := sc.err
//
// key and found.row are valid until the next call of next.
type scanner struct {
	src *source
	at  ident.Revision
	in  interval

	young    []youngCursor
	youngKey []byte // The lowest of them, nil at the end.
	youngOK  bool   // It has a version in (M, at], that is:
	youngV   history.Version

	base      *backend.Cursor
	baseKey   []byte // Nil at the end.
	baseRow   []byte
	baseBytes int // Read since base was taken.

	stepYoung, stepBase bool // What the last call returned is to be left behind.

	key []byte
	found
	err error
}

func (s *source) scan(in interval, at ident.Revision) *scanner {
	sc := &scanner{src: s, at: at, in: in}
	l := s.layout
	sc.open(l.active)
	for _, g := range l.older {
		if g.last <= l.merged.Revision {
			break
		}
		sc.open(g)
	}
	sc.pickYoung()
	sc.base = s.baseView().Cursor()
	sc.setBase(sc.base.Seek(in.from))
	return sc
}

// countOnly has the scan go on without reading rows.
func (sc *scanner) countOnly() { sc.base.KeysOnly = true }

func (sc *scanner) open(g *generation) {
	if g.first > sc.at {
		return
	}
	if c := g.seek(sc.in.from); c.key != nil {
		sc.young = append(sc.young, youngCursor{cursor: c})
	}
}

// next moves to the next key. It returns false at the end or after an error.
func (sc *scanner) next() bool {
	for sc.err == nil {
		sc.step()
		if sc.err != nil || sc.youngKey == nil && sc.baseKey == nil {
			return false
		}
		order := -1 // Which comes first, young or base.
		switch {
		case sc.youngKey == nil:
			order = 1
		case sc.baseKey != nil:
			order = bytes.Compare(sc.youngKey, sc.baseKey)
		}
		sc.stepYoung, sc.stepBase = order <= 0, order >= 0
		if order <= 0 && sc.youngOK {
			if sc.youngV.Tombstone {
				continue
			}
			sc.key, sc.found = sc.youngKey, found{Version: sc.youngV}
			return true
		}
		if order >= 0 {
			sc.key, sc.found = sc.baseKey, found{row: sc.baseRow} // No row when only counting.
			return true
		}
	}
	return false
}

func (sc *scanner) step() {
	if sc.stepYoung {
		sc.stepYoung = false
		advance(sc.young)
		sc.pickYoung()
	}
	if sc.stepBase {
		sc.stepBase = false
		if sc.baseBytes > baseReadBytesMax {
			sc.renewBase()
		} else {
			sc.setBase(sc.base.Next())
		}
	}
}

// pickYoung finds the lowest young key and its version.
func (sc *scanner) pickYoung() {
	sc.youngKey, sc.youngOK = lowest(sc.young), false
	if sc.youngKey == nil || sc.in.past(sc.youngKey) {
		sc.youngKey = nil
		return
	}
	sc.youngOK = newestAt(sc.young, sc.at, &sc.youngV) && sc.youngV.Mod > sc.src.layout.merged.Revision
}

func (sc *scanner) setBase(key, kv []byte, err error) {
	if err != nil {
		sc.err = err
		return
	}
	if key != nil && sc.in.past(key) {
		key = nil
	}
	sc.baseKey, sc.baseRow = key, kv
	sc.baseBytes += len(key) + len(kv)
}

// renewBase goes on in the present base. It may be merged further by now, but
// only up to C of the layout, and what was merged the young index covers.
func (sc *scanner) renewBase() {
	after := append(bytes.Clone(sc.baseKey), 0)
	keysOnly := sc.base.KeysOnly
	sc.src.done()
	sc.base, sc.baseBytes = sc.src.baseView().Cursor(), 0
	sc.base.KeysOnly = keysOnly
	sc.setBase(sc.base.Seek(after))
}

// youngCursor is one of several cursors that are walked together, those over
// younger generations first.
type youngCursor struct {
	cursor
	lowest bool // Stands at the key that lowest returned.
}

// lowest returns the lowest key that any cursor stands at, nil at the end.
func lowest(cursors []youngCursor) (key []byte) {
	for i := range cursors {
		c := &cursors[i]
		c.lowest = false
		if c.key == nil {
			continue
		}
		order := -1
		if key != nil {
			order = bytes.Compare(c.key, key)
		}
		c.lowest = order <= 0
		if order < 0 {
			key = c.key
			for j := range i {
				cursors[j].lowest = false
			}
		}
	}
	return key
}

// newestAt finds the newest version of the lowest key not above a revision.
func newestAt(cursors []youngCursor, at ident.Revision, v *history.Version) bool {
	for i := range cursors {
		if c := &cursors[i]; c.lowest && c.at(at, v) {
			return true
		}
	}
	return false
}

// advance leaves the lowest key behind.
func advance(cursors []youngCursor) {
	for i := range cursors {
		if cursors[i].lowest {
			cursors[i].next()
		}
	}
}
