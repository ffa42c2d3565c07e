package server

import (
	"bytes"
	"slices"
	"sort"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// writes is what a branch may write. What is gathered from a branch in one that holds
// it is looked at once for each transaction nested there, and all of these together
// are within the budget of operations: so the work grows little faster than the
// request, of which the budget bounds only the depth.
type writes struct {
	puts    map[string]bool
	deletes []keySpan // By rising keys; none meets another.
}

// keySpan is the keys from one on, below end; without an end, all of them.
type keySpan struct{ from, end []byte }

// spanOf is what a request deletes; ok is false for nothing.
func spanOf(d *pb.DeleteRangeRequest) (k keySpan, ok bool) {
	switch {
	case len(d.RangeEnd) == 0:
		return keySpan{d.Key, append(bytes.Clone(d.Key), 0)}, true
	case len(d.RangeEnd) == 1 && d.RangeEnd[0] == 0:
		return keySpan{d.Key, nil}, true
	}
	return keySpan{d.Key, d.RangeEnd}, bytes.Compare(d.Key, d.RangeEnd) < 0
}

// deleted reports whether a key is among those that are deleted.
func (w *writes) deleted(key string) bool {
	k := []byte(key)
	i := sort.Search(len(w.deletes), func(i int) bool { return bytes.Compare(w.deletes[i].from, k) > 0 })
	return i > 0 && (w.deletes[i-1].end == nil || bytes.Compare(k, w.deletes[i-1].end) < 0)
}

// writesOf gathers what a branch writes, or fails when a key is put twice, or
// put and deleted. Only one branch of a nested transaction runs, so its two
// branches may overlap each other.
func writesOf(branch []*pb.RequestOp) (*writes, error) {
	w := &writes{puts: map[string]bool{}}
	for _, op := range branch {
		if d := op.GetRequestDeleteRange(); d != nil {
			if k, ok := spanOf(d); ok {
				w.deletes = append(w.deletes, k)
			}
		}
	}
	slices.SortFunc(w.deletes, func(a, b keySpan) int { return bytes.Compare(a.from, b.from) })
	w.deletes = joined(w.deletes, nil)
	for _, op := range branch {
		if t := op.GetRequestTxn(); t != nil {
			if err := w.addNested(t); err != nil {
				return nil, err
			}
		}
	}
	for _, op := range branch {
		if p := op.GetRequestPut(); p != nil {
			key := string(p.Key)
			if w.puts[key] || w.deleted(key) {
				return nil, errDuplicateKey
			}
			w.puts[key] = true
		}
	}
	return w, nil
}

func (w *writes) addNested(t *pb.TxnRequest) error {
	yes, err := writesOf(t.Success)
	if err != nil {
		return err
	}
	no, err := writesOf(t.Failure)
	if err != nil {
		return err
	}
	if w.meets(yes) || w.meets(no) {
		return errDuplicateKey
	}
	for _, side := range []*writes{yes, no} {
		for key := range side.puts { //tidy:ordered a set
			w.puts[key] = true
		}
		if len(side.deletes) > 0 {
			w.deletes = joined(w.deletes, side.deletes)
		}
	}
	return nil
}

// meets reports whether a key that one of two branches puts is written by the other.
func (w *writes) meets(other *writes) bool {
	for key := range other.puts { //tidy:ordered only whether there is an overlap matters
		if w.puts[key] || w.deleted(key) {
			return true
		}
	}
	if len(other.deletes) == 0 {
		return false
	}
	for key := range w.puts { //tidy:ordered as above
		if other.deleted(key) {
			return true
		}
	}
	return false
}

// joined makes one list of two, each by rising keys, and one span of those that meet.
func joined(a, b []keySpan) []keySpan {
	out := make([]keySpan, 0, len(a)+len(b))
	for len(a)+len(b) > 0 {
		next := &a
		if len(a) == 0 || len(b) > 0 && bytes.Compare(b[0].from, a[0].from) < 0 {
			next = &b
		}
		k := (*next)[0]
		*next = (*next)[1:]
		last := len(out) - 1
		switch {
		case last < 0 || out[last].end != nil && bytes.Compare(out[last].end, k.from) < 0:
			out = append(out, k)
		case out[last].end != nil && (k.end == nil || bytes.Compare(k.end, out[last].end) > 0):
			out[last].end = k.end
		}
	}
	return out
}
