package recovery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/snapshot"
)

func applyConfig(p *Plan, step func(string) error) ApplyConfig {
	return ApplyConfig{Config: testConfig(), Random: unchanging{}, AcceptLoss: p.ID, Step: step}
}

// spec describes a new cluster in the places of the old one and one more.
func (s *stopped) spec() []snapshot.Target {
	var list []snapshot.Target
	for i, src := range s.sources {
		list = append(list, snapshot.Target{Name: fmt.Sprintf("n%d", i+1), PeerURLs: []string{fmt.Sprintf("http://n%d:2380", i+1)}, DataDir: src.DataDir})
	}
	return list
}

// checkRecovered looks at the new directories.
func (s *stopped) checkRecovered(t *testing.T, p *Plan, revision ident.Revision) (digest string) {
	t.Helper()
	next, err := p.Targets()
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range next.Members {
		m, err := Collect(context.Background(), testConfig(), Source{DataDir: target.DataDir, WALDir: target.WALDir})
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Damage) > 0 || m.ID != ID(target.ID) || m.Cluster != ID(next.Cluster) || m.Timeline != p.OldTimeline+1 || m.Frozen != "" {
			t.Errorf("%s: %+v", target.DataDir, m)
		}
		if m.State.Applied != p.At || m.Log.Start != p.At || m.Log.Last != p.At {
			t.Errorf("%s stands at %v, its log at %v, the plan says %v", target.DataDir, m.State.Applied, m.Log.Last, p.At)
		}
		if m.State.Revision != revision || len(m.State.Conf.Voters) != len(next.Members) {
			t.Errorf("%s: revision %d, want %d; configuration %v", target.DataDir, m.State.Revision, revision, m.State.Conf)
		}
		if digest == "" {
			digest = m.State.Digest
		}
		if m.State.Digest != digest {
			t.Errorf("%s has digest %s, another member %s", target.DataDir, m.State.Digest, digest)
		}
	}
	old, err := Collect(context.Background(), testConfig(), Source{DataDir: p.Source.DataDir + ".old"})
	if err != nil || !strings.Contains(old.Frozen, p.ID) {
		t.Errorf("the old directory: %+v, %v", old, err)
	}
	return digest
}

func TestTheTailOfTheBestLogIsInTheNewCluster(t *testing.T) {
	s := stoppedCluster(t, 4)
	s.write(t, 0, 1, s.put(1, 9), s.put(2, 9), s.put(3, 9))
	s.write(t, 1, 1, s.put(1, 9), s.put(2, 9))
	s.write(t, 1, 2, s.put(3, 10), s.put(4, 10)) // A later leader's.
	p := s.planFor(t, s.spec(), 0, 1)
	if p.Source != s.sources[1] || p.Loss.Possible || len(p.Uncertain) != 2 {
		t.Fatalf("plan: %+v", p)
	}
	was := s.collect(t, 1).Members[0].State.Revision
	if err := Apply(t.Context(), applyConfig(p, nil), p); err != nil {
		t.Fatal(err)
	}
	s.checkRecovered(t, p, was+4)
	if err := Apply(t.Context(), applyConfig(p, nil), p); err != nil {
		t.Errorf("applied again: %v", err)
	}
	s.checkRecovered(t, p, was+4)
}

func TestWhoSawWhatIsLostIsTold(t *testing.T) {
	s := stoppedCluster(t, 3)
	s.bump = 1000
	s.write(t, 0, 1, s.put(1, 9), s.put(2, 9))
	p := s.planFor(t, s.spec(), 0)
	if err := Apply(t.Context(), applyConfig(p, nil), p); err != nil {
		t.Fatal(err)
	}
	s.checkRecovered(t, p, ident.Revision(p.Revision+2+s.bump))
	m, err := Collect(t.Context(), testConfig(), Source{DataDir: p.Members[0].DataDir})
	if err != nil || m.State.Compacted != m.State.Revision {
		t.Errorf("%+v, %v", m.State, err)
	}
}

func TestALogThatLiesElsewhereStaysThere(t *testing.T) {
	s := stoppedCluster(t, 3)
	s.write(t, 0, 1, s.put(1, 9), s.put(2, 9))
	fast := filepath.Join(t.TempDir(), "fast")
	if err := os.Rename(filepath.Join(s.sources[0].DataDir, "wal"), fast); err != nil {
		t.Fatal(err)
	}
	s.sources[0].WALDir = fast
	p := s.planFor(t, nil, 0)
	for steps := 0; ; steps++ {
		left := steps
		err := Apply(t.Context(), applyConfig(p, func(string) error {
			if left--; left < 0 {
				return errCrash
			}
			return nil
		}), p)
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
	}
	s.checkRecovered(t, p, ident.Revision(p.Revision)+2)
	if names, err := filepath.Glob(fast + "*"); err != nil || len(names) != 2 {
		t.Errorf("logs are %v, %v", names, err)
	}
}

var errCrash = errors.New("crash")

