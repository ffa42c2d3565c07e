package kubernetes

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// startWatches starts watches of all objects and of each namespace, which go on
// until they have seen the last object.
func (l *apiLoad) startWatches(ctx context.Context) *sync.WaitGroup {
	all := &sync.WaitGroup{}
	scopes := []string{resources[0] + "/", resources[1] + "/"}
	eachNamespace(func(scope string) { scopes = append(scopes, scope) })
	for i, scope := range scopes {
		all.Go(func() { l.inform(ctx, scope, rand.New(rand.NewPCG(l.seed, uint64(1000+i)))) })
	}
	return all
}

// inform lists and watches, as an informer does: it goes on where a watch ended,
// and begins anew if that is not to be had any more.
func (l *apiLoad) inform(ctx context.Context, scope string, rng *rand.Rand) {
	last := scope + lastName // In a namespace, or in the last one of all.
	if strings.Count(scope, "/") == 1 {
		last = scope + "ns-" + strconv.Itoa(namespaces-1) + "/" + lastName
	}
	ended := false
	for ctx.Err() == nil && !ended {
		least := l.acknowledged.Load()
		v, err := l.list(ctx, scope, url.Values{}, 0)
		if err != nil {
			wait(ctx, 50*time.Millisecond)
			continue
		}
		v.what, v.least = "list before a watch", least
		l.note(v)
		w := told{what: "watch", scope: scope, from: v.revision, until: v.revision}
		_, ended = v.objects[last]
		for ctx.Err() == nil && !ended {
			query := url.Values{"resourceVersion": {strconv.FormatInt(w.until, 10)}, "timeoutSeconds": {strconv.Itoa(3 + rng.IntN(8))}}
			err := l.watch(ctx, scope, query, func(e event) bool {
				c := w.add(e)
				ended = c.key == last
				return ended
			})
			if errors.Is(err, errExpired) {
				l.relisted.Add(1)
				break
			}
			if !ended {
				l.resumed.Add(1)
				wait(ctx, 10*time.Millisecond)
			}
		}
		l.keep(w)
	}
}

// glance watches for a moment: from a version that is over, or from the state
// that the watch itself begins with.
func (l *apiLoad) glance(ctx context.Context, rng *rand.Rand, _ uint64) {
	scope := resources[rng.IntN(len(resources))] + "/"
	query := url.Values{"timeoutSeconds": {strconv.Itoa(1 + rng.IntN(2))}}
	w := told{what: "watch of the past", scope: scope, from: max(l.acknowledged.Load()-rng.Int64N(2000), 1)}
	first := rng.IntN(2) == 0
	v := view{what: "beginning of a watch", scope: scope, least: l.acknowledged.Load(), objects: map[string]int64{}}
	if first {
		w.what = "watch after its beginning"
		query.Set("sendInitialEvents", "true")
		query.Set("resourceVersionMatch", string(metav1.ResourceVersionMatchNotOlderThan))
	} else {
		query.Set("resourceVersion", strconv.FormatInt(w.from, 10))
	}
	w.until = w.from
	err := l.watch(ctx, scope, query, func(e event) bool {
		switch {
		case !first:
			w.add(e)
		case e.Object.Annotations[metav1.InitialEventsAnnotationKey] == "true":
			first = false
			v.revision = revisionOf(e.Object.ResourceVersion)
			w.from, w.until = v.revision, v.revision
			l.note(v)
		default:
			v.objects[keyOf(strings.TrimSuffix(scope, "/"), &e.Object.object)] = revisionOf(e.Object.ResourceVersion)
		}
		return false
	})
	if errors.Is(err, errExpired) {
		l.expired.Add(1)
	}
	if !first {
		l.keep(w)
	}
	wait(ctx, 10*time.Millisecond) // It may have been refused.
}

// add takes an event, and what it says about all before it.
func (w *told) add(e event) change {
	resource, _, _ := strings.Cut(w.scope, "/")
	revision := revisionOf(e.Object.ResourceVersion)
	w.until = max(w.until, revision)
	if e.Type == "BOOKMARK" {
		return change{}
	}
	c := change{key: keyOf(resource, &e.Object.object), revision: revision, deleted: e.Type == "DELETED", stamp: e.Object.Annotations[stampNote]}
	w.changes = append(w.changes, c)
	return c
}

func (l *apiLoad) keep(w told) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.told = append(l.mu.told, w)
}
