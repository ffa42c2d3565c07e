package ctl

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

var fileSteps = []step{
	{args: "snapshot status s.db"},
	{args: "snapshot status none.db", once: true},
	{args: "snapshot status", once: true},
	{args: "snapshot status damaged.db", once: true},
	{args: "snapshot restore s.db --data-dir=restored", once: true},
	{args: "snapshot restore s.db --data-dir=restored", once: true},
	{args: "snapshot restore s.db --name=n --initial-cluster=n=http://127.0.0.1:1 --initial-advertise-peer-urls=http://127.0.0.1:1", once: true},
	{args: "snapshot restore s.db --data-dir=n.etcd", once: true}, // Where the one before has put it.
	{args: "snapshot restore s.db --data-dir=bumped --bump-revision=1000 --mark-compacted", once: true},
	{args: "snapshot restore s.db --data-dir=other --bump-revision=1000", once: true},
	{args: "snapshot restore s.db --data-dir=other --mark-compacted", once: true},
	{args: "snapshot restore s.db --data-dir=other --name=x --initial-cluster=y=http://127.0.0.1:1", once: true},
	{args: "snapshot restore damaged.db --data-dir=other", once: true},
	{args: "snapshot restore none.db --data-dir=other", once: true},
	{args: "snapshot restore", once: true},
	// Of etcdutl this changes the file, so that it is not restored any more.
	{args: "hashkv s.db"},
	{args: "hashkv s.db --rev=7", once: true},
	{args: "hashkv s.db --rev=1000", once: true},
	{args: "hashkv none.db", once: true},
	{args: "hashkv", once: true},
	{args: "defrag --data-dir=restored --timeout=1s", once: true},
	{args: "defrag --data-dir=none", once: true},
	{args: "defrag", once: true},
	{args: "migrate --data-dir=restored --target-version=3.7", once: true},
	{args: "migrate --data-dir=none --target-version=3.6", once: true},
	{args: "version"},
	{args: "completion", once: true},
	{args: "nonsense", once: true},
}

// Each of the two has the same state as a file of its own format: ours saves it
// and exports it.
func TestEtcdutl37PrintsTheSame(t *testing.T) {
	t.Parallel()
	source := newSide(t, ours(t, "holdfastctl"))
	for _, st := range []step{{args: "put a 1"}, {args: "put a 2"}, {args: "put b 1"}, {args: "put c 1"}, {args: "del c"}, {args: "put d 1"}, {args: "snapshot save s.db"}, {args: "snapshot export s.db theirs.db"}} {
		if out := source.run(st, "simple"); out.code != 0 {
			t.Fatalf("%s: %s", st.args, out.stderr)
		}
	}
	theirs := &side{t: t, program: etcdTool(t, "etcdutl"), dir: t.TempDir()}
	us := &side{t: t, program: ours(t, "etcdutl"), dir: t.TempDir()}
	give(t, filepath.Join(source.dir, "theirs.db"), theirs.dir)
	give(t, filepath.Join(source.dir, "s.db"), us.dir)
	list := newDifferences(fromUtl)
	compare(t, theirs, us, list, fileSteps)
	if !t.Failed() {
		list.all(t)
	}
	for _, dir := range []string{"restored", "n.etcd", "bumped"} {
		if out, err := exec.Command(member.Program(t, "holdfastctl"), "inspect", "datadir", filepath.Join(us.dir, dir)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", dir, err, out)
		}
	}
}

// give copies a snapshot into a folder, and one that is damaged.
func give(t *testing.T, file, dir string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "s.db"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(filepath.Join(dir, "damaged.db"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}
