package objects

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// An index is compared with the plainest one, while values have from none to many keys.
func TestAnIndexFindsWhatHasAValueHoweverManyThatAre(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	x := newIndex(func(*corev1.Pod) []string { return nil })
	values := map[objectKey][]string{}
	most := 0
	for step := range 20_000 {
		key := objectKey{"default", fmt.Sprint(r.IntN(4 * fewKeys))}
		var is []string
		if r.IntN(4_000) > step%4_000 { // It fills and empties, again and again.
			is = []string{"a", "b", "a"}[r.IntN(2):][:2]
		}
		x.move(key, values[key], is)
		values[key] = is
		for _, v := range []string{"a", "b"} {
			want := map[objectKey]bool{}
			for k, has := range values {
				if slices.Contains(has, v) {
					want[k] = true
				}
			}
			most = max(most, len(want))
			got := map[objectKey]bool{}
			for k := range x.keys(v) {
				got[k] = true
			}
			if !maps.Equal(got, want) {
				t.Fatalf("step %d, value %s: %v, want %v", step, v, got, want)
			}
		}
	}
	if most <= fewKeys {
		t.Errorf("no value had more than %d keys", most)
	}
	for key, is := range values {
		x.move(key, is, nil)
	}
	if len(x.few)+len(x.many) > 0 {
		t.Errorf("what is left: %v %v", x.few, x.many)
	}
}
