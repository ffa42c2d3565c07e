package sim

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

var _ tunnel.Node = (*Runtime)(nil)

// placed takes a log, up to an error after so many lines.
type placed struct {
	bytes.Buffer
	lost  int // After so many writes. 0: never.
	last  *logfile.Place
	first *logfile.Place
}

var errLost = errors.New("the connection is lost")

func (p *placed) Write(b []byte) (int, error) {
	n, err := p.Buffer.Write(b)
	if p.lost--; p.lost == 0 {
		err = errLost
	}
	return n, err
}

func (p *placed) Place(_ int, at logfile.Place) error {
	if p.first == nil {
		p.first = &at
	}
	p.last = &at
	return nil
}

func TestTheLogOfASimulatedContainerTellsWhatBecameOfIt(t *testing.T) {
	clk, r, pod := pair(t, map[string]string{"exit-after": "5s", "exit-code": "3"})
	of := &kubepb.PodContainer{Namespace: "default", Pod: "p", Uid: "u", Container: "c"}
	if err := r.Logs(t.Context(), &kubepb.LogsRequest{Of: of}, &placed{}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("before it is there: %v", err)
	}
	r.Start(pod, "c")
	logs := func(q *kubepb.LogsRequest) string {
		t.Helper()
		q.Of = of
		var out placed
		if err := r.Logs(t.Context(), q, &out); err != nil {
			t.Error(err)
		}
		return out.String()
	}
	const began = "simulated container c of pod p started; it runs nothing\n"
	const ended = "simulated container c of pod p ended with exit code 3\n"
	if got := logs(&kubepb.LogsRequest{}); got != began {
		t.Errorf("it runs: %q", got)
	}
	following := make(chan string, 1)
	go func() { following <- logs(&kubepb.LogsRequest{Follow: true}) }()
	for done := false; !done; {
		select {
		case got := <-following:
			done = true
			if got != began+ended {
				t.Errorf("followed: %q", got)
			}
		default:
			clk.Advance(time.Second)
		}
	}
	one, none := int64(1), int64(0)
	for _, c := range []struct {
		q    *kubepb.LogsRequest
		want string
	}{
		{&kubepb.LogsRequest{}, began + ended},
		{&kubepb.LogsRequest{TailLines: &one}, ended},
		{&kubepb.LogsRequest{TailLines: &none}, ""},
		{&kubepb.LogsRequest{LimitBytes: 9}, "simulated"},
		{&kubepb.LogsRequest{SinceTime: clk.Wall().Add(time.Hour).UnixNano()}, ""},
	} {
		if got := logs(c.q); got != c.want {
			t.Errorf("%v: %q", c.q, got)
		}
	}
	if got := logs(&kubepb.LogsRequest{Timestamps: true, TailLines: &one}); !strings.Contains(got, "Z simulated container") {
		t.Errorf("with times: %q", got)
	}
	if err := r.Logs(t.Context(), &kubepb.LogsRequest{Of: of, Previous: true}, &placed{}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("previous: %v", err)
	}
}

// TestALogThatIsFollowedGoesOnWhereItWasLeft, as that of a real container does.
func TestALogThatIsFollowedGoesOnWhereItWasLeft(t *testing.T) {
	clk, r, pod := pair(t, map[string]string{"exit-after": "5s"})
	r.Start(pod, "c")
	of := &kubepb.PodContainer{Namespace: "default", Pod: "p", Uid: "u", Container: "c"}
	const began = "simulated container c of pod p started; it runs nothing\n"
	const ended = "simulated container c of pod p ended with exit code 0\n"
	ctx, cancel := context.WithCancel(t.Context())
	one := &placed{}
	cancel()
	if err := r.Logs(ctx, &kubepb.LogsRequest{Of: of, Follow: true}, one); !errors.Is(err, context.Canceled) || one.String() != began || one.last == nil {
		t.Fatalf("%v, %q, at %v", err, one.String(), one.last)
	}
	clk.Advance(6 * time.Second)
	after := func(at *logfile.Place, limit int64) *kubepb.LogsRequest {
		p := &kubepb.LogPlace{File: at.File, Offset: at.Offset, Open: at.Open}
		if !at.Since.IsZero() {
			p.Since = at.Since.UnixNano()
		}
		return &kubepb.LogsRequest{Of: of, Follow: true, After: p, LimitBytes: limit}
	}
	two := &placed{}
	if err := r.Logs(t.Context(), after(one.last, 9), two); err != nil || two.String() != ended[:9] {
		t.Errorf("%v, %q", err, two.String())
	}
	two = &placed{}
	if err := r.Logs(t.Context(), after(one.last, 0), two); err != nil || two.String() != ended || two.last.Offset != 2 {
		t.Errorf("%v, %q, at %v", err, two.String(), two.last)
	}
	// Lost before a place was told: what was written comes again, after the same place.
	lost, again := &placed{lost: 1}, &placed{}
	if err := r.Logs(t.Context(), after(one.last, 0), lost); !errors.Is(err, errLost) || *lost.first != *one.last {
		t.Errorf("%v, at %v", err, lost.first)
	}
	if err := r.Logs(t.Context(), after(lost.last, 0), again); err != nil || again.String() != ended {
		t.Errorf("%v, %q", err, again.String())
	}
	// A limit is of all that comes.
	all := &placed{}
	if err := r.Logs(t.Context(), &kubepb.LogsRequest{Of: of, Follow: true, LimitBytes: int64(len(began)) + 3}, all); err != nil || all.String() != began+ended[:3] {
		t.Errorf("with a limit: %v, %q", err, all.String())
	}
}

func TestNothingRunsInASimulatedContainerAndItSaysSo(t *testing.T) {
	_, r, pod := pair(t, nil)
	r.Start(pod, "c")
	of := &kubepb.PodContainer{Namespace: "default", Pod: "p", Uid: "u", Container: "c"}
	calls := map[string]func(ctx context.Context) error{
		"exec": func(ctx context.Context) error {
			_, err := r.Exec(ctx, &kubepb.ExecRequest{Of: of}, runtime.Streams{})
			return err
		},
		"attach": func(ctx context.Context) error {
			return r.Attach(ctx, &kubepb.AttachRequest{Of: of}, runtime.Streams{})
		},
		"dial": func(ctx context.Context) error {
			_, err := r.Dial(ctx, &kubepb.DialRequest{Of: of, Port: 80})
			return err
		},
		"import": func(ctx context.Context) error { _, err := r.ImportImage(ctx, &bytes.Buffer{}); return err },
	}
	for what, call := range calls {
		if err := call(t.Context()); !errors.Is(err, runtime.ErrUnsupported) || !strings.Contains(err.Error(), "simulated") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, err := r.Images(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}
