//go:build linux

package supervisor

import (
	"encoding/json"
	"time"

	"github.com/holdfast-db/holdfast/internal/pages"
)

const (
	// restAfter is how long after the last call, and restMax how long after the first, a
	// supervisor rests.
	restAfter = 200 * time.Millisecond
	restMax   = 2 * time.Second
	// collectAfter so many calls, half a megabyte of garbage, the heap is given back. The
	// kubelet looks each 20 seconds.
	collectAfter = 200
)

// rest gives back what the last calls needed: the pages of this program, and in time the heap.
type rest struct {
	program pages.Program
	calls   int // Since the heap was given back.
}

// newRest rests for the first time: what the runtime and the packages before this one have
// looked at in order to start is most of the program.
func newRest() *rest {
	r := &rest{program: pages.Find()}
	r.take()
	return r
}

func (r *rest) take() {
	if r.calls >= collectAfter {
		r.calls = 0
		freeOSMemory()
	}
	r.program.Release()
}

// warm has package json look at all types of requests and answers, once and for good: it
// reads descriptions of types all over the program, which are let go before the first call.
func warm() {
	_ = json.Unmarshal([]byte("{}"), &Request{})
	_, _ = json.Marshal(&Answer{})
	_, _ = json.Marshal(&Record{})
}
