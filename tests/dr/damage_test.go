package dr

import (
	"context"
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/tests/cluster"
)

// harm flips bits in some file of a member's state.
func harm(t *testing.T, m *cluster.Member, rng *rand.Rand) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(m.DataDir, "gen-*", "base.db"))
	segments, segErr := filepath.Glob(filepath.Join(m.DataDir, "gen-*", "history", "*.seg"))
	if err := errors.Join(err, segErr); err != nil || len(files) != 1 || len(segments) == 0 {
		t.Fatalf("state of %s: %v, %v, %v", m.Name, files, segments, err)
	}
	name := append(files, segments...)[rng.Intn(1+len(segments))]
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for at := rng.Intn(512); at < len(data); at += 1 + rng.Intn(1024) {
		if _, err := f.WriteAt([]byte{data[at] ^ 1<<rng.Intn(8)}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("flipped bits all over %s of %s", filepath.Base(name), m.Name)
}

func TestMembersWhoseFilesAreDamagedComeBackByThemselves(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("replay with -seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	c := newCluster(t, 3)
	acked := &acknowledged{revisions: map[string]int64{}}
	ctx := t.Context()
	for round := range 3 {
		load, stop := context.WithTimeout(ctx, 6*time.Second)
		wait := write(load, t, c, "round"+string(rune('a'+round)), acked)
		m := c.Members[rng.Intn(len(c.Members))]
		pause(load, 2*time.Second)
		m.Kill()
		harm(t, m, rng)
		for tries := 0; ; tries++ { // As a supervisor does.
			if err := m.Start(); err != nil {
				t.Fatal(err)
			}
			if err := m.WaitReady(ctx); err == nil {
				break
			} else if tries == 3 {
				t.Fatal(err)
			}
		}
		wait()
		stop()
	}
	check(t, c, acked)
}
