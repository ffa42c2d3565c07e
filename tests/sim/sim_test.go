package sim

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds  = flag.Int("seeds", 40, "how many seeds to run; 24 with -short")
	seed   = flag.Uint64("seed", 0, "run only this seed, with its log")
	first  = flag.Uint64("first", 1, "the first seed")
	twice  = flag.Int("twice", 6, "how many seeds are run in two processes")
	traces = flag.Bool("traces", false, "print the traces of the first seeds, for another process to compare")
)

func count() int {
	if testing.Short() {
		return min(*seeds, 24)
	}
	return *seeds
}

func TestClusters(t *testing.T) {
	if *seed != 0 {
		s := Expand(*seed, false)
		fmt.Print(s)
		if r := Run(s, Options{Scratch: Scratch(), Log: func(line string) { fmt.Println(line) }}); r.Failure != nil {
			t.Errorf("seed %d: %v", *seed, r.Failure)
		}
		return
	}
	total := NewCounters()
	began, simulated, counted := time.Now(), int64(0), 0
	for i := range count() {
		n := *first + uint64(i)
		r := Run(Expand(n, false), Options{Scratch: Scratch()})
		total.Add(&r.Counters)
		simulated += r.Simulated
		switch {
		case r.Failure != nil:
			t.Errorf("seed %d: %v\nreplay: go run ./tests/sim/run -seed %d", n, r.Failure, n)
		case r.Counts():
			counted++
		default:
			t.Logf("seed %d does not count: %s", n, r.Reason)
		}
	}
	t.Logf("%d seeds, %d simulated s, %.1f in a second\n%s", count(), simulated/second, float64(simulated)/second/time.Since(began).Seconds(), total.Table())
	if counted*10 < count()*7 {
		t.Errorf("only %d of %d seeds count", counted, count())
	}
}

// What once failed must not fail again. The schedules are stored, not the
// seeds: those mean something else with each change of the simulation.
func TestScheduleThatOnceFailedPasses(t *testing.T) {
	names, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".json"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			s, err := ReadScenario(data)
			if err != nil {
				t.Fatal(err)
			}
			if r := Run(s, Options{Scratch: Scratch()}); r.Failure != nil {
				t.Errorf("%v\nit once found: %s\nreplay: go run ./tests/sim/run -scenario tests/sim/%s", r.Failure, s.Note, name)
			}
		})
	}
}

func traceOf(n uint64) string {
	r := Run(Expand(n, false), Options{Scratch: Scratch()})
	return fmt.Sprintf("trace %d %016x %d", n, r.Trace, r.Simulated)
}

// The other process has the machine's processors to share with goroutines that
// do nothing but burn time, and hashes its maps by other seeds.
func TestTheSameSeedGivesTheSameRunInAnotherProcess(t *testing.T) {
	if *traces {
		for i := range *twice {
			fmt.Println(traceOf(*first + uint64(i)))
		}
		return
	}
	var done atomic.Bool
	defer done.Store(true)
	for range runtime.NumCPU() {
		go func() {
			for !done.Load() {
			}
		}()
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run", "^"+t.Name()+"$", "-traces", "-twice", fmt.Sprint(*twice), "-first", fmt.Sprint(*first))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var there []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "trace ") {
			there = append(there, lines.Text())
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	done.Store(true)
	if len(there) != *twice {
		t.Fatalf("the other process ran %d seeds, not %d", len(there), *twice)
	}
	for i, want := range there {
		if got := traceOf(*first + uint64(i)); got != want {
			t.Errorf("here %s, there %s: compare go run ./tests/sim/run -seed %d -tape FILE", got, want, *first+uint64(i))
		}
	}
}

func TestASeedIsPrintedAndReadBack(t *testing.T) {
	s := Expand(7, false)
	if text := s.String(); !strings.Contains(text, `"Seed":7`) || !strings.Contains(text, s.Actions[0].Kind) {
		t.Errorf("scenario prints as %s", text)
	}
	if _, err := ReadScenario([]byte(`{"Config":{},"Actions":[{"kind":"X1"}]}`)); err == nil || !strings.Contains(err.Error(), "known are") {
		t.Errorf("an unknown fault gives %v", err)
	}
}

// A planted failure must be found again in what Shrink leaves of a schedule.
func TestAShrunkScheduleStillFails(t *testing.T) {
	s := Expand(3, false)
	s.Config.plant = s.Actions[len(s.Actions)/2].Kind
	for i := range s.Actions[:len(s.Actions)/2] { // Only one of its kind.
		if s.Actions[i].Kind == s.Config.plant {
			s.Actions[i].Kind = "A6"
		}
	}
	r := Run(s, Options{Scratch: Scratch()})
	if r.Failure == nil {
		t.Fatalf("nothing comes of the planted %s", s.Config.plant)
	}
	short, f := Shrink(s, r.Failure, Options{Scratch: Scratch()}, 40)
	if f == nil || len(short.Actions) != 1 || short.Actions[0].Kind != s.Config.plant {
		t.Errorf("%d of %d actions are left, %v", len(short.Actions), len(s.Actions), f)
	}
}
