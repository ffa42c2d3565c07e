package server_test

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/quick"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

var (
	flipsFlag = flag.Int("server.flips", 8, "how many times a bit of a stopped member's files is flipped; with -short at most 3")
	flipsSeed = flag.Uint64("server.seed", 0, "draw the bits from this seed; 0: from a new one, which is printed")
)

// filesOf are the files of a member that is part of what it serves, by kind.
func filesOf(t testing.TB, m *servertest.Member) map[string][]string {
	t.Helper()
	kinds := map[string][]string{}
	must(t, filepath.WalkDir(m.Config.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), "old-") {
				return fs.SkipDir
			}
			return nil
		}
		kind := filepath.Ext(path)
		if kind == "" {
			kind = d.Name()
		}
		if kind != "LOCK" && !strings.HasPrefix(d.Name(), "spare-") {
			kinds[kind] = append(kinds[kind], path)
		}
		return nil
	}))
	return kinds
}

// pick draws a file, of each kind in turn.
func pick(t testing.TB, m *servertest.Member, r *rand.Rand, turn int) (kind, name string) {
	t.Helper()
	kinds := filesOf(t, m)
	all := slices.Sorted(maps.Keys(kinds))
	kind = all[turn%len(all)]
	return kind, kinds[kind][r.IntN(len(kinds[kind]))]
}

// written is the length of a file without the zeroes that were allocated ahead.
func written(t testing.TB, name string) int {
	t.Helper()
	data, err := os.ReadFile(name)
	must(t, err)
	return len(strings.TrimRight(string(data), "\x00"))
}

// rightOrEnded reads all keys. A member that meets damage meanwhile answers with
// an error and ends, for whoever supervises it to start it again: then it is false.
func rightOrEnded(t testing.TB, m *servertest.Member, what string, values map[string]string) bool {
	t.Helper()
	select {
	case <-m.Ready():
	case <-m.Done():
	case <-time.After(readyMax):
		t.Fatalf("%s: neither ready nor ended", what)
	}
	err := readAll(t, m, what, values)
	if err == nil {
		return true
	}
	if ended := ended(t, m); !errors.Is(ended, server.ErrDamaged) {
		t.Fatalf("%s: %v, ended because of %v", what, err, ended)
	}
	return false
}

// readAll reads the newest values, and all versions for a hash.
func readAll(t testing.TB, m *servertest.Member, what string, values map[string]string) error {
	t.Helper()
	conn, err := m.DialInside()
	if err != nil {
		return err
	}
	defer conn.Close()
	for key, want := range values {
		r, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte(key), Serializable: true})
		if err != nil {
			return err
		}
		if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != want {
			t.Fatalf("%s: %q is %v, want %q", what, key, r.Kvs, want)
		}
	}
	_, err = pb.NewMaintenanceClient(conn).HashKV(t.Context(), &pb.HashKVRequest{})
	return err
}

func flips() int {
	if testing.Short() { // make dr has all.
		return min(*flipsFlag, 3)
	}
	return *flipsFlag
}

// Whichever bit of whichever file: what is answered is right, or the member
// refuses to start and names the file. All but the log is mended without
// anybody's help.
func TestAFlippedBitAnywhereIsMendedOrRefusedByName(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // It mostly waits.
	seed := *flipsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d; replay with -server.seed=%d -server.flips=%d", seed, seed, *flipsFlag)
	r := rand.New(rand.NewPCG(seed, 1))
	c := compacted(t, 3)
	victim := c.Members[2]
	values := map[string]string{"a": "1", "b": "1", "c": "1"}
	outcomes := map[string]int{}
	for i := range flips() {
		key := fmt.Sprint("k", i%20)
		values[key] = fmt.Sprintf("%0*d", 1+r.IntN(3000), i)
		head := mustPut(t, dial(t, c.Members[0]), key, values[key]).Header.Revision
		if i%3 == 0 { // Some of it goes to base.
			_, err := pb.NewKVClient(dial(t, c.Members[0])).Compact(t.Context(), &pb.CompactionRequest{Revision: head})
			must(t, err)
		}
		mustGet(t, dial(t, victim), key)
		victim.Stop()
		kind, name := pick(t, victim, r, i)
		size := written(t, name)
		if size == 0 {
			victim.Start()
			victim.WaitReady()
			continue
		}
		at, bit := r.IntN(size), r.IntN(8)
		flip := func() { change(t, name, func(data []byte) { data[at] ^= 1 << bit }) }
		flip()
		what := fmt.Sprintf("bit %d of byte %d of %d of %s", bit, at, size, strings.TrimPrefix(name, victim.Config.DataDir))
		asides, _ := filepath.Glob(filepath.Join(victim.Config.DataDir, "old-gen-*"))
		s, err := server.Start(t.Context(), victim.Config)
		if err != nil {
			outcomes[kind+" refused"]++
			if !strings.Contains(err.Error(), filepath.Base(name)) {
				t.Fatalf("%s: the refusal does not name the file: %v", what, err)
			}
			if kind != ".wal" {
				t.Fatalf("%s: not mended: %v", what, err)
			}
			flip()
			victim.Start()
		} else {
			victim.Server = s
			t.Cleanup(func() { s.Close() })
		}
		for again := 0; !rightOrEnded(t, victim, what, values); again++ {
			if again == 2 { // Whatever else there was went with the state that was set aside.
				t.Fatalf("%s: it ends again and again: %v", what, victim.Err())
			}
			victim.Start()
		}
		sameHashes(t, c)
		if err == nil {
			now, _ := filepath.Glob(filepath.Join(victim.Config.DataDir, "old-gen-*"))
			if len(now) > len(asides) {
				outcomes[kind+" replaced"]++
			} else {
				outcomes[kind+" harmless"]++
			}
		}
	}
	for _, outcome := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%-20s %d", outcome, outcomes[outcome])
	}
}
