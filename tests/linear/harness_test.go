package linear

import (
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/tests/check"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

func TestErrorsAreDefiniteOnlyIfNothingCanHaveHappened(t *testing.T) {
	for _, c := range []struct {
		err  error
		want check.Outcome
	}{
		{nil, check.Acknowledged},
		{status.Error(codes.DeadlineExceeded, "context deadline exceeded"), check.Unknown},
		{status.Error(codes.DeadlineExceeded, "context deadline exceeded while waiting for connections to become ready"), check.Refused},
		{status.Error(codes.Canceled, "context canceled"), check.Unknown},
		{status.Error(codes.Unavailable, `connection error: desc = "error reading from server: EOF"`), check.Unknown},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp: connection refused"`), check.Refused},
		{status.Error(codes.Unavailable, "etcdserver: request timed out"), check.Unknown},
		{status.Error(codes.Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"), check.Unknown},
		{status.Error(codes.Unavailable, "etcdserver: leader changed"), check.Refused},
		{status.Error(codes.Unknown, "etcdserver: too many requests"), check.Refused},
		{status.Error(codes.Unknown, "something else"), check.Unknown},
		{status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"), check.Refused},
		{status.Error(codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded"), check.Refused},
		{status.Error(codes.ResourceExhausted, "grpc: received message larger than max"), check.Unknown},
		{errors.New("no status at all"), check.Unknown},
	} {
		if got := outcomeOf(c.err); got != c.want {
			t.Errorf("%v is taken as %v, want %v", c.err, got, c.want)
		}
	}
}

func event(rev int64, key string) *mvccpb.Event {
	return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: rev}}
}

func TestTheShadowIsWholeOnlyWithoutGapsAndNoticesContradictions(t *testing.T) {
	rec := newRecorder()
	s := newShadow(rec)
	s.add([]*mvccpb.Event{event(2, "a"), event(3, "a"), event(3, "b"), event(5, "a")})
	if s.at() != 3 {
		t.Errorf("everything up to %d is there, with a gap at 4", s.at())
	}
	s.add([]*mvccpb.Event{event(3, "a"), event(3, "b"), event(4, "c")})
	if s.at() != 5 || len(s.log()) != 5 {
		t.Errorf("everything up to %d is there, %d events", s.at(), len(s.log()))
	}
	if len(rec.violations) > 0 {
		t.Errorf("equal events contradict: %v", rec.violations)
	}
	s.add([]*mvccpb.Event{event(3, "a")})
	if len(rec.violations) != 1 {
		t.Errorf("a revision with an event less went unnoticed: %v", rec.violations)
	}
}

// shapes are drawn with many seeds, on three and on five members.
func shapes(t *testing.T, members int, shape func(*attack) []direction, test func(cut map[direction]bool, a *attack)) {
	t.Helper()
	for seed := range int64(50) {
		r := &run{}
		for i := range members {
			r.places = append(r.places, &place{Member: &cluster.Member{Name: fmt.Sprint(i)}})
		}
		r.leads.Store(seed % int64(members))
		a := &attack{run: r, rng: rand.New(rand.NewSource(seed))}
		cut := map[direction]bool{}
		for _, d := range shape(a) {
			if cut[d] {
				t.Fatalf("seed %d cuts %v twice", seed, d)
			}
			cut[d] = true
		}
		if len(cut) == 0 {
			t.Fatalf("seed %d cuts nothing", seed)
		}
		test(cut, a)
	}
}

// heard are those that a member exchanges packets with both ways, and itself.
func heard(cut map[direction]bool, i, members int) (n int) {
	for j := range members {
		if i == j || !cut[direction{i, j}] && !cut[direction{j, i}] {
			n++
		}
	}
	return n
}

func TestPartitionsHaveTheShapeOfTheirNames(t *testing.T) {
	for _, n := range []int{3, 5} {
		leader := func(a *attack) int { return int(a.leads.Load()) }
		shapes(t, n, minority, func(cut map[direction]bool, a *attack) {
			if heard(cut, leader(a), n) <= n/2 {
				t.Errorf("%d members: the leader lost its majority", n)
			}
		})
		shapes(t, n, withLeader, func(cut map[direction]bool, a *attack) {
			if heard(cut, leader(a), n) > n/2 {
				t.Errorf("%d members: the leader kept its majority", n)
			}
		})
		shapes(t, n, leaderAlone, func(cut map[direction]bool, a *attack) {
			if heard(cut, leader(a), n) != 1 || len(cut) != 2*(n-1) {
				t.Errorf("%d members: %v", n, cut)
			}
		})
		shapes(t, n, oneWay, func(cut map[direction]bool, _ *attack) {
			for d := range cut {
				if cut[direction{d.to, d.from}] {
					t.Errorf("%d members: both ways are cut: %v", n, cut)
				}
			}
		})
		shapes(t, n, bridge, func(cut map[direction]bool, _ *attack) {
			whole := 0
			for i := range n {
				if heard(cut, i, n) == n {
					whole++
				}
			}
			if whole != 1 {
				t.Errorf("%d members: %d see all others", n, whole)
			}
		})
	}
	shapes(t, 5, ring, func(cut map[direction]bool, _ *attack) {
		for i := range 5 {
			if heard(cut, i, 5) != 3 {
				t.Errorf("member %d sees %d, itself among them", i, heard(cut, i, 5))
			}
		}
	})
}

func TestComplaintsAreFoundInLogs(t *testing.T) {
	for line, want := range map[string]string{
		`{"level":"info","msg":"all is well"}`:            "",
		`{"level":"warn","msg":"we coped"}`:               "",
		`{"level":"error","msg":"an operator must act"}`:  "error",
		"panic: broken invariant":                         "panic",
		"fatal error: all goroutines are asleep":          "panic",
		"holdfast: create raft log: no space left":        "",
		"==================\nWARNING: DATA RACE\nRead at": "panic",
	} {
		if got := complaint(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestUnknownNamesAreRefusedWithThoseThatAreKnown(t *testing.T) {
	restore := func(nemesis, workload string) { *nemesisFlag, *workloadFlag = nemesis, workload }
	defer restore(*nemesisFlag, *workloadFlag)
	restore("kill-one,no-such", "")
	if err := checkNames(); err == nil || !strings.Contains(err.Error(), "partition-bridge") {
		t.Errorf("an unknown nemesis: %v", err)
	}
	restore("", "no-such")
	if err := checkNames(); err == nil || !strings.Contains(err.Error(), "serializable") {
		t.Errorf("an unknown workload: %v", err)
	}
	restore("kill-one,one-way", "bank")
	if err := checkNames(); err != nil {
		t.Error(err)
	}
}

func TestPlannedScenariosHaveAllKindsAndMostOfThemMixed(t *testing.T) {
	had := map[string]bool{}
	mixed := 0
	for _, s := range planned {
		had[s.Workload] = true
		for _, name := range s.Nemeses {
			had[name] = true
		}
		if len(s.Nemeses) > 1 {
			mixed++
		}
		if s.needs()&needsFive != 0 && s.Members < 5 {
			t.Errorf("%v needs five members", s)
		}
	}
	for name := range nemeses {
		if !had[name] {
			t.Errorf("nemesis %s is in no planned scenario", name)
		}
	}
	for name := range workloads {
		if !had[name] {
			t.Errorf("workload %s is in no planned scenario", name)
		}
	}
	if mixed*10 < len(planned)*7 {
		t.Errorf("only %d of %d scenarios have two nemeses or more", mixed, len(planned))
	}
}

func TestADrawnScenarioDependsOnItsSeedAlone(t *testing.T) {
	env := &environment{}
	different := 0
	for seed := range int64(40) {
		if a, b := draw(seed, env), draw(seed, env); a.String() != b.String() {
			t.Errorf("seed %d gives %v and %v", seed, a, b)
		}
		if draw(seed, env).replay() != draw(seed+1, env).replay() {
			different++
		}
	}
	if different != 40 {
		t.Errorf("%d of 40 seeds differ from the next", different)
	}
}

func TestFaultsLastUntilEachNemesisHasActedAndNotForever(t *testing.T) {
	r := newRun(nil, Scenario{Nemeses: []string{"loss", "certificates"}, Faults: faultsShort})
	defer r.stalls.stop()
	r.count("loss")
	if got := fmt.Sprint(r.idle()); got != "[certificates]" {
		t.Errorf("%s have not acted", got)
	}
	for _, c := range []struct {
		lasted             time.Duration
		acknowledged, idle int
		want               bool
	}{
		{faultsShort - 1, duringEnough, 0, false},
		{faultsShort, duringEnough, 0, true},
		{faultsShort, duringEnough, 1, false},
		{faultsShort + idleMax - 1, duringEnough, 1, false},
		{faultsShort + idleMax, duringEnough, 1, true},
		{faultsShort + idleMax - 1, duringEnough - 1, 0, false},
		{faultsStretch * faultsShort, 0, 1, true},
	} {
		if got := faultsAreOver(c.lasted, faultsShort, c.acknowledged, c.idle); got != c.want {
			t.Errorf("after %s, %d acknowledged, %d idle: over is %t", c.lasted, c.acknowledged, c.idle, got)
		}
	}
	r.count("certificates")
	if got := r.idle(); len(got) > 0 {
		t.Errorf("%s have not acted", got)
	}
}
