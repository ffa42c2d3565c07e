// Command run simulates clusters: many seeds on several processes, with a table
// of what happened in them, or one seed with its log.
//
//	go run ./tests/sim/run -seeds 480 -workers 2
//	go run ./tests/sim/run -minutes 60 -first 100000
//	go run ./tests/sim/run -seed 4711
//	go run ./tests/sim/run -scenario tests/sim/testdata/x.json
//
// A seed that fails is run again with less and less of its schedule, and the
// shortest that still fails is printed. Each worker is a process of its own,
// since Raft's chance is global to one.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/tests/sim"
)

type flags struct {
	seeds    int
	first    uint64
	minutes  float64
	workers  int
	seed     string
	scenario string
	tape     string
	keep     string
	beyond   bool
	quick    bool
	worker   int
}

func main() {
	var f flags
	flag.IntVar(&f.seeds, "seeds", 480, "how many seeds to run")
	flag.Uint64Var(&f.first, "first", 1, "the first seed")
	flag.Float64Var(&f.minutes, "minutes", 0, "run as many seeds as fit this time, instead of -seeds")
	flag.IntVar(&f.workers, "workers", 2, "processes")
	flag.StringVar(&f.seed, "seed", "", "run one seed, with its log")
	flag.StringVar(&f.scenario, "scenario", "", "run one stored scenario, with its log")
	flag.StringVar(&f.tape, "tape", "", "with -seed: a file for all that the trace is made of")
	flag.StringVar(&f.keep, "keep", "", "a folder for the shortest scenarios that fail")
	flag.BoolVar(&f.beyond, "beyond", false, "overdraw the fault budget: nothing may be wrong, but a cluster may come to a halt")
	flag.BoolVar(&f.quick, "partial", false, "do not ask that every fault and every check was there")
	flag.IntVar(&f.worker, "worker", -1, "number of this process; for its parent's use")
	flag.Parse()
	if err := f.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (f *flags) run() error {
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("%q is no flag; -help lists them", flag.Arg(0))
	case f.workers < 1 || f.workers > 64:
		return fmt.Errorf("-workers %d: give 1 to 64", f.workers)
	case f.seeds < 1:
		return fmt.Errorf("-seeds %d: give at least 1", f.seeds)
	case f.minutes < 0:
		return fmt.Errorf("-minutes %g: give a positive number", f.minutes)
	case f.first == 0:
		return errors.New("-first 0: seeds begin at 1")
	case f.worker >= 0:
		return f.work()
	case f.scenario != "":
		data, err := os.ReadFile(f.scenario)
		if err != nil {
			return err
		}
		s, err := sim.ReadScenario(data)
		if err != nil {
			return fmt.Errorf("%s: %w", f.scenario, err)
		}
		return f.one(s)
	case f.seed != "":
		n, err := strconv.ParseUint(f.seed, 10, 64)
		if err != nil || n == 0 {
			return fmt.Errorf("-seed %q is not a seed: give a number from 1 on", f.seed)
		}
		return f.one(sim.Expand(n, f.beyond))
	}
	return f.many()
}

// one runs one scenario and shows what happens.
func (f *flags) one(s *sim.Scenario) error {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprint(out, s)
	o := sim.Options{Scratch: sim.Scratch(), Log: func(line string) { fmt.Fprintln(out, line) }}
	if f.tape != "" {
		file, err := os.Create(f.tape)
		if err != nil {
			return err
		}
		defer file.Close()
		tape := bufio.NewWriter(file)
		defer tape.Flush()
		o.Tape = tape
	}
	r := sim.Run(s, o)
	fmt.Fprintf(out, "\ntrace %x, %d requests acknowledged, %d checked, %d leaders\n%s", r.Trace, r.Acknowledged, r.Checked, r.Leaders, r.Counters.Table())
	if r.Failure != nil {
		return fmt.Errorf("seed %d: %w", r.Seed, r.Failure)
	}
	if !r.Counts() {
		fmt.Fprintf(out, "does not count: %s\n", r.Reason)
	}
	return nil
}

// work runs every so many-th seed and reports each in a line.
func (f *flags) work() error {
	out := json.NewEncoder(os.Stdout)
	end := time.Now().Add(time.Duration(f.minutes * float64(time.Minute)))
	for i := f.worker; ; i += f.workers {
		if f.minutes > 0 && time.Now().After(end) || f.minutes == 0 && i >= f.seeds {
			return nil
		}
		r := sim.Run(sim.Expand(f.first+uint64(i), f.beyond), sim.Options{Scratch: sim.Scratch()})
		if err := out.Encode(r); err != nil {
			return err
		}
	}
}

