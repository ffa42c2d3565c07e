package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
)

// story is a container that is watched, second by second, and what happened.
type story struct {
	clock *clocktest.Fake
	begun time.Duration
	lock  sync.Mutex // Probes may be asked at once.
	lines []string
	watch *Watcher
	state State

	// answer is what an exec probe says: its command is its kind.
	answer func(second int, kind string) (code int32, output string, err error)
}

// tell runs a story in virtual time for as many seconds, and at each calls then.
func tell(t *testing.T, c *corev1.Container, seconds int, s *story, then func(second int)) string {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if s.clock == nil {
			s.clock = clocktest.New()
		}
		s.begun = s.clock.Mono()
		pod := &corev1.Pod{}
		s.lock.Lock() // Probes that are asked at once come after the first state.
		s.watch = Watch(Config{
			Target: Target{Pod: pod, Container: c, Exec: s.exec},
			Clock:  s.clock, Logger: hclog.NewNullLogger(), Started: s.clock.Wall(),
			Changed: func() {}, Event: func(reason, message string) { s.note("event %s: %s", reason, message) },
		})
		s.state = s.watch.State()
		s.lines = append(s.lines, fmt.Sprintf("0 %+v", s.state))
		s.lock.Unlock()
		for second := 0; second <= seconds; second++ {
			synctest.Wait()
			s.look()
			if then != nil {
				then(second)
			}
			s.clock.Advance(time.Second)
		}
		s.watch.Close()
		s.watch.Close()
	})
	return strings.Join(s.lines, "\n")
}

func (s *story) second() int { return int((s.clock.Mono() - s.begun) / time.Second) }

func (s *story) note(format string, args ...any) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.lines = append(s.lines, fmt.Sprintf("%d ", s.second())+fmt.Sprintf(format, args...))
}

// look notes what is new. Nobody else runs.
func (s *story) look() {
	if now := s.watch.State(); now != s.state {
		s.state = now
		s.note("%+v", now)
	}
	select {
	case f := <-s.watch.Failed():
		grace := "the pod's"
		if f.Grace != nil {
			grace = f.Grace.String()
		}
		s.note("%s (grace %s)", f.Message, grace)
	default:
	}
}

func (s *story) exec(ctx context.Context, command []string) (int32, string, error) {
	code, output, err := s.answer(s.second(), command[0])
	s.note("%s %d", command[0], code)
	if output == "hang" {
		<-ctx.Done()
		return 0, "", ctx.Err()
	}
	return code, output, err
}

func probeOf(kind string, change func(p *corev1.Probe)) *corev1.Probe {
	p := &corev1.Probe{TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3}
	p.Exec = &corev1.ExecAction{Command: []string{kind}}
	if change != nil {
		change(p)
	}
	return p
}

func expect(t *testing.T, got string, want ...string) {
	t.Helper()
	if got != strings.Join(want, "\n") {
		t.Errorf("it went:\n%s\n\nand not:\n%s", got, strings.Join(want, "\n"))
	}
}

func TestReadinessFollowsItsThresholds(t *testing.T) {
	c := &corev1.Container{Name: "web", ReadinessProbe: probeOf("readiness", func(p *corev1.Probe) {
		p.InitialDelaySeconds, p.PeriodSeconds, p.SuccessThreshold, p.FailureThreshold = 3, 5, 2, 2
	})}
	s := &story{answer: func(second int, _ string) (int32, string, error) {
		if second >= 10 && second < 20 {
			return 7, "not now", nil
		}
		return 0, "", nil
	}}
	expect(t, tell(t, c, 30, s, nil),
		"0 {Started:true Ready:false}",
		"3 readiness 0",
		"8 readiness 0",
		"8 {Started:true Ready:true}",
		"13 readiness 7",
		"13 event Unhealthy: Readiness probe failed: not now",
		"18 readiness 7",
		"18 {Started:true Ready:false}",
		"23 readiness 0",
		"28 readiness 0",
		"28 {Started:true Ready:true}")
}

