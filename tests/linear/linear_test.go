package linear

import (
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	histories    = flag.Int("histories", 0, "long mode: how many histories with all nemeses")
	seedFlag     = flag.Int64("seed", 0, "seed of the run, or of the first; 0 draws one")
	nemesisFlag  = flag.String("nemesis", "", "nemeses, comma-separated; empty means drawn")
	workloadFlag = flag.String("workload", "", "workload; empty means drawn")
	membersFlag  = flag.Int("members", 0, "how many members; 0 means drawn")
	faultsFlag   = flag.Duration("faults", 0, "how long there are faults in a run; 0 means the mode's own")
	loopbackFlag = flag.Bool("loopback", false, "proxies on loopback in place of namespaces")
	binFlag      = flag.String("bin", "", "folder with holdfast and holdfastctl; empty builds them")
	keepFlag     = flag.String("keep", "", "folder for what failed runs leave (default in the temporary folder)")
)

// Durations of the faults of a run.
const (
	faultsShort = 5 * time.Second
	faultsLong  = 12 * time.Second
)

var shared *environment

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		defer func() {
			if shared != nil {
				if err := shared.close(); err != nil {
					fmt.Fprintln(os.Stderr, "cleaning up:", err)
				}
			}
		}()
		return m.Run()
	}())
}

func environmentFor(t *testing.T) *environment {
	t.Helper()
	if shared == nil {
		e, err := newEnvironment(t.Context(), *binFlag)
		if err != nil {
			t.Fatal(err)
		}
		shared = e
	}
	return shared
}

// planned are the scenarios of the short mode. Two or three faults at a time
// are the normal case; all kinds and all workloads come.
var planned = []Scenario{
	{Members: 3, Workload: "register", Nemeses: []string{"kill-leader", "partition-minority", "compaction-storm"}},
	{Members: 3, Workload: "bank", Nemeses: []string{"partition-majority", "pause-leader", "leader-transfer"}},
	{Members: 5, Workload: "append", Nemeses: []string{"partition-ring", "kill-minority", "one-way"}},
	{Members: 3, Workload: "watch", Nemeses: []string{"kill-one", "flapping", "compaction-storm"}},
	{Members: 3, Workload: "lease", Nemeses: []string{"pause-long", "one-way"}, Loopback: true},
	{Members: 3, Workload: "lock", Nemeses: []string{"leader-isolated", "clock-skew", "pause-one"}},
	{Members: 3, Workload: "kube", Nemeses: []string{"rolling-restart", "loss", "certificates"}},
	{Members: 5, Workload: "mixed", Nemeses: []string{"kill-majority", "partition-bridge", "defragment-storm"}},
	{Members: 3, Workload: "set", Nemeses: []string{"member-replace", "snapshot-restore"}},
	{Members: 3, Workload: "serializable", Nemeses: []string{"slow-links", "resets", "client-cut"}},
	{Members: 3, Workload: "users", Nemeses: []string{"kill-leader", "partition-minority", "leader-transfer"}},
	{Members: 3, Workload: "mixed", Nemeses: []string{"disk-full", "crash-loop", "snapshot-restore"}},
	{Members: 3, Workload: "bank", Nemeses: []string{"disk-forgets", "kill-all"}},
	{Members: 3, Workload: "kube", Nemeses: []string{"disk-errors", "slow-fsync", "leader-transfer"}},
	{Members: 3, Workload: "append", Nemeses: []string{"learner-promote", "partition-minority"}},
}

// scenarios are those that the flags ask for.
func scenarios(t *testing.T, env *environment) (list []Scenario) {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = time.Now().UnixNano() % 1e9
	}
	t.Logf("first seed %d", seed)
	if *histories == 0 && *nemesisFlag == "" && *workloadFlag == "" {
		for i, s := range planned {
			s.Seed, s.Faults = seed+int64(i), faultsShort
			list = append(list, s)
		}
		return list
	}
	for i := range max(1, *histories) {
		list = append(list, draw(seed+int64(i), env))
	}
	return list
}

// draw makes a scenario out of a seed; flags decide what they name.
func draw(seed int64, env *environment) Scenario {
	rng := rand.New(rand.NewSource(seed))
	s := Scenario{Seed: seed, Members: []int{3, 3, 5}[rng.Intn(3)], Faults: faultsLong, Loopback: *loopbackFlag}
	s.Workload = slices.Sorted(maps.Keys(workloads))[rng.Intn(len(workloads))]
	possible := slices.DeleteFunc(nemesisNames(), func(name string) bool {
		return env.lacks(name) != nil || s.Loopback && nemeses[name].needs&needsSpaces != 0
	})
	for _, i := range rng.Perm(len(possible))[:[]int{1, 2, 2, 3, 3}[rng.Intn(5)]] {
		s.Nemeses = append(s.Nemeses, possible[i])
	}
	if *nemesisFlag != "" {
		s.Nemeses = strings.Split(*nemesisFlag, ",")
	}
	if *workloadFlag != "" {
		s.Workload = *workloadFlag
	}
	if *faultsFlag > 0 {
		s.Faults = *faultsFlag
	}
	if s.needs()&needsFive != 0 {
		s.Members = 5
	}
	if *membersFlag > 0 {
		s.Members = *membersFlag
	}
	return s
}