// summary adds up what the workers report.
type summary struct {
	mu       sync.Mutex
	total    sim.Counters
	seeds    int
	counted  int
	together int // Seeds with two kinds of faults or more.
	time     int64
	acked    int
	checked  int
	reasons  map[string]int
	failed   []*sim.Result
}

func (f *flags) many() error {
	s := &summary{total: sim.NewCounters(), reasons: map[string]int{}}
	began := time.Now()
	errs := make([]error, f.workers)
	var wg sync.WaitGroup
	for i := range f.workers {
		wg.Go(func() { errs[i] = f.spawn(i, s) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	took := time.Since(began)
	fmt.Println(s.total.Table())
	for _, reason := range sim.SortedKeys(s.reasons) {
		fmt.Printf("%d seeds do not count: %s\n", s.reasons[reason], reason)
	}
	simulated := float64(s.time) / 1e6
	fmt.Printf("%d seeds, %d counted, %d with two faults or more, %.2f cluster-hours in %s on %d processes: %.1f simulated seconds a core-second\n",
		s.seeds, s.counted, s.together, simulated/3600, took.Round(time.Second), f.workers, simulated/took.Seconds()/float64(f.workers))
	fmt.Printf("%d requests acknowledged, %d requests and reads checked\n", s.acked, s.checked)
	return f.judge(s)
}

func (f *flags) judge(s *summary) error {
	for i, r := range s.failed {
		fmt.Printf("\nFAILED seed %d: %v\nreplay: go run ./tests/sim/run -seed %d%s\n", r.Seed, r.Failure, r.Seed, f.mode())
		if i < 3 {
			if err := f.shrink(r); err != nil {
				return err
			}
		}
	}
	switch missing := s.total.Missing(f.beyond); {
	case len(s.failed) > 0:
		return fmt.Errorf("%d of %d seeds failed", len(s.failed), s.seeds)
	case !f.quick && len(missing) > 0:
		return fmt.Errorf("never happened in %d seeds: %s", s.seeds, strings.Join(missing, ", "))
	case !f.beyond && s.counted*10 < s.seeds*8:
		return fmt.Errorf("only %d of %d seeds count", s.counted, s.seeds)
	}
	return nil
}

func (f *flags) mode() string {
	if f.beyond {
		return " -beyond"
	}
	return ""
}

// shrinkTries bounds the runs that look for a shorter schedule.
const shrinkTries = 120

func (f *flags) shrink(r *sim.Result) error {
	s, failure := sim.Shrink(sim.Expand(r.Seed, f.beyond), r.Failure, sim.Options{Scratch: sim.Scratch()}, shrinkTries)
	s.Note = failure.Text
	fmt.Printf("shortest schedule that fails: %v\n%s", failure, s)
	if f.keep == "" {
		return nil
	}
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	name := filepath.Join(f.keep, fmt.Sprintf("seed-%d.json", r.Seed))
	fmt.Printf("kept as %s\n", name)
	return os.WriteFile(name, append(data, '\n'), 0o644)
}

// spawn runs a worker and takes in what it reports.
func (f *flags) spawn(worker int, s *summary) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, "-worker", strconv.Itoa(worker), "-workers", strconv.Itoa(f.workers), "-seeds", strconv.Itoa(f.seeds),
		"-first", strconv.FormatUint(f.first, 10), "-minutes", fmt.Sprint(f.minutes), "-beyond="+strconv.FormatBool(f.beyond))
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2") // One for the world, a little for the collector.
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	in := json.NewDecoder(out)
	for {
		r := &sim.Result{}
		if err = in.Decode(r); err != nil {
			break
		}
		s.take(r)
	}
	if err == io.EOF {
		err = nil
	}
	return errors.Join(err, cmd.Wait())
}

func (s *summary) take(r *sim.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seeds++
	s.time += r.Simulated
	s.acked += r.Acknowledged
	s.checked += r.Checked
	s.total.Add(&r.Counters)
	if r.Kinds >= 2 {
		s.together++
	}
	switch {
	case r.Failure != nil:
		s.failed = append(s.failed, r)
		fmt.Printf("seed %d: %v\n", r.Seed, r.Failure)
	case r.Counts():
		s.counted++
	default:
		s.reasons[r.Reason]++
	}
}