func TestTheStartupProbeHoldsTheOthersBack(t *testing.T) {
	c := &corev1.Container{Name: "web",
		StartupProbe:   probeOf("startup", func(p *corev1.Probe) { p.PeriodSeconds, p.FailureThreshold = 4, 10 }),
		LivenessProbe:  probeOf("liveness", func(p *corev1.Probe) { p.InitialDelaySeconds = 2 }),
		ReadinessProbe: probeOf("readiness", nil),
	}
	s := &story{answer: func(second int, _ string) (int32, string, error) {
		if second < 8 {
			return 1, "", nil
		}
		return 0, "", nil
	}}
	got := strings.Split(tell(t, c, 20, s, nil), "\n")
	slices.Sort(got[5:7]) // Both are asked in the same moment.
	slices.Sort(got[8:])
	expect(t, strings.Join(got, "\n"),
		"0 {Started:false Ready:false}",
		"0 startup 1",
		`0 event Unhealthy: Startup probe failed: command "startup" exited with code 1`,
		"4 startup 1",
		"8 startup 0",
		"8 liveness 0",
		"8 readiness 0",
		"8 {Started:true Ready:true}",
		"18 liveness 0",
		"18 readiness 0")
}

func TestALivenessProbeThatFailsEndsTheContainerOnce(t *testing.T) {
	c := &corev1.Container{Name: "web",
		LivenessProbe:  probeOf("liveness", func(p *corev1.Probe) { p.TerminationGracePeriodSeconds = new(int64(7)) }),
		ReadinessProbe: probeOf("readiness", func(p *corev1.Probe) { p.InitialDelaySeconds, p.PeriodSeconds = 1, 15 }),
	}
	s := &story{answer: func(second int, kind string) (int32, string, error) {
		if kind == "liveness" && second >= 10 {
			return 1, "dead", nil
		}
		return 0, "", nil
	}}
	expect(t, tell(t, c, 50, s, nil),
		"0 {Started:true Ready:false}",
		"0 liveness 0",
		"1 readiness 0",
		"1 {Started:true Ready:true}",
		"10 liveness 1",
		"10 event Unhealthy: Liveness probe failed: dead",
		"16 readiness 0",
		"20 liveness 1",
		"30 liveness 1",
		"30 Container web failed liveness probe, will be restarted (grace 7s)",
		"31 readiness 0",
		"46 readiness 0")
}

func TestAStartupProbeThatNeverSucceedsEndsTheContainer(t *testing.T) {
	c := &corev1.Container{Name: "web", StartupProbe: probeOf("startup", func(p *corev1.Probe) { p.FailureThreshold = 2 }), LivenessProbe: probeOf("liveness", nil)}
	s := &story{answer: func(int, string) (int32, string, error) { return 3, "cold", nil }}
	expect(t, tell(t, c, 40, s, nil),
		"0 {Started:false Ready:false}",
		"0 startup 3",
		"0 event Unhealthy: Startup probe failed: cold",
		"10 startup 3",
		"10 Container web failed startup probe, will be restarted (grace the pod's)")
}

func TestAProbeThatHangsHasFailedAtItsTimeout(t *testing.T) {
	c := &corev1.Container{Name: "web", LivenessProbe: probeOf("liveness", func(p *corev1.Probe) { p.TimeoutSeconds, p.PeriodSeconds, p.FailureThreshold = 4, 2, 2 })}
	s := &story{answer: func(int, string) (int32, string, error) { return 0, "hang", nil }}
	expect(t, tell(t, c, 20, s, nil),
		"0 {Started:true Ready:true}",
		"0 liveness 0",
		`4 event Unhealthy: Liveness probe failed: command "liveness" timed out after 4s`,
		"4 liveness 0",
		"8 Container web failed liveness probe, will be restarted (grace the pod's)")
}

func TestAProbeThatCannotBeMadeSaysNothing(t *testing.T) {
	c := &corev1.Container{Name: "web", LivenessProbe: probeOf("liveness", func(p *corev1.Probe) { p.PeriodSeconds, p.FailureThreshold = 1, 3 })}
	s := &story{answer: func(second int, _ string) (int32, string, error) {
		if second == 2 || second >= 5 && second != 6 {
			return 0, "", errors.New("the runtime does not answer")
		}
		return 1, "bad", nil
	}}
	got := tell(t, c, 7, s, nil)
	// Fails at 0, 1 and, with the error between them, at 3: three in a row.
	if !strings.Contains(got, "2 event Unhealthy: Liveness probe errored: the runtime does not answer") || !strings.Contains(got, "3 Container web failed liveness probe") {
		t.Error(got)
	}
}

