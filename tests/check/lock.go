package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Hold is that a client was told that it holds a lock, or leads. The protocol
// promises order, not exclusion: a client may not have learned yet that its
// lease ran out, but then its token is lower than that of the next.
type Hold struct {
	Client int
	Prefix string // Of the keys of all who want the lock.
	Token  int64  // Create revision of its own key.
	From   int64  // When it was told.
}

// checkLocks checks each hold: the key of its token exists, no two have the
// same, and whoever stood in line before it had gone by then.
func (c *checker) checkLocks() {
	holds := slices.Clone(c.h.Holds)
	slices.SortFunc(holds, func(a, b Hold) int { return cmp.Or(cmp.Compare(a.Prefix, b.Prefix), cmp.Compare(a.Token, b.Token)) })
	for i, h := range holds {
		if i > 0 && holds[i-1].Prefix == h.Prefix && holds[i-1].Token == h.Token {
			c.add(Violation{Rule: "L7", Revision: h.Token, Text: fmt.Sprintf("clients %d and %d hold %q by the same key", holds[i-1].Client, h.Client, h.Prefix)})
		}
		c.checkHold(h)
	}
}

func (c *checker) checkHold(h Hold) {
	if h.Token < 1 || h.Token > c.head || !slices.ContainsFunc(c.log[h.Token], func(e *mvccpb.Event) bool {
		return strings.HasPrefix(string(e.Kv.Key), h.Prefix) && e.Kv.CreateRevision == h.Token
	}) {
		c.add(Violation{Rule: "L7", Revision: h.Token, Text: fmt.Sprintf("client %d holds %q by a key that nobody created", h.Client, h.Prefix)})
		return
	}
	for _, kv := range c.m.At(h.Token) {
		if kv.CreateRevision >= h.Token || !strings.HasPrefix(string(kv.Key), h.Prefix) {
			continue
		}
		if gone := c.goneAt(string(kv.Key), h.Token); gone > c.head || c.exists[gone] > h.From {
			c.add(Violation{Rule: "L7", Revision: h.Token, Text: fmt.Sprintf("client %d holds %q before %q, created at revision %d, had gone", h.Client, h.Prefix, kv.Key, kv.CreateRevision)})
			return
		}
	}
}

// goneAt is the revision at which a key that is there was deleted, or one above
// the head.
func (c *checker) goneAt(key string, from int64) int64 {
	for rev := from + 1; rev <= c.head; rev++ {
		for _, e := range c.log[rev] {
			if string(e.Kv.Key) == key && e.Kv.Version == 0 {
				return rev
			}
		}
	}
	return c.head + 1
}
