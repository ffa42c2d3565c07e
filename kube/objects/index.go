package objects

import (
	"iter"
	"maps"
	"slices"

	"github.com/holdfast-db/holdfast/kube/api"
)

// fewKeys are those that are looked through. A map of the one key that a value mostly has
// would take ten times as much memory; a slice of thousands, as of the pods of one
// ReplicaSet, would be moved with each change of one.
const fewKeys = 16

// index finds objects by values that a function takes from them.
type index[T api.Object] struct {
	values func(T) []string
	few    map[string][]objectKey
	many   map[string]map[objectKey]struct{}
}

func newIndex[T api.Object](values func(T) []string) *index[T] {
	return &index[T]{values: values, few: map[string][]objectKey{}, many: map[string]map[objectKey]struct{}{}}
}

// move has an object found by other values than before, if these are others.
func (x *index[T]) move(key objectKey, was, is []string) {
	if slices.Equal(was, is) {
		return
	}
	for _, v := range was {
		x.remove(v, key)
	}
	for _, v := range is {
		x.add(v, key)
	}
}

func (x *index[T]) add(value string, key objectKey) {
	if many := x.many[value]; many != nil {
		many[key] = struct{}{}
		return
	}
	few := x.few[value]
	switch {
	case slices.Contains(few, key):
	case len(few) < fewKeys:
		x.few[value] = append(few, key)
	default:
		many := map[objectKey]struct{}{key: {}}
		for _, k := range few {
			many[k] = struct{}{}
		}
		x.many[value] = many
		delete(x.few, value)
	}
}

func (x *index[T]) remove(value string, key objectKey) {
	if many := x.many[value]; many != nil {
		if delete(many, key); len(many) == 0 {
			delete(x.many, value)
		}
		return
	}
	few := x.few[value]
	at := slices.Index(few, key)
	switch {
	case at < 0:
	case len(few) == 1:
		delete(x.few, value)
	default:
		x.few[value] = slices.Delete(few, at, at+1)
	}
}

// keys are those of a value, in no order.
func (x *index[T]) keys(value string) iter.Seq[objectKey] {
	if many := x.many[value]; many != nil {
		return maps.Keys(many)
	}
	return slices.Values(x.few[value])
}
