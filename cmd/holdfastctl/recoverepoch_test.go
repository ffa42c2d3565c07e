package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
)

// survivors is a cluster of three with a sync archive. The first stopped early,
// all are stopped now.
type survivors struct {
	t       *testing.T
	cluster *servertest.Cluster
	url     string
}

func newSurvivors(t *testing.T) *survivors {
	s := &survivors{t: t, url: "file://" + filepath.Join(t.TempDir(), "archive")}
	s.cluster = servertest.New(t, 3, func(_ int, c *server.Config) { c.ArchiveURL, c.ArchiveMode = s.url, server.ArchiveSync })
	s.put("early", 3)
	// One that does not archive stops early, and so is the first.
	members := s.cluster.Members
	if own := owner(t, strings.TrimPrefix(s.url, "file://")); own == members[0].MemberID().String() {
		members[0], members[1] = members[1], members[0]
	}
	members[0].Stop()
	s.put("late", 12)
	s.elect()
	for _, m := range s.cluster.Members[1:] {
		m.Stop()
	}
	return s
}

// elect lets another member of the two lead. That is an entry which changes nothing
// and which no archive holds, and both members apply it.
func (s *survivors) elect() {
	s.t.Helper()
	two := s.cluster.Members[1:]
	endpoints := func(ms ...*servertest.Member) string {
		var urls []string
		for _, m := range ms {
			urls = append(urls, m.Config.ListenClientURLs[0])
		}
		return strings.Join(urls, ",")
	}
	next := two[0]
	if s.cluster.Leader() == next {
		next = two[1]
	}
	commands := [][]string{{"--endpoints", endpoints(two...), "move-leader", next.MemberID().String()}}
	for _, m := range two {
		commands = append(commands, []string{"--endpoints", endpoints(m), "get", "early0"})
	}
	for _, args := range commands {
		if _, stderr, code := offline(s.t, args...); code != 0 {
			s.t.Fatalf("%q: %s", args, stderr)
		}
	}
}

func (s *survivors) put(prefix string, n int) {
	s.t.Helper()
	for i := range n {
		try := func() (stderr string, code int) {
			_, stderr, code = offline(s.t, "--endpoints", strings.Join(s.cluster.ClientURLs()[1:], ","), "--command-timeout", "60s", "put", fmt.Sprint(prefix, i), "value")
			return stderr, code
		}
		stderr, code := try()
		for code != 0 && strings.Contains(stderr, "it is unknown whether the write happened") { // The same again does no harm.
			stderr, code = try()
		}
		if code != 0 {
			s.t.Fatal(stderr)
		}
	}
}

func (s *survivors) dir(i int) string { return s.cluster.Members[i].Config.DataDir }

// plan plans with one member; the others are dead. It returns the file.
func (s *survivors) plan(i int, more ...string) (file, stdout, stderr string, code int) {
	s.t.Helper()
	folder := s.t.TempDir()
	facts, file := filepath.Join(folder, "facts.json"), filepath.Join(folder, "plan.json")
	if _, stderr, code := offline(s.t, "recover", "collect", "--out", facts, s.dir(i)); code != 0 {
		s.t.Fatal(stderr)
	}
	stdout, stderr, code = offline(s.t, append([]string{"recover", "plan", "--out", file, "--dead", s.dead(i), facts}, more...)...)
	return file, stdout, stderr, code
}

func (s *survivors) dead(i int) string {
	var names []string
	for j, m := range s.cluster.Members {
		if j != i {
			names = append(names, m.Config.Name)
		}
	}
	return strings.Join(names, ",")
}

func (s *survivors) refused(want, stderr string, code int) {
	s.t.Helper()
	if code != exitFailed || !strings.Contains(stderr, want) {
		s.t.Errorf("code %d, %s; want %q", code, stderr, want)
	}
}

func TestTheArchiveIsAWitnessAndItsEpochHasOneWinner(t *testing.T) {
	quick.LeaveOut(t)
	s := newSurvivors(t)
	_, _, stderr, code := s.plan(0, "--archive", s.url)
	s.refused("restore from the archive", stderr, code)
	s.disagree()

	first, stdout, stderr, code := s.plan(1, "--archive", s.url, "--archive-was-sync")
	if code != 0 || !strings.Contains(stdout, "Nothing: each write that was acknowledged") || !strings.Contains(stdout, "Epoch 2 in "+s.url) {
		t.Fatalf("%s%s", stdout, stderr)
	}
	second, stdout, stderr, code := s.plan(2, "--archive", s.url)
	if code != 0 || !strings.Contains(stdout, "were a quorum") {
		t.Fatalf("without the word of the operator nothing is known of the mode: %s%s", stdout, stderr)
	}
	if _, stderr, code := offline(t, "recover", "apply", first); code != 0 || !strings.Contains(stderr, "epoch 2 is ours, the fence of the old cluster is on") {
		t.Fatalf("%d: %s", code, stderr)
	}
	p, err := recovery.ReadPlan(vfs.OS(), second)
	if err != nil {
		t.Fatal(err)
	}
	_, stderr, code = offline(t, "recover", "apply", "--accept-loss", p.ID, second)
	s.refused("another operator has recovered this cluster", stderr, code)
	_, _, stderr, code = s.plan(2, "--archive", s.url)
	s.refused("--supersede-epoch", stderr, code)
	if _, stdout, _, code := s.plan(2, "--archive", s.url, "--supersede-epoch"); code != 0 || !strings.Contains(stdout, "Epoch 3 in ") {
		t.Errorf("superseded: %s", stdout)
	}
	if _, stderr, code := offline(t, "recover", "apply", first); code != 0 {
		t.Errorf("the first again: %s", stderr)
	}
	s.oldSideIsSilent()
}

