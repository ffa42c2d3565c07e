package ctl

import (
	"regexp"
	"sync"
	"testing"
)

// differences are what may differ from one program, and why.
type differences struct {
	rows      []difference
	forms     []string // That are compared.
	unordered bool     // Answers of several members come in any order.

	mu  sync.Mutex
	met map[int]bool
}

// difference is a form, a command line and what differs, as patterns.
type difference struct {
	form, line string
	what       string // That is found in the report; empty: anything.
	why        string
}

// judge fails the test for a difference that no row allows.
func (d *differences) judge(t *testing.T, form, line, wrong, more string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, row := range d.rows {
		if wrong != "" && matches(row.form, form) && matches(row.line, line) && regexp.MustCompile(row.what).MatchString(wrong+more) {
			d.met[i] = true
			return
		}
	}
	if wrong != "" {
		t.Errorf("$ -w %s %s\n%s%s", form, line, wrong, more)
	}
}

// all fails for rows that were not met.
func (d *differences) all(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, row := range d.rows {
		if !d.met[i] {
			t.Errorf("no difference in form %s of %q: the row can go (%s)", row.form, row.line, row.why)
		}
	}
}

func newDifferences(rows []difference) *differences {
	return &differences{rows: rows, forms: forms, met: map[int]bool{}}
}

func matches(pattern, s string) bool {
	return regexp.MustCompile("^(?s:" + pattern + ")$").MatchString(s)
}

const (
	whyFirst  = "a form that a command does not have is refused before anything is done; etcdctl makes the request, and the change, and then fails"
	whyFields = "etcdctl has no such form here"
	whyHelp   = "texts of help are our own"
	whyWords  = "arguments that have no meaning are refused; etcdctl does not look at them"
)

var from37 = []difference{
	{"table|fields|protobuf", ".*", `^  exit code ours 4, theirs (1|2|128)\n`, whyFirst},
	{"fields", "user list|user get .*|auth status.*", `^  ours   "\\"ClusterID.*\n.*\n  exit code ours 0, theirs 4\n`, whyFields},
	{"table", "user get p --detail", `^  ours   ""\n  theirs "User: p\\n\\n"\n`, "etcdctl prints the name before it finds that it has no such form"},
	{"protobuf", "lease (timetolive .*|keep-alive .*|list)", `exit code ours 4, theirs 0`, "etcdctl prints the header alone, of an answer that has no such form"},
	{"simple", "endpoint", "", whyHelp},
	{"simple", "put a b c|options nonsense", "", whyWords},
	{"simple", "txn -i=false", `panic: bad value`, "etcdctl panics at any comparison of a lease"},
	{"simple", "txn", `panic: Unknown result op`, "etcdctl panics at an operator that it does not know"},
}

var from34 = []difference{
	{".*", ".*", `errors theirs (.*\n)*.*unknown (flag|command)`, "3.4 does not have it"},
	{".*", "auth status.*|downgrade.*|completion.*|check datascale.*", "", "3.4 does not have it"},
	{".*", ".*", `theirs "NAME:\\n`, "3.4 prints its help on standard output after an error"},
	{"simple", "txn -i=false", `panic: bad value`, "etcdctl panics at any comparison of a lease"},
	{"simple", "txn", `panic: Unknown result op`, "etcdctl panics at an operator that it does not know"},
	{"simple", "put a b c", "", whyWords},
	{".*", ".*version", "", "another version"},
	{"json", "txn.*", `\\"ResponsePut\\"|\\"ResponseDeleteRange\\"`, "the names within JSON are others since 3.6"},
	{"json", ".* --hex", "", "3.4 writes IDs in decimal all the same"},
	{"simple", "endpoint health.*", "", "3.4 prints it to standard error"},
	{".*", "endpoint (status|hashkv)", "", "columns and fields were added since"},
	{"simple", "defrag.*", "", "the time was added since"},
	{"simple", "snapshot save s.db", "", "the version was added since"},
	{"simple", "role get root.*", `\(prefix \)`, "said otherwise since 3.5"},
	{"simple", "lock l -- sh .*", "", "the exit code of the command is passed on since 3.5"},
	{"simple", "member add n .*", "learner", "said otherwise since 3.5"},
	{"simple", "watch .* -w json", `CancelReason`, "a field was added since"},
}

var fromUtl = []difference{
	{".*", "snapshot status s.db", `holdfast-1`, "another format, with another hash, of another size"},
	{".*", "hashkv s.db.*", "", "the hash is over the keys and history of our format, and an export begins with all history compacted"},
	{"simple", "snapshot status damaged.db", `^  ours   ""\n.*\n  exit code ours 1, theirs 0\n.*damaged at offset`, "etcdutl looks at the structure alone"},
	{"simple", "snapshot restore s.db .*initial-cluster=y=.*", `^  exit code ours 128, theirs 1\n`, "flags that contradict each other are wrong arguments"},
	{"simple", "migrate --data-dir=restored .*", `^  exit code ours 1, theirs 0\n`, "there is nothing to migrate"},
}
