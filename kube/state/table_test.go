package state

import (
	"context"
	"fmt"
	"testing"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// A write is told by who made it and by the watch, in any order: once both have, it
// is not kept twice, and what is known is the newest.
func TestAWriteThatTheWatchHasToldIsNotKept(t *testing.T) {
	c := newCache()
	g := task.New(t.Context())
	const rounds, keys = 2000, 3
	key := func(i int) string { return fmt.Sprintf("%sk%d", plainKeys, i%keys) }
	kv := func(i int) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(key(i)), ModRevision: int64(i), Value: fmt.Append(nil, i)}
	}
	for range 2 {
		for w := range 2 {
			g.Go("writer", func(context.Context) error {
				for i := 1 + w; i <= rounds; i += 2 {
					c.wrote(key(i), int64(i), kv(i))
					if got := c.lookup(key(i)); got.GetModRevision() < int64(i) {
						t.Errorf("after the write at %d the key is known as of %d", i, got.GetModRevision())
					}
				}
				return nil
			})
		}
	}
	g.Go("watch", func(context.Context) error {
		for i := 1; i <= rounds; i++ {
			c.apply([]change{{kv: kv(i)}}, int64(i))
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for left := range c.keys.Load().written.all() {
		t.Errorf("%s is still kept as written", left)
	}
	for i := rounds - keys + 1; i <= rounds; i++ {
		if got := c.lookup(key(i)).GetModRevision(); got != int64(i) {
			t.Errorf("%s is known as of %d, and was written at %d", key(i), got, i)
		}
	}
}
