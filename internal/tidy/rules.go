package tidy

// report says that a rule is broken at a place.
type report func(path string, line int, detail string)

// rule is one thing that is checked, and why.
type rule struct {
	name   string
	reason string
	check  func(t *Tree, found report)
}

func rules() []rule {
	return []rule{
		{"import", "the tree is the architecture: calls go down only, and what is absent matters", checkImports},
		{"bbolt", "one engine behind one narrow seam, so that a simulation can replace it; the format of the files that we write for etcd; and where its pages lie, for what damages them", onlyIn("go.etcd.io/bbolt", "mvcc/backend", "snapshot/etcd", "tests/sim")},
		{"grpc", "the wire ends at the edges: what lies below runs in restore and in simulation too", onlyIn("google.golang.org/grpc",
			"proto", "server", "raftnode/transport", "client", "kube", "tests", "cmd")},
		{"fakes", "fakes are for tests; shipped code must stand on the real thing", checkFakes},
		{"deterministic", "apply must give the same bytes on every member (I-7)", checkDeterministic},
		{"noun", "a package is a noun: util, common, helper and manager say nothing about what is in them", checkNouns},
		{"comment", "a package comment is the package's design: what it keeps, who calls it, what is always true, what a crash leaves", checkComments},
		{"lines", "a file of over 600 lines holds more than one idea", checkFileLines},
		{"function", "a function of over 70 lines is not read in one go", checkFunctionLines},
		{"complexity", "over 15 ways through a function are more than anybody tests", checkComplexity},
		{"time", "time comes from internal/clock, so that a simulation owns it", checkTime},
		{"sleep", "a test that sleeps is slow when all is well and fails when the machine is busy: use clocktest, or wait for the event", checkSleep},
		{"quick", "make check says how many tests it leaves out by counting the calls: each is the first line of one test", checkQuick},
		{"files", "files go through internal/vfs, so that tests can lose, tear and fail writes", checkFiles},
		{"random", "chance comes from a seeded source that is handed in, so that a run can be repeated", checkRandom},
		{"go", "goroutines start in internal/task: each has a name, an owner and an end", checkGo},
		{"panic", "only internal/assert panics, for broken invariants: no request, message or file may stop a member", checkPanic},
		{"init", "nothing happens at import: a program that embeds us decides when things begin", checkInit},
		{"ordered", "the order of a map differs from run to run and from member to member (I-7)", checkMapRanges},
		{"format", "a format is four things: format.go, docs/format page, golden bytes in testdata/v1, inspect", checkFormats},
		{"witness", "a document that names a test which is gone claims what nobody checks", checkNamedTests},
		{"link", "who follows it is in need of what is behind it", checkLinks},
		{"dependency", "each module we stand on is one to update, audit and trust", checkDependencies},
		{"text", "the repository must read the same on every machine", checkTexts},
	}
}
