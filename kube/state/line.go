package state

import (
	"context"
	"slices"
	"sync"
)

// lines hold writes back that lost against others: one line for each key that was
// another by the time they committed. The first of a line tries, and writes of the key
// that come later stand behind it, so that each has its turn however many there are.
// Those of other processes are not held back.
type lines struct {
	mu struct {
		sync.Mutex
		waiting map[string][]chan struct{} // By key, behind the first.
	}
}

// stand returns when a write is the first of the line of a key. It tells whether it
// waited: the key may be another then.
func (l *lines) stand(ctx context.Context, key string) (waited bool, err error) {
	l.mu.Lock()
	waiting, others := l.mu.waiting[key]
	if !others {
		if l.mu.waiting == nil {
			l.mu.waiting = map[string][]chan struct{}{}
		}
		l.mu.waiting[key] = nil
		l.mu.Unlock()
		return false, nil
	}
	turn := make(chan struct{})
	l.mu.waiting[key] = append(waiting, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return true, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.mu.waiting[key], turn); i >= 0 {
		l.mu.waiting[key] = slices.Delete(l.mu.waiting[key], i, i+1)
	} else {
		l.nextLocked(key) // Its turn came at the same time.
	}
	return true, ctx.Err()
}

// leave lets the next of a line try.
func (l *lines) leave(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nextLocked(key)
}

func (l *lines) nextLocked(key string) {
	waiting := l.mu.waiting[key]
	if len(waiting) == 0 {
		delete(l.mu.waiting, key)
		return
	}
	close(waiting[0])
	l.mu.waiting[key] = waiting[1:]
}

// of is the first of some keys that has a line. Empty: none has.
func (l *lines) of(keys []wrote) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.waiting) == 0 {
		return ""
	}
	for i := range keys {
		if _, ok := l.mu.waiting[keys[i].key]; ok {
			return keys[i].key
		}
	}
	return ""
}

// stand has a write stand in the line of a key, and in no other: two that stood in two
// could wait for each other.
func (a *attempt) stand(ctx context.Context, key string) error {
	if key == "" || key == a.standing {
		return nil
	}
	a.leave()
	waited, err := a.service.lines.stand(ctx, key)
	if err != nil {
		return err
	}
	a.standing = key
	if waited {
		return a.refresh(ctx)
	}
	return nil
}

// leave ends the standing of a write, if it stands anywhere.
func (a *attempt) leave() {
	if a.standing != "" {
		a.service.lines.leave(a.standing)
		a.standing = ""
	}
}

// lostBy is the key that others were faster with. Empty: all are as they were read.
func (a *attempt) lostBy() string {
	for i := range a.reads {
		r := &a.reads[i]
		if now, known := a.fresh[r.key]; known && now.GetModRevision() != r.kv.GetModRevision() {
			return r.key
		}
	}
	return ""
}
