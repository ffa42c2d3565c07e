package tunnel

import (
	"math"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// secondsMax are as many as a duration can hold: nothing is as old.
const secondsMax = math.MaxInt64 / int64(time.Second)

// LogOptions are those of a request, by the clock of the node.
func LogOptions(r *kubepb.LogsRequest, now time.Time) logfile.Options {
	o := logfile.Options{Tail: -1, Timestamps: r.GetTimestamps(), BytesMax: r.GetLimitBytes(), Follow: r.GetFollow()}
	if r.TailLines != nil {
		o.Tail = r.GetTailLines()
	}
	if s := r.GetSinceSeconds(); s > 0 {
		o.Since = now.Add(-time.Duration(min(s, secondsMax)) * time.Second)
	}
	if ns := r.GetSinceTime(); ns != 0 {
		o.Since = time.Unix(0, ns)
	}
	if p := r.GetAfter(); p != nil {
		o.After = &logfile.Place{File: p.GetFile(), Offset: p.GetOffset(), Open: p.GetOpen()}
		if p.GetSince() != 0 {
			o.After.Since = time.Unix(0, p.GetSince())
		}
	}
	return o
}