// TestARecoveryThatIsCutOffAfterAnyStepIsFinishedByAnother stops after each
// step, and after each of the steps of the run after that.
func TestARecoveryThatIsCutOffAfterAnyStepIsFinishedByAnother(t *testing.T) {
	var want string
	for first := 0; ; first++ {
		s := stoppedCluster(t, 3)
		s.write(t, 0, 1, s.put(1, 9), s.put(2, 9), s.put(3, 9))
		revision := s.collect(t, 0).Members[0].State.Revision + 3
		before := tree(t, s.sources[0].DataDir)
		p := s.planFor(t, s.spec(), 0)
		var did []string
		left := first
		crash := func(name string) error {
			did = append(did, name)
			if left--; left < 0 {
				return errCrash
			}
			return nil
		}
		for tries := 0; ; tries++ {
			left = first
			if tries > 0 {
				left = tries
			}
			err := Apply(t.Context(), applyConfig(p, crash), p)
			if err == nil {
				break
			}
			if !errors.Is(err, errCrash) {
				t.Fatalf("step %d, after %q: %v", first, did, err)
			}
			checkCutOff(t, s, before, did)
		}
		got := s.checkRecovered(t, p, revision) + "\n" + endState(t, s)
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("cut off after %q, the end state is\n%s, was\n%s", did, got, want)
		}
		if len(did) > 0 && first >= len(did)-1 {
			t.Logf("steps: %q", did)
			break
		}
	}
}

// checkCutOff: the source's directory is the old one, untouched but for its
// marker, or the new one.
func checkCutOff(t *testing.T, s *stopped, before map[string]string, did []string) {
	t.Helper()
	dir := s.sources[0].DataDir
	now := tree(t, dir)
	if now["/IDENTITY"] == before["/IDENTITY"] {
		delete(now, "/FROZEN")
		if name := sameTree(before, now); name != "" {
			t.Errorf("after %q the old directory is not as it was: %s", did, name)
		}
	}
}

// endState is who lives in all places; what they hold is compared by digest.
func endState(t *testing.T, s *stopped) string {
	t.Helper()
	var b strings.Builder
	root := filepath.Dir(s.sources[0].DataDir)
	names, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		files := tree(t, filepath.Join(root, n.Name()))
		h := sha256.New()
		for _, name := range []string{"/IDENTITY", "/CURRENT"} {
			h.Write([]byte(files[name]))
		}
		fmt.Fprintf(&b, "%s %s\n", n.Name(), hex.EncodeToString(h.Sum(nil)[:4]))
	}
	return b.String()
}

// What a cut-off recovery has built waits for its name, and somebody else may have
// used the place for a restore of his own meanwhile.
func TestOnlyWhatAPlanHasBuiltGetsTheNameOfItsTarget(t *testing.T) {
	s := stoppedCluster(t, 3)
	s.write(t, 0, 1, s.put(1, 9))
	p := s.planFor(t, nil, 0)
	built := applyConfig(p, func(name string) error {
		if name == "that is noted" {
			return errCrash
		}
		return nil
	})
	if err := Apply(t.Context(), built, p); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	before := tree(t, s.sources[0].DataDir)
	scratch, err := datadir.Open(testConfig().FS, s.sources[0].DataDir+".restoring")
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(t.Context(), applyConfig(p, nil), p); !errors.Is(err, datadir.ErrLocked) {
		t.Errorf("while somebody is at work there: %v", err)
	}
	id, err := scratch.Identity()
	other := id
	other.Member++
	if err = errors.Join(err, scratch.SetIdentity(other)); err != nil {
		t.Fatal(err)
	}
	if err := scratch.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Apply(t.Context(), applyConfig(p, nil), p); !errors.Is(err, snapshot.ErrInvalid) {
		t.Errorf("with another's directory there: %v", err)
	}
	if name := sameTree(before, tree(t, s.sources[0].DataDir)); name != "" {
		t.Errorf("%s was changed", name)
	}
}

func TestWhatAPlanCostsMustBeAccepted(t *testing.T) {
	s := stoppedCluster(t, 3)
	p := s.planFor(t, nil, 0)
	before := tree(t, filepath.Dir(s.sources[0].DataDir))
	for _, accepted := range []string{"", "yes", p.ID[1:]} {
		cfg := applyConfig(p, nil)
		cfg.AcceptLoss = accepted
		if err := Apply(t.Context(), cfg, p); !errors.Is(err, ErrLoss) || !strings.Contains(err.Error(), "--accept-loss "+p.ID) {
			t.Errorf("%q: %v", accepted, err)
		}
	}
	changed := *p
	changed.Keep.Index-- // By somebody who did not read what it costs.
	if err := Apply(t.Context(), applyConfig(p, nil), &changed); !errors.Is(err, ErrDocument) {
		t.Errorf("a changed plan: %v", err)
	}
	if name := sameTree(before, tree(t, filepath.Dir(s.sources[0].DataDir))); name != "" {
		t.Errorf("%s was changed", name)
	}
}

