package main

import (
	"strings"
	"time"
)

// suite is a command that must fail on a tree with a plant in it. None knows
// of any plant: these are the tests that run anyway, in their normal mode.
type suite struct {
	name string
	home string   // A folder without which it cannot run.
	argv []string // In the tree. Flags of go test are put behind "go test".
	time time.Duration
}

// suites in the order in which they are tried where a plant names several at
// one cost. Tests of units are chosen by name where a package also has tests
// of single mistakes: a plant shall be caught by what draws, counts and
// compares.
var suites = []suite{
	{"raftnode", "raftnode/raftnodetest", test("./raftnode/raftnodetest"), 2 * time.Minute},
	{"node", "raftnode", test("./raftnode", "-run", "RealLog|Conf|Votes|TakesNothing"), 2 * time.Minute},
	{"wal", "raftnode/wal", test("./raftnode/wal", "-run", "Crash|Model|Flip|Fault|Tail|Fails|Failing|Random|Refuses|Commit"), 2 * time.Minute},
	{"transport", "raftnode/transport", test("./raftnode/transport"), 2 * time.Minute},
	{"mvcc", "mvcc", test("./mvcc", "-run", "TestStateIsBase|TestACrash|TestCrash|Model|Never|Merge|Compaction|Sync"), 3 * time.Minute},
	{"history", "mvcc/history", test("./mvcc/history"), 2 * time.Minute},
	{"backend", "mvcc/backend", test("./mvcc/backend"), 2 * time.Minute},
	{"watch", "mvcc/watch", test("./mvcc/watch"), 2 * time.Minute},
	{"statemachine", "statemachine", test("./statemachine/..."), 2 * time.Minute},
	{"model", "tests/model", test("./tests/model"), 2 * time.Minute},
	{"snapshot", "snapshot", test("./snapshot"), 2 * time.Minute},
	{"server", "server", test("./server/..."), 3 * time.Minute},
	{"client", "client", test("./client/..."), 2 * time.Minute},
	{"fuzz", "mvcc", test("./...", "-run", "^Fuzz"), 3 * time.Minute},
	{"crash", "tests/crash", test("./tests/crash"), 4 * time.Minute},
	{"sim", "tests/sim/run", []string{"go", "run", "-trimpath", "./tests/sim/run", "-first=1", "-seeds=48", "-partial"}, 4 * time.Minute},
	{"failpoints", "tests/failpoints", test("./tests/failpoints"), 5 * time.Minute},
	{"linear", "tests/linear", test("./tests/linear"), 5 * time.Minute},
}

// test is go test that stops at the first failure. -trimpath makes what is
// compiled in one copy of the tree good for the next.
func test(pkg string, more ...string) []string {
	return append([]string{"go", "test", "-trimpath", "-short", "-count=1", "-failfast", "-tags=invariants", pkg}, more...)
}

func suiteNames() string {
	var names []string
	for _, s := range suites {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

func suiteByName(name string) (suite, bool) {
	for _, s := range suites {
		if s.name == name {
			return s, true
		}
	}
	return suite{}, false
}
