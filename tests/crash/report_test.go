package crash

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag     = flag.Uint64("seed", 1, "seed of all workloads")
	workloadFlag = flag.String("workload", "", "only this workload")
	boundaryFlag = flag.Int("boundary", 0, "only this boundary of the workload")
	imageFlag    = flag.Int("image", 0, "only this image of the boundary")
	imagesFlag   = flag.Int("images", 1, "images at each boundary; 0 is all of them")
	callFlag     = flag.Int("call", 0, "only this call of the workload fails")
	faultFlag    = flag.String("fault", "EIO", "with -call: EIO, ENOSPC or short")
	shardFlag    = flag.String("shard", "0/1", "i/n: of all workloads every n-th, from the i-th, counted from 0")
	longFlag     = flag.Bool("long", false, "every image at every boundary, every call failed, more flips")
)

// row is what was done with one workload.
type row struct {
	name                                            string
	boundaries, commits, images, pageImages, nested int
	equal                                           int // Of the images, those that were the same as one before.
	unseen, failed                                  int
	kinds, verdicts                                 map[string]int
}

// report gathers what was done.
type reportTable struct {
	mu   sync.Mutex
	rows []*row
}

var table, faults, tails, flips reportTable

func (r *reportTable) row(name string) *row {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := &row{name: name}
	r.rows = append(r.rows, n)
	return n
}

// done tells how far a long run has come.
func (r *reportTable) done(n *row, what string, began time.Time) {
	if !*longFlag {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Printf("%s %-13s %-16s %6d positions %7d images %7d equal %6d nested %3d failed %7.1f s\n",
		time.Now().Format(time.TimeOnly), what, n.name, n.boundaries, n.images, n.equal, n.nested, n.failed, time.Since(began).Seconds())
}

// ofShard are those of some workloads that this run goes through.
func ofShard(t *testing.T, all []workload) []workload {
	t.Helper()
	var i, n int
	if _, err := fmt.Sscanf(*shardFlag, "%d/%d", &i, &n); err != nil || n < 1 || i < 0 || i >= n {
		t.Fatalf("-shard=%s: want i/n, with i from 0 to n-1", *shardFlag)
	}
	var mine []workload
	for at, w := range all {
		if at%n == i {
			mine = append(mine, w)
		}
	}
	return mine
}

func (r *reportTable) print() (sum row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.rows, func(a, b *row) int { return strings.Compare(a.name, b.name) })
	fmt.Printf("\n%-16s %10s %8s %8s %8s %12s %8s %7s\n", "workload", "boundaries", "commits", "images", "equal", "page images", "nested", "failed")
	line := func(n *row) {
		fmt.Printf("%-16s %10d %8d %8d %8d %12d %8d %7d\n", n.name, n.boundaries, n.commits, n.images, n.equal, n.pageImages, n.nested, n.failed)
	}
	sum = row{name: "all", kinds: map[string]int{}, verdicts: map[string]int{}}
	for _, n := range r.rows {
		line(n)
		sum.boundaries += n.boundaries
		sum.commits += n.commits
		sum.images += n.images
		sum.equal += n.equal
		sum.pageImages += n.pageImages
		sum.nested += n.nested
		sum.failed += n.failed
		sum.unseen += n.unseen
		for k, v := range n.kinds {
			sum.kinds[k] += v
		}
		for k, v := range n.verdicts {
			sum.verdicts[k] += v
		}
	}
	line(&sum)
	for _, counts := range []struct {
		what string
		of   map[string]int
	}{{"crashed before", sum.kinds}, {"verdicts", sum.verdicts}} {
		fmt.Printf("%s:", counts.what)
		for _, k := range slices.Sorted(maps.Keys(counts.of)) {
			fmt.Printf("  %s %d", k, counts.of[k])
		}
		fmt.Println()
	}
	return sum
}

// needed must not be zero, or the run proves less than it says.
var needed = map[*reportTable][]string{
	&table: {
		"sync wal", "write wal", "alloc wal", "rename wal", "create wal", "remove wal", "sync history", "write history", "create history",
		"remove history", "rename key table", "rename base", "rename CURRENT", "rename IDENTITY", "rename generation", "rename snapshot", "syncdir folder",
		"log replayed", "nothing to replay", "tail cut", "log begun anew", "made anew", "restored again",
	},
	&faults: {"EIO: stopped", "EIO: went on", "ENOSPC: went on", "short: stopped"},
	&tails:  {"cut wal: cut, told", "cut wal: refused", "zeroed wal: cut, told", "zeroed wal: refused", "sector wal: refused", "cut history: refused", "zeroed history: refused", "sector history: refused"},
	&flips: {
		"base.db: refused", "base.db: when read", "wal: refused", "history: refused", "history: when read", "key table: made anew",
		"snapshot: by verify", "CURRENT: refused", "IDENTITY: not in use", // Its copy is.
	},
}

const (
	imagesMin    = 5000
	workloadsMin = 50
	flipsMin     = 2000
)

// vacuous tells what a whole run did not do.
func vacuous(r *reportTable, sum row) []string {
	var none []string
	for _, what := range needed[r] {
		if sum.kinds[what]+sum.verdicts[what] == 0 {
			none = append(none, what)
		}
	}
	if all := sum.images + sum.nested; r == &table && (all < imagesMin || len(r.rows) < workloadsMin || sum.commits == 0 || sum.pageImages == 0) {
		none = append(none, fmt.Sprintf("%d images of %d, %d workloads of %d, %d commits", all, imagesMin, len(r.rows), workloadsMin, sum.commits))
	}
	if r == &flips && sum.images < flipsMin {
		none = append(none, fmt.Sprintf("%d flips of %d", sum.images, flipsMin))
	}
	return none
}

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(400) // Stores are opened and thrown away all the time.
	code := m.Run()
	whole := *workloadFlag == "" && *shardFlag == flag.Lookup("shard").DefValue && flag.Lookup("test.run").Value.String() == ""
	for _, t := range []struct {
		name string
		of   *reportTable
	}{{"walk", &table}, {"failing calls", &faults}, {"tails", &tails}, {"flips", &flips}} {
		if len(t.of.rows) == 0 {
			continue
		}
		fmt.Printf("\n%s, seed %d", t.name, *seedFlag)
		if none := vacuous(t.of, t.of.print()); len(none) > 0 && whole && code == 0 {
			fmt.Printf("FAIL: %s: nothing of: %s\n", t.name, strings.Join(none, "; "))
			code = 1
		}
	}
	os.Exit(code)
}
