package state

import (
	"bytes"
	"sync"

	"github.com/holdfast-db/holdfast/kube/api"
)

// makings are objects of writes that are under way: whoever follows the store meets
// their stored form, and need not decode it. What has another stored form is not told.
type makings struct {
	mu    sync.Mutex
	byKey map[string]making
}

type making struct {
	value  []byte
	object api.Object // That value encodes; whoever takes it has it for himself.
}

// forget leaves what is under way to be decoded.
func (m *makings) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byKey = map[string]making{}
}

func (m *makings) add(key string, value []byte, o api.Object) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byKey[key] = making{value, o}
}

// take returns what has this stored form, once. Nil: nothing has.
func (m *makings) take(key string, value []byte) api.Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	is, ok := m.byKey[key]
	if !ok || !bytes.Equal(is.value, value) {
		return nil
	}
	delete(m.byKey, key)
	return is.object
}