// checkNames refuses names that nobody knows, with those that are known.
func checkNames() error {
	for _, name := range strings.Split(*nemesisFlag, ",") {
		if _, ok := nemeses[name]; !ok && name != "" {
			return fmt.Errorf("no nemesis is called %q; there are: %s", name, strings.Join(nemesisNames(), " "))
		}
	}
	if _, ok := workloads[*workloadFlag]; !ok && *workloadFlag != "" {
		return fmt.Errorf("no workload is called %q; there are: %s", *workloadFlag, strings.Join(slices.Sorted(maps.Keys(workloads)), " "))
	}
	return nil
}

func TestHistories(t *testing.T) {
	if err := checkNames(); err != nil {
		t.Fatal(err)
	}
	env := environmentFor(t)
	for _, line := range env.notExercised() {
		t.Logf("NOT EXERCISED %s", line)
	}
	total := totals{faults: map[string]int{}, asked: map[string]bool{}}
	for _, s := range scenarios(t, env) {
		lacking := slices.IndexFunc(s.Nemeses, func(name string) bool { return env.lacks(name) != nil })
		if lacking >= 0 {
			s.Nemeses = slices.DeleteFunc(s.Nemeses, func(name string) bool { return env.lacks(name) != nil })
			if len(s.Nemeses) == 0 {
				continue
			}
		}
		t.Run(fmt.Sprintf("%s-%d", s.Workload, s.Seed), func(t *testing.T) { total.add(t, history(t, env, s)) })
	}
	total.report(t)
	if t.Failed() || total.runs < len(planned) {
		return // One run alone may give a nemesis no chance.
	}
	for _, name := range total.idle() {
		t.Errorf("nemesis %s was to act and never did", name)
	}
	if n := env.notExercised(); len(n) > 0 && os.Getenv("HOLDFAST_REQUIRE_ALL") != "" {
		t.Errorf("%d nemeses cannot run here", len(n))
	}
}

// history does one scenario and has it judged.
func history(t *testing.T, env *environment, s Scenario) *result {
	t.Helper()
	t.Logf("%v\nreplay with: %s", s, s.replay())
	start := time.Now()
	res, dir, err := execute(t.Context(), env, s)
	if err != nil {
		t.Fatalf("the harness failed: %v", err)
	}
	lasted := time.Since(start)
	res.judge()
	t.Logf("%d operations, %d acknowledged during faults, leader changed %d times, serving %v after the faults; %v to run %v, %v to check; faults: %v; checked: %+v, %+v",
		res.Operations, res.During, res.Changes, res.Serving.Round(time.Millisecond), lasted.Round(10*time.Millisecond), res.Phases,
		(time.Since(start) - lasted).Round(10*time.Millisecond), res.Counts, res.Report.Counts, res.Report.Searched)
	err = res.Report.Err()
	if err == nil {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		return res
	}
	t.Error(err)
	to := *keepFlag
	if to == "" {
		to = filepath.Join(os.TempDir(), "holdfast-failed-histories")
	}
	to = filepath.Join(to, fmt.Sprintf("%s-%d", s.Workload, s.Seed))
	if err := res.keep(to, dir); err != nil {
		t.Error(err)
	}
	t.Logf("history, logs and report are in %s; replay with: %s", to, s.replay())
	return res
}

// totals of all runs.
type totals struct {
	runs, operations, during int
	faults                   map[string]int
	asked                    map[string]bool
}

func (x *totals) add(t *testing.T, r *result) {
	t.Helper()
	x.runs++
	x.operations += r.Operations
	x.during += r.During
	for kind, n := range r.Counts {
		x.faults[kind] += n
	}
	for _, name := range r.Scenario.Nemeses {
		x.asked[name] = true
	}
}

// idle are the nemeses that some run had and that did nothing in any.
func (x *totals) idle() (names []string) {
	for _, name := range nemesisNames() {
		if x.asked[name] && x.faults[name] == 0 {
			names = append(names, name)
		}
	}
	return names
}

func (x *totals) report(t *testing.T) {
	t.Helper()
	t.Logf("%d histories, %d operations, %d of them acknowledged while there were faults", x.runs, x.operations, x.during)
	for _, name := range nemesisNames() {
		t.Logf("%6d %-20s %s", x.faults[name], name, nemeses[name].about)
	}
}
