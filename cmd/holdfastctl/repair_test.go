package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
	"github.com/holdfast-db/holdfast/snapshot"
)

// generation is the folder of the only generation in force.
func generation(t *testing.T, dataDir string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dataDir, "gen-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("generations %q, %v", found, err)
	}
	return found[0]
}

// flip changes a bit in each 64th byte of a file, behind its first page.
func flip(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 64; i < len(data); i += 64 {
		data[i] ^= 4
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// distrust marks the generation in force, as after a failed sync.
func distrust(t *testing.T, dataDir string) {
	t.Helper()
	dir, err := datadir.Open(vfs.OS(), dataDir)
	if err != nil {
		t.Fatal(err)
	}
	n, err := dir.Current()
	if err == nil {
		err = dir.Distrust(datadir.Mark{Generation: n, Reason: "a test"})
	}
	if err = errors.Join(err, dir.Close()); err != nil {
		t.Fatal(err)
	}
}

// files are the names and sizes of all that is in a folder.
func files(t *testing.T, folder string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		list = append(list, fmt.Sprint(path, " ", info.Size(), " ", info.ModTime()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A member that is alone, its archive, and a learner that was added after the
// archive's base and never ran.
func archivedMember(t *testing.T) (tt *terminalTest, url, dataDir string) {
	url = "file://" + filepath.Join(t.TempDir(), "archive")
	tt = newTerminal(t, func(c *server.Config) { c.ArchiveURL, c.ArchiveMode = url, server.ArchiveSync })
	tt.must("put", "first", "1")
	for !strings.Contains(tt.must("backup", "ls", "--archive", url), "can be restored") {
	}
	tt.must("member", "add", "away", "--learner", "--peer-urls", "http://away.test:2380")
	for i := range 12 {
		tt.must("put", fmt.Sprintf("key-%02d", i), "value")
	}
	tt.must("compact", "10", "--physical")
	tt.must("put", "last", "1")
	tt.must("snapshot", "save", "before.snap")
	return tt, url, tt.cluster.Members[0].Config.DataDir
}

func TestAMemberThatIsAloneIsRepairedOutOfItsArchiveOrASnapshot(t *testing.T) {
	quick.LeaveOut(t)
	tt, url, dataDir := archivedMember(t)
	m := tt.cluster.Members[0]
	if _, stderr, code := tt.run(0, "", "repair", dataDir); code != exitFailed || !strings.Contains(stderr, "in use by another process") {
		t.Errorf("repair of a running member: %d, %s", code, stderr)
	}
	for i, d := range []struct {
		what, named string
		damage      func()
	}{
		{"bits of base", "base.db", func() { flip(t, filepath.Join(generation(t, dataDir), "base.db")) }},
		{"bits of history", "history", func() {
			segments, err := filepath.Glob(filepath.Join(generation(t, dataDir), "history", "*.seg"))
			if err != nil || len(segments) == 0 {
				t.Fatalf("segments %q, %v", segments, err)
			}
			flip(t, segments[len(segments)-1])
		}},
		{"a mark", "a test", func() { distrust(t, dataDir) }},
		{"all but log and identity is gone", "CURRENT", func() {
			if err := errors.Join(os.RemoveAll(generation(t, dataDir)), os.Remove(filepath.Join(dataDir, "CURRENT"))); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		m.Stop()
		d.damage()
		stdout, stderr, code := tt.run(0, "", "repair", dataDir)
		if code != exitFailed || !strings.Contains(stdout, "damage   ") || !strings.Contains(stdout, d.named) || !strings.Contains(stderr, "--archive URL or --from") {
			t.Fatalf("%s: code %d, %s%s", d.what, code, stdout, stderr)
		}
		from := []string{"repair", dataDir, "--archive", url}
		if i%2 == 1 {
			from = []string{"repair", dataDir, "--from", "before.snap"}
		}
		before := files(t, dataDir)
		if got := tt.must(append(from, "--dry-run")...); !strings.Contains(got, "Nothing was done") || !slices.Equal(files(t, dataDir), before) {
			t.Fatalf("%s: dry run: %s", d.what, got)
		}
		got := tt.must(from...)
		if compared := strings.Contains(got, "has the same digest at that entry"); compared != (d.what == "a mark" || d.what == "bits of base") || !strings.Contains(got, "Repaired") {
			t.Errorf("%s: %s", d.what, got)
		}
		if got := tt.must("repair", dataDir); !strings.Contains(got, "are whole") {
			t.Errorf("%s: once more: %s", d.what, got)
		}
		x, err := snapshot.Examine(t.Context(), vfs.OS(), hclog.NewNullLogger(), generation(t, dataDir))
		if err != nil || len(x.Members) != 2 || len(x.Conf.Voters) != 1 || len(x.Conf.Learners) != 1 {
			t.Errorf("%s: %+v, %v", d.what, x, err)
		}
		if _, err := os.Stat(filepath.Join(dataDir, "UNTRUSTED")); !os.IsNotExist(err) {
			t.Errorf("%s: the mark is left: %v", d.what, err)
		}
		m.Start()
		m.WaitReady()
		if i == 0 {
			if aside, err := filepath.Glob(filepath.Join(dataDir, "old-gen-*")); err != nil || len(aside) == 0 {
				t.Errorf("renamed aside: %q, %v", aside, err)
			}
		}
		tt.must("diff", "before.snap", "live", "--metadata") // Ends with 0: equal.
		tt.must("put", "last", fmt.Sprint("after ", d.what))
		tt.must("snapshot", "save", fmt.Sprintf("before-%d.snap", i))
		if err := os.Rename(fmt.Sprintf("before-%d.snap", i), "before.snap"); err != nil {
			t.Fatal(err)
		}
	}
}

// cutLog gives up the log of a stopped member up to an entry before its last.
func cutLog(t *testing.T, dataDir string) (start ident.Index) {
	t.Helper()
	l, found, err := wal.Open(wal.Config{FS: vfs.OS(), Dir: filepath.Join(dataDir, "wal"), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	start = found.Last.Index - 1
	if err := errors.Join(l.Compact(start), l.Close()); err != nil {
		t.Fatal(err)
	}
	return start
}

func TestARepairThatCannotBeIsRefusedAndChangesNothing(t *testing.T) {
	quick.LeaveOut(t)
	tt, url, dataDir := archivedMember(t)
	m := tt.cluster.Members[0]
	tt.must("snapshot", "restore", "before.snap", "--data-dir", "other")
	tt.must("snapshot", "save", "other.snap", "--data-dir", "other")
	tt.must("put", "last", "2")
	tt.must("put", "last", "3")
	tt.must("snapshot", "save", "later.snap")
	tt.must("snapshot", "save", "spoilt.snap")
	spoilLast(t, "spoilt.snap")
	m.Stop()
	start := cutLog(t, dataDir)
	if err := os.CopyFS("copy", os.DirFS(dataDir)); err != nil { // Its log is damaged in the middle.
		t.Fatal(err)
	}
	segments, err := filepath.Glob("copy/wal/*.wal")
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments of the log: %q, %v", segments, err)
	}
	spoil(t, segments[0], 5)
	flip(t, filepath.Join(generation(t, dataDir), "base.db"))
	before := files(t, dataDir)
	for _, x := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{dataDir, "--from", "before.snap"}, exitFailed, fmt.Sprintf("log begins behind entry %d", start)},
		{[]string{dataDir, "--from", "other.snap"}, exitFailed, "of its own past"},
		{[]string{dataDir, "--from", "spoilt.snap"}, exitFailed, "damaged at offset"},
		{[]string{dataDir, "--from", "none.snap"}, exitFailed, "none.snap"},
		{[]string{dataDir, "--archive", "file://" + t.TempDir()}, exitFailed, "no archive there"},
		{[]string{dataDir, "--archive", "ftp://x"}, exitArguments, "ftp"},
		{[]string{dataDir, "--archive", url, "--from", "x"}, exitArguments, "do not go together"},
		{[]string{"copy", "--archive", url}, exitFailed, filepath.Base(segments[0])},
		{[]string{"none", "--archive", url}, exitFailed, "holds no member"},
		{nil, exitArguments, "one data directory"},
	} {
		if stdout, stderr, code := tt.run(0, "", append([]string{"repair"}, x.args...)...); code != x.code || !strings.Contains(stderr, x.want) {
			t.Errorf("repair %q: code %d, %s%s", x.args, code, stdout, stderr)
		}
	}
	if after := files(t, dataDir); !slices.Equal(after, before) {
		t.Errorf("changed:\n%q\nwas\n%q", after, before)
	}
	if _, err := os.Stat("none"); !os.IsNotExist(err) {
		t.Errorf("a folder that was not there: %v", err)
	}
	tt.must("repair", dataDir, "--from", "later.snap") // What the log goes on from.
	m.Start()
	m.WaitReady()
	if got := tt.must("get", "last", "--print-value-only"); strings.TrimSpace(got) != "3" {
		t.Errorf("last is %s", got)
	}
}

// An archive that knows more than the log of the only voter has what was
// acknowledged and would be lost.
func TestTheOnlyVoterIsNotRepairedWhereTheArchiveReachesBeyondItsLog(t *testing.T) {
	quick.LeaveOut(t)
	tt, url, dataDir := archivedMember(t)
	m := tt.cluster.Members[0]
	m.Stop()
	if err := os.CopyFS("away", os.DirFS(dataDir)); err != nil {
		t.Fatal(err)
	}
	m.Start()
	m.WaitReady()
	tt.must("put", "last", "2")
	distrust(t, "away")
	before := generation(t, "away")
	stdout, stderr, code := tt.run(0, "", "repair", "away", "--archive", url)
	if code != exitFailed || !strings.Contains(stderr, "the only voter") || !strings.Contains(stderr, "restore --from") {
		t.Errorf("code %d, %s%s", code, stdout, stderr)
	}
	if now := generation(t, "away"); now != before {
		t.Errorf("%s is in force, before it was %s", now, before)
	}
}

// With others that vote, a member that was away gets the state that its log goes
// on from, and the rest from them.
func TestAMemberThatWasAwayIsRepairedToWhereItsLogGoesOn(t *testing.T) {
	quick.LeaveOut(t)
	t.Chdir(t.TempDir())
	folder := filepath.Join(t.TempDir(), "archive")
	url := "file://" + folder
	cluster := servertest.New(t, 3, func(_ int, c *server.Config) { c.ArchiveURL, c.ArchiveMode = url, server.ArchiveSync })
	tt := &terminalTest{t: t, cluster: cluster}
	tt.must("put", "last", "1")
	for !strings.Contains(tt.must("backup", "ls", "--archive", url), "can be restored") {
	}
	victim := cluster.Members[1]
	if owner(t, folder) == idOf(tt, victim.Config.Name) { // Its loss would hold the archive up.
		victim = cluster.Members[2]
	}
	tt.must("put", "last", "2")
	victim.Stop()
	putSurely(tt, "last", "3") // It may have led.
	flip(t, filepath.Join(generation(t, victim.Config.DataDir), "base.db"))
	got := tt.must("repair", victim.Config.DataDir, "--archive", url)
	if ends := regexp.MustCompile(`position (\d+)\.\d+, .* the archive ends at entry (\d+)`).FindStringSubmatch(got); ends == nil || ends[1] == ends[2] || !strings.Contains(got, "Repaired") {
		t.Errorf("repair: %s", got)
	}
	victim.Start()
	victim.WaitReady()
	var out, stderr strings.Builder
	get := &ctl{in: strings.NewReader(""), out: &out, err: &stderr}
	if code := get.run(t.Context(), []string{"--endpoints", victim.Config.ListenClientURLs[0], "get", "last", "--print-value-only"}); code != 0 || strings.TrimSpace(out.String()) != "3" {
		t.Errorf("get: code %d, %q, %s", code, out.String(), stderr.String())
	}
}

// putSurely puts a key, again where it is not known whether it was put.
func putSurely(tt *terminalTest, key, value string) {
	tt.t.Helper()
	for {
		_, stderr, code := tt.run(0, "", "put", key, value)
		if code == 0 {
			return
		}
		if !strings.Contains(stderr, "it is unknown whether the write happened") {
			tt.t.Fatal(stderr)
		}
	}
}

// owner is the member that archives, as owner.json says.
func owner(t *testing.T, folder string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "*", "owner.json"))
	if err != nil || len(found) != 1 {
		t.Fatalf("owners %q, %v", found, err)
	}
	data, err := os.ReadFile(found[0])
	var o struct{ Member string }
	if err = errors.Join(err, json.Unmarshal(data, &o)); err != nil {
		t.Fatal(err)
	}
	return o.Member
}

func idOf(tt *terminalTest, name string) string {
	tt.t.Helper()
	for line := range strings.Lines(tt.must("member", "list")) {
		if fields := strings.Split(line, ", "); len(fields) > 2 && fields[2] == name {
			return fields[0]
		}
	}
	tt.t.Fatalf("no member %s", name)
	return ""
}
