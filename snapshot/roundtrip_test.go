package snapshot

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/holdfast-db/holdfast/mvcc"
)

func empty(t testing.TB) *mvcc.Store {
	t.Helper()
	s := newStore(t)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestAStoreReceivedIsEqualToTheOneFrozen(t *testing.T) {
	forSeeds(t, func(t *testing.T, r *rand.Rand) {
		a, sc := newStore(t), &script{r: r}
		if r.IntN(10) > 0 {
			sc.begin(t, a)
			sc.run(t, a, r.IntN(120))
		}
		b := snapshotOf(t, a, WriteOptions{NoCompression: r.IntN(2) == 0})
		dir := t.TempDir() + "/gen"
		got, err := Receive(bytes.NewReader(b), storeConfig(dir), empty(t))
		if r.IntN(2) == 0 {
			dir = t.TempDir() + "/gen"
			got, err = ReceiveWhole(bytes.NewReader(b), storeConfig(dir), oldIdentity)
		}
		if err != nil {
			t.Fatal(err)
		}
		c := openStore(t, dir)
		if got.Position != c.Applied().Position {
			t.Errorf("state %+v was announced", got)
		}
		sameStore(t, c, a)
		stepAll(t, c)
		more := *sc
		more.r = rand.New(rand.NewPCG(5, 5))
		more.run(t, c, 20)
		sc.r = rand.New(rand.NewPCG(5, 5))
		sc.run(t, a, 20)
		sameStore(t, c, a)
		if report, err := c.Base().Verify(t.Context(), nil); err != nil {
			t.Errorf("base of the received store: %v, %+v", err, report)
		}
		closeStore(t, a)
		closeStore(t, c)
	})
}

func TestAFollowerGetsOnlyTheHistoryItLacks(t *testing.T) {
	joined := 0
	forSeeds(t, func(t *testing.T, r *rand.Rand) {
		leader, follower := newStore(t), newStore(t)
		lead, follow := &script{r: rand.New(rand.NewPCG(r.Uint64(), 1))}, &script{}
		follow.r = rand.New(rand.NewPCG(0, 0))
		*follow.r = *lead.r
		// Both apply the same until one stays behind.
		seed := r.Uint64()
		both := 1 + r.IntN(60)
		for _, m := range []struct {
			s  *mvcc.Store
			sc *script
		}{{leader, lead}, {follower, follow}} {
			m.sc.r = rand.New(rand.NewPCG(seed, 2))
			m.sc.begin(t, m.s)
			m.sc.run(t, m.s, both)
		}
		sameStore(t, follower, leader)
		have := EncodeHave(follower.Applied())
		lead.run(t, leader, r.IntN(60))
		b := snapshotOf(t, leader, WriteOptions{Have: have})
		whole := snapshotOf(t, leader, WriteOptions{})
		s, err := newReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if s.header.HistoryOnly {
			joined++
			if _, err := Receive(bytes.NewReader(b), storeConfig(t.TempDir()+"/gen"), empty(t)); err == nil {
				t.Error("a state that is not continued took it")
			}
			if _, err := ReceiveWhole(bytes.NewReader(b), storeConfig(t.TempDir()+"/gen"), oldIdentity); !errors.Is(err, ErrHistoryOnly) {
				t.Errorf("no state at all took it: %v", err)
			}
		} else if !bytes.Equal(b, whole) {
			t.Error("neither history alone nor everything")
		}
		dir := t.TempDir() + "/gen"
		if _, err := Receive(bytes.NewReader(b), storeConfig(dir), follower); err != nil {
			t.Fatal(err)
		}
		c := openStore(t, dir)
		sameStore(t, c, leader)
		stepAll(t, c)
		sameStore(t, c, leader)
		closeStore(t, c)
		closeStore(t, leader)
		closeStore(t, follower)
	})
	if *seedFlag == 0 && joined == 0 {
		t.Error("history alone was never enough")
	}
	t.Logf("history alone was enough %d times", joined)
}

func TestASnapshotOfAnotherClusterOrOfThePastIsNotReceived(t *testing.T) {
	a := newStore(t)
	sc := &script{r: rand.New(rand.NewPCG(1, 1))}
	sc.begin(t, a)
	b := snapshotOf(t, a, WriteOptions{})
	sc.run(t, a, 5)
	dir := t.TempDir() + "/gen"
	if _, err := Receive(bytes.NewReader(b), storeConfig(dir), a); !errors.Is(err, ErrOlder) {
		t.Errorf("an older one: %v", err)
	}
	other, err := mvcc.Create(storeConfig(t.TempDir()), mvcc.Identity{Cluster: 9, Timeline: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Receive(bytes.NewReader(b), storeConfig(dir), other); !errors.Is(err, ErrInvalid) {
		t.Errorf("one of another cluster: %v", err)
	}
	if _, err := ReceiveWhole(bytes.NewReader(b), storeConfig(dir), mvcc.Identity{Cluster: oldIdentity.Cluster, Timeline: 9}); !errors.Is(err, ErrInvalid) {
		t.Errorf("one of another timeline: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("scratch is left: %v", err)
	}
	closeStore(t, a)
	closeStore(t, other)
}
