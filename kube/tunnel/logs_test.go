package tunnel

import (
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func TestARequestBecomesOptionsByTheClockOfTheNode(t *testing.T) {
	now, two := time.Unix(1000, 0), int64(2)
	for _, c := range []struct {
		r    *kubepb.LogsRequest
		want logfile.Options
	}{
		{&kubepb.LogsRequest{}, logfile.Options{Tail: -1}},
		{&kubepb.LogsRequest{TailLines: &two, Follow: true, Timestamps: true, LimitBytes: 9}, logfile.Options{Tail: 2, Follow: true, Timestamps: true, BytesMax: 9}},
		{&kubepb.LogsRequest{SinceSeconds: 10}, logfile.Options{Tail: -1, Since: time.Unix(990, 0)}},
		{&kubepb.LogsRequest{SinceTime: 5e9}, logfile.Options{Tail: -1, Since: time.Unix(5, 0)}},
	} {
		if got := LogOptions(c.r, now); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.r, got, c.want)
		}
	}
	for _, seconds := range []int64{300 * 366 * 86400, 1 << 62} { // A duration holds 292 years.
		if got := LogOptions(&kubepb.LogsRequest{SinceSeconds: seconds}, now).Since; got.After(time.Unix(0, 0)) {
			t.Errorf("since %d seconds ago: %v", seconds, got)
		}
	}
	after := LogOptions(&kubepb.LogsRequest{After: &kubepb.LogPlace{Attempt: 3, File: "f", Offset: 9, Open: "stdout", Since: 5e9}}, now).After
	if want := (logfile.Place{File: "f", Offset: 9, Open: "stdout", Since: time.Unix(5, 0)}); *after != want {
		t.Errorf("after a place: %+v, want %+v", after, want)
	}
}
