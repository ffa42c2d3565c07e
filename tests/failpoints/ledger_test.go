package failpoints

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

const (
	keysMax    = 16
	valueBytes = 384 << 10 // A segment of the log is full after some rounds.
)

// ledger is what one writer tried and what it was told. A value begins with a
// number that rises with each write of any key.
type ledger struct {
	next         int
	acked        map[string]int   // By key: the last number; negative for a deletion.
	tried        map[string][]int // By key: those since.
	revision     int64            // The highest acknowledged.
	acknowledged int
}

func newLedger() *ledger {
	return &ledger{tried: map[string][]int{}, acked: map[string]int{}}
}

// loadUntilEnded writes until the member dies, and returns in which round.
func (l *ledger) loadUntilEnded(t *testing.T, c *cluster.Cluster, m *cluster.Member) int {
	t.Helper()
	ctx, cancel := untilEnded(t.Context(), m)
	defer cancel()
	for round := range roundsMax {
		if !m.Running() {
			return round
		}
		l.load(ctx, c, m)
	}
	return roundsMax
}

// load is one round of everything that passes by places. Errors are how the
// end of a member looks from outside.
func (l *ledger) load(ctx context.Context, c *cluster.Cluster, m *cluster.Member) {
	cl, err := c.Client(m)
	if err != nil {
		return
	}
	defer cl.Close()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	w := cl.Watch(watching, client.Watch{Range: client.Prefix("key/"), Revision: l.revision + 1})
	go func() {
		for range w.Reports() { // So that events are sent.
		}
	}()
	padding := strings.Repeat("x", valueBytes)
	for k := range keysMax {
		key := fmt.Sprintf("key/%02d", k)
		l.next++
		n := l.next
		if k%3 == 2 {
			n = -n
		}
		l.tried[key] = append(l.tried[key], n)
		revision := int64(0)
		if n < 0 {
			r, err := cl.Delete(ctx, client.Delete{Range: client.One(key)})
			if err != nil {
				return
			}
			revision = r.Header.Revision
		} else {
			r, err := cl.Put(ctx, client.Put{Key: key, Value: []byte(fmt.Sprintf("%d %s", n, padding))})
			if err != nil {
				return
			}
			revision = r.Header.Revision
		}
		l.acked[key], l.tried[key], l.revision = n, nil, max(l.revision, revision)
		l.acknowledged++
	}
	if _, err := cl.Compact(ctx, l.revision, true); err != nil { // Waits for checkpoint, merge and drop.
		return
	}
	if s, err := cl.Snapshot(ctx); err == nil {
		_, _ = io.Copy(io.Discard, s)
		_ = s.Close()
	}
	_, _ = cl.Defragment(ctx)
}

// verify reads every key through a member. What was acknowledged last is there,
// or what was tried after it.
func (l *ledger) verify(t *testing.T, c *cluster.Cluster, m *cluster.Member) {
	t.Helper()
	cl, err := c.Client(m)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), placeMax)
	defer cancel()
	got, err := cl.Get(ctx, client.Get{Range: client.Prefix("key/")})
	if err != nil {
		t.Fatal(err)
	}
	if got.Header.Revision < l.revision {
		t.Errorf("at revision %d, and %d was acknowledged", got.Header.Revision, l.revision)
	}
	there := map[string]int{}
	for _, kv := range got.Kvs {
		number, padding, _ := strings.Cut(string(kv.Value), " ")
		n, err := strconv.Atoi(number)
		if err != nil || len(padding) != valueBytes {
			t.Errorf("key %s has a value of %d bytes that nobody wrote", kv.Key, len(kv.Value))
		}
		there[string(kv.Key)] = n
	}
	for key, acked := range l.acked {
		n := there[key]
		legal := func(tried int) bool { return n == tried || n == 0 && tried <= 0 }
		if !legal(acked) && !slices.ContainsFunc(l.tried[key], legal) {
			t.Errorf("key %s holds write %d; %d was acknowledged, %v were tried since", key, n, acked, l.tried[key])
		}
	}
	for k := range keysMax { // What is read is acknowledged too.
		key := fmt.Sprintf("key/%02d", k)
		l.acked[key], l.tried[key] = there[key], nil
	}
}