func TestAPlanIsNotAppliedToWhatHasChangedSince(t *testing.T) {
	s := stoppedCluster(t, 3)
	p := s.planFor(t, nil, 0)
	s.write(t, 0, 0, s.put(1, 9))
	if err := Apply(t.Context(), applyConfig(p, nil), p); !errors.Is(err, ErrStale) {
		t.Fatalf("got %v", err)
	}
	again := s.planFor(t, nil, 0) // The other one was given up.
	if err := Apply(t.Context(), applyConfig(again, nil), again); err != nil {
		t.Fatal(err)
	}
	s.checkRecovered(t, again, ident.Revision(again.Revision)+1)
}

func TestOnlyOnePlanIsUnderWay(t *testing.T) {
	s := stoppedCluster(t, 3)
	p, other := s.planFor(t, nil, 0), s.planFor(t, s.spec(), 0)
	staged := applyConfig(p, func(string) error { return errCrash })
	if err := Apply(t.Context(), staged, p); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	if err := Apply(t.Context(), applyConfig(other, nil), other); !errors.Is(err, ErrStaged) {
		t.Errorf("another plan: %v", err)
	}
	if _, err := NewPlan(s.collect(t, 0), Ask{Dead: []string{"m2", "m3"}, Members: s.spec(), Nonce: testNonce, Now: testConfig().Clock.Wall()}); !errors.Is(err, ErrStaged) {
		t.Errorf("another plan is made: %v", err)
	}
	if err := Thaw(testConfig(), s.sources[0]); err != nil {
		t.Fatal(err)
	}
	lock, err := lockJournal(testConfig().FS, s.sources[0].DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(t.Context(), applyConfig(other, nil), other); !errors.Is(err, ErrStaged) {
		t.Errorf("at the same time: %v", err)
	}
	lock.Close()
	built := applyConfig(other, func(name string) error {
		if strings.HasPrefix(name, "that is noted") {
			return errCrash
		}
		return nil
	})
	if err := Apply(t.Context(), built, other); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	if err := Thaw(testConfig(), s.sources[0]); !errors.Is(err, ErrStaged) {
		t.Errorf("given up half done: %v", err)
	}
	if err := Apply(t.Context(), applyConfig(other, nil), other); err != nil {
		t.Error(err)
	}
}

func TestAFrozenMemberIsThawed(t *testing.T) {
	s := stoppedCluster(t, 1)
	if err := Freeze(testConfig(), s.sources[0], "tests"); err != nil {
		t.Fatal(err)
	}
	may := func() error { return withStopped(testConfig(), s.sources[0], (*datadir.Dir).MayStart) }
	if err := may(); !errors.Is(err, datadir.ErrFrozen) {
		t.Errorf("frozen: %v", err)
	}
	if m := s.collect(t, 0).Members[0]; m.Frozen != "tests" {
		t.Errorf("facts say %q", m.Frozen)
	}
	if err := Thaw(testConfig(), s.sources[0]); err != nil || may() != nil {
		t.Errorf("thawed: %v, %v", err, may())
	}
}

// Whoever names another folder by mistake is told, and finds nothing new in it or beside it.
func TestAFolderThatHoldsNoMemberIsLeftAsItIs(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "photos")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg, src := testConfig(), Source{DataDir: dir}
	cfg.FS = vfs.OS()
	_, err := Collect(t.Context(), cfg, src)
	for what, err := range map[string]error{"collect": err, "freeze": Freeze(cfg, src, "tests"), "thaw": Thaw(cfg, src), "thaw of nothing": Thaw(cfg, Source{DataDir: dir + "x"})} {
		if !errors.Is(err, datadir.ErrEmpty) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, d := range []string{parent, dir} {
		found, err := os.ReadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if f.Name() != "photos" {
				t.Errorf("there is a new %s", filepath.Join(d, f.Name()))
			}
		}
	}
}

func TestDocumentsComeBackAndNothingElseDoes(t *testing.T) {
	s := stoppedCluster(t, 3)
	s.write(t, 0, 1, s.put(1, 9), s.put(2, 9))
	p := s.planFor(t, s.spec(), 0)
	text, err := EncodePlan(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodePlan(text)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := again.computeID(); err != nil || id != p.ID {
		t.Errorf("ID %s became %s, %v", p.ID, id, err)
	}
	if _, err := DecodeFacts(text); !errors.Is(err, ErrDocument) {
		t.Errorf("a plan passes for facts: %v", err)
	}
	if _, err := DecodePlan(append(text, '{')); !errors.Is(err, ErrDocument) {
		t.Errorf("more at the end: %v", err)
	}
	for at := range text {
		flipped := bytes.Clone(text)
		flipped[at] ^= 1
		if p, err := DecodePlan(flipped); err == nil {
			if id, _ := p.computeID(); id != again.ID || p.Nonce != again.Nonce {
				t.Fatalf("a flip at %d passes", at)
			}
		}
	}
}
