package scheduler

import (
	"container/list"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/scheduler/placement"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// journal keeps the last decisions of the pods that were decided last, for Explain.
type journal struct {
	mu struct {
		sync.Mutex
		pods  map[placement.Key]*list.Element // Of *record.
		order *list.List                      // The latest first.
	}
}

// record is of one pod.
type record struct {
	key       placement.Key
	uid       types.UID
	decisions []decided // The newest last.
}

// decided is a decision, and what became of it if that was something else.
type decided struct {
	at   time.Time
	what placement.Decision
	note string
}

func newJournal() *journal {
	j := &journal{}
	j.mu.pods, j.mu.order = map[placement.Key]*list.Element{}, list.New()
	return j
}

func (j *journal) add(p *placement.Pod, at time.Time, d placement.Decision) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := j.mu.pods[p.Key]
	if e == nil {
		e = j.mu.order.PushFront(&record{key: p.Key})
		j.mu.pods[p.Key] = e
	}
	j.mu.order.MoveToFront(e)
	r := e.Value.(*record)
	if r.uid != p.UID { // Another pod of the name.
		r.uid, r.decisions = p.UID, nil
	}
	if len(r.decisions) == decisionsMax {
		r.decisions = append(r.decisions[:0], r.decisions[1:]...)
	}
	r.decisions = append(r.decisions, decided{at: at, what: d})
	if j.mu.order.Len() > podsExplained {
		last := j.mu.order.Remove(j.mu.order.Back()).(*record)
		delete(j.mu.pods, last.key)
	}
}

// note says what became of the last decision about a pod.
func (j *journal) note(k placement.Key, text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e := j.mu.pods[k]; e != nil {
		r := e.Value.(*record)
		r.decisions[len(r.decisions)-1].note = text
	}
}

// of lists what was decided about a pod, the newest first.
func (j *journal) of(k placement.Key) []*kubepb.Decision {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := j.mu.pods[k]
	if e == nil {
		return nil
	}
	r := e.Value.(*record)
	out := make([]*kubepb.Decision, 0, len(r.decisions))
	for i := len(r.decisions) - 1; i >= 0; i-- {
		out = append(out, r.decisions[i].message())
	}
	return out
}

func (d *decided) message() *kubepb.Decision {
	m := &kubepb.Decision{Time: d.at.UnixNano(), Node: d.what.Node, Nodes: int32(d.what.Looked), Note: d.note}
	for _, r := range d.what.Reasons {
		m.Reasons = append(m.Reasons, &kubepb.Reason{Plugin: r.Plugin.String(), Text: r.Text, Nodes: int32(r.Nodes)})
	}
	for _, s := range d.what.Scores {
		score := &kubepb.Score{Node: s.Node, Total: s.Total, Plugins: map[string]int64{}}
		for _, p := range s.Plugins {
			score.Plugins[p.Plugin.String()] = p.Points
		}
		m.Scores = append(m.Scores, score)
	}
	return m
}