func TestEqualFailuresAreFewEvents(t *testing.T) {
	c := &corev1.Container{Name: "web", ReadinessProbe: probeOf("readiness", func(p *corev1.Probe) { p.PeriodSeconds = 1 })}
	s := &story{answer: func(second int, _ string) (int32, string, error) {
		if second == 25 {
			return 1, strings.Repeat("ä", 2000) + "\xff", nil
		}
		return 1, "bad", nil
	}}
	var events []string
	for line := range strings.SplitSeq(tell(t, c, 29, s, nil), "\n") {
		if second, text, ok := strings.Cut(line, " event "); ok {
			if len(text) > messageBytesMax+64 || strings.ContainsRune(text, '\uFFFD') {
				t.Errorf("an event of %d bytes: %.60s", len(text), text)
			}
			events = append(events, second)
		}
	}
	if got := strings.Join(events, " "); got != "0 10 20 25 26" {
		t.Errorf("events at %s", got)
	}
}

func TestWhenThePodEndsOnlyReadinessIsAsked(t *testing.T) {
	c := &corev1.Container{Name: "web", LivenessProbe: probeOf("liveness", func(p *corev1.Probe) { p.PeriodSeconds, p.FailureThreshold = 5, 1 }),
		ReadinessProbe: probeOf("readiness", func(p *corev1.Probe) { p.InitialDelaySeconds, p.PeriodSeconds, p.FailureThreshold = 1, 5, 1 })}
	s := &story{}
	s.answer = func(second int, _ string) (int32, string, error) {
		if second > 7 {
			return 1, "ending", nil
		}
		return 0, "", nil
	}
	got := tell(t, c, 14, s, func(second int) {
		if second == 7 {
			s.watch.Ending()
			s.note("ending")
		}
	})
	expect(t, got,
		"0 {Started:true Ready:false}",
		"0 liveness 0",
		"1 readiness 0",
		"1 {Started:true Ready:true}",
		"5 liveness 0",
		"6 readiness 0",
		"7 ending",
		"11 readiness 1",
		"11 event Unhealthy: Readiness probe failed: ending",
		"11 {Started:true Ready:false}")
}

func TestAContainerWithoutProbesIsReady(t *testing.T) {
	s := &story{}
	expect(t, tell(t, &corev1.Container{Name: "web"}, 5, s, nil), "0 {Started:true Ready:true}")
	s = &story{answer: func(int, string) (int32, string, error) { return 0, "", nil }}
	expect(t, tell(t, &corev1.Container{Name: "web", StartupProbe: probeOf("startup", nil)}, 5, s, nil),
		"0 {Started:false Ready:false}", "0 startup 0", "0 {Started:true Ready:true}")
}

// After a restart of the kubelet containers that run for long are asked at once, each
// at its own part of a period.
func TestTheFirstProbesOfANodeThatStartsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clk := clocktest.New()
		var asked []time.Duration
		w := Watch(Config{
			Target: Target{
				Pod: &corev1.Pod{}, Container: &corev1.Container{Name: "web", ReadinessProbe: probeOf("r", func(p *corev1.Probe) { p.InitialDelaySeconds = 60 })},
				Exec: func(context.Context, []string) (int32, string, error) {
					asked = append(asked, clk.Mono())
					return 0, "", nil
				},
			},
			Clock: clk, Logger: hclog.NewNullLogger(), Started: clk.Wall().Add(-40 * time.Second), Spread: func() float64 { return 0.25 },
			Changed: func() {}, Event: func(string, string) {},
		})
		defer w.Close()
		for range 80 {
			synctest.Wait()
			clk.Advance(500 * time.Millisecond)
		}
		want := []time.Duration{22500 * time.Millisecond, 32500 * time.Millisecond}
		if !slices.Equal(asked, want) {
			t.Errorf("asked at %v, not %v", asked, want)
		}
	})
}

func TestCloseCutsAProbeOff(t *testing.T) {
	c := &corev1.Container{Name: "web", LivenessProbe: probeOf("liveness", func(p *corev1.Probe) { p.TimeoutSeconds, p.FailureThreshold = 100, 1 })}
	s := &story{answer: func(int, string) (int32, string, error) { return 0, "hang", nil }}
	expect(t, tell(t, c, 3, s, nil), "0 {Started:true Ready:true}", "0 liveness 0")
}