// The two that were taken for dead are a quorum, and go on between plan and
// epoch: what they acknowledge then is in the archive and not in the plan.
func TestAPlanThatTheArchiveHasOutgrownIsNotApplied(t *testing.T) {
	quick.LeaveOut(t)
	s := newSurvivors(t)
	plan, stdout, stderr, code := s.plan(1, "--archive", s.url, "--archive-was-sync")
	if code != 0 || !strings.Contains(stdout, "Nothing: each write that was acknowledged") {
		t.Fatalf("%s%s", stdout, stderr)
	}
	for _, i := range []int{0, 2} {
		s.cluster.Members[i].Start()
	}
	for _, i := range []int{0, 2} {
		s.cluster.Members[i].WaitReady()
	}
	s.put("later", 1)
	_, stderr, code = offline(t, "recover", "apply", plan)
	s.refused("the old cluster went on", stderr, code)
	s.put("after", 1) // No epoch silences it.
	if _, err := os.Stat(s.dir(1) + ".old"); err == nil {
		t.Error("the old directory was renamed aside")
	}
}

// disagree gives a member another digest than the archive has.
func (s *survivors) disagree() {
	s.t.Helper()
	m, err := recovery.Collect(s.t.Context(), (&ctl{err: os.Stderr}).recovery(), recovery.Source{DataDir: s.dir(1)})
	if err != nil {
		s.t.Fatal(err)
	}
	m.State.Digest = strings.Repeat("0", len(m.State.Digest))
	text, err := recovery.EncodeFacts(&recovery.Facts{Members: []recovery.Member{*m}})
	file := filepath.Join(s.t.TempDir(), "facts.json")
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	_, stderr, code := offline(s.t, "recover", "plan", "--dead", s.dead(1), "--archive", s.url, file)
	s.refused("the archive is right, restore from it", stderr, code)
}

// oldSideIsSilent starts the two that were given up: they are a quorum, and
// reach the archive.
func (s *survivors) oldSideIsSilent() {
	s.t.Helper()
	if _, stderr, code := offline(s.t, "recover", "thaw", s.dir(2)); code != 0 {
		s.t.Fatal(stderr)
	}
	for _, i := range []int{0, 2} {
		s.cluster.Members[i].Start()
	}
	for _, i := range []int{0, 2} {
		s.cluster.Members[i].WaitReady()
		for _, args := range [][]string{{"put", "a", "b"}, {"get", "a"}} {
			_, stderr, code := offline(s.t, append([]string{"--endpoints", s.cluster.Members[i].Config.ListenClientURLs[0], "--command-timeout", "500ms"}, args...)...)
			if code == 0 {
				s.t.Errorf("%s of the old side answers %q", s.cluster.Members[i].Config.Name, args)
			}
			s.t.Logf("%q: %s", args, stderr)
		}
		stdout, _, _ := offline(s.t, "--endpoints", s.cluster.Members[i].Config.ListenClientURLs[0], "endpoint", "status", "-w", "json")
		if !strings.Contains(stdout, "given up") {
			s.t.Errorf("its status does not say why: %s", stdout)
		}
	}
}

// All members stop in peace, and are restored elsewhere: whoever watches goes on
// where they were.
func TestWhereNothingWasLostNothingIsBumped(t *testing.T) {
	quick.LeaveOut(t)
	url := "file://" + filepath.Join(t.TempDir(), "archive")
	c := servertest.New(t, 1, func(_ int, c *server.Config) { c.ArchiveURL, c.ArchiveMode = url, server.ArchiveSync })
	m := c.Members[0]
	if _, stderr, code := offline(t, "--endpoints", m.Config.ListenClientURLs[0], "put", "a", "1"); code != 0 {
		t.Fatal(stderr)
	}
	for {
		if stdout, _, _ := offline(t, "backup", "ls", "--archive", url); strings.Contains(stdout, "can be restored") {
			break
		}
	}
	m.Stop()
	folder := t.TempDir()
	spec, facts := filepath.Join(folder, "spec.yaml"), filepath.Join(folder, "facts.json")
	text := fmt.Sprintf("members:\n- name: n\n  peer-urls: [http://127.0.0.1:1]\n  data-dir: %s\n", filepath.Join(folder, "n"))
	if err := os.WriteFile(spec, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	restore := func(more ...string) (string, string, int) {
		return offline(t, append([]string{"restore", "--from", url, "--cluster", spec, "--dry-run"}, more...)...)
	}
	collect := func(more ...string) {
		t.Helper()
		if _, stderr, code := offline(t, append([]string{"recover", "collect", "--out", facts, m.Config.DataDir}, more...)...); code != 0 {
			t.Fatal(stderr)
		}
	}
	if stdout, stderr, code := restore(); code != 0 || !strings.Contains(stdout, "may have been used") {
		t.Fatalf("without facts: %s%s", stdout, stderr)
	}
	collect()
	if _, stderr, code := restore("--facts", facts); code != exitFailed || !strings.Contains(stderr, "it is not frozen") {
		t.Errorf("a member that may go on: %s", stderr)
	}
	collect("--freeze")
	if stdout, stderr, code := restore("--facts", facts); code != 0 || !strings.Contains(stdout, "revision stays") {
		t.Errorf("%s%s", stdout, stderr)
	}
}
