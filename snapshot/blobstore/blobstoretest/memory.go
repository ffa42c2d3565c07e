package blobstoretest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// Memory is a store for tests of what stands above: it fails and delays calls
// as they say. It passes Conformance, as the drivers do.
type Memory struct {
	clock clock.Clock

	mu struct { // Never held while the hook runs.
		sync.Mutex
		objects map[string]object
		writes  int
		hook    func(context.Context, Call) error
	}
}

type object struct {
	data []byte
	blobstore.Object
	tag blobstore.Tag
}

// Verb is a method of a store.
type Verb string

// The verbs.
const (
	Put      Verb = "put"
	Get      Verb = "get"
	GetRange Verb = "get range"
	List     Verb = "list"
	Delete   Verb = "delete"
)

// Call is one call that a hook sees twice: before it does anything, and when it
// is done and about to be answered.
type Call struct {
	Verb Verb
	Name string // For List the prefix.
	Data []byte // Of a Put.
	Done bool
}

// NewMemory returns an empty store, whose times are those of the clock.
func NewMemory(c clock.Clock) *Memory {
	m := &Memory{clock: c}
	m.mu.objects = map[string]object{}
	return m
}

// Hook has f called around each call. It may wait; an error becomes that of the
// call, which before it has prevented it, and after it says nothing about it. For
// List, Done comes before the first object. Nil ends that.
func (m *Memory) Hook(f func(context.Context, Call) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.hook = f
}

// do runs act, which holds the lock, between the two calls of the hook.
func (m *Memory) do(ctx context.Context, call Call, act func() error) error {
	m.mu.Lock()
	hook := m.mu.hook
	m.mu.Unlock()
	if hook == nil {
		hook = func(context.Context, Call) error { return nil }
	}
	err := hook(ctx, call)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		m.mu.Lock()
		err = act()
		m.mu.Unlock()
		call.Done = true
		if failed := hook(ctx, call); failed != nil {
			err = failed
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s in %s: %w", call.Verb, call.Name, m, err)
	}
	return nil
}

func (m *Memory) String() string { return "memory:" }

// Put implements blobstore.Store.
func (m *Memory) Put(ctx context.Context, name string, data []byte, c blobstore.Condition) (blobstore.Tag, error) {
	if err := blobstore.CheckPut(name, data, c); err != nil {
		return "", err
	}
	var tag blobstore.Tag
	err := m.do(ctx, Call{Verb: Put, Name: name, Data: data}, func() error {
		now, there := m.mu.objects[name]
		if c.Absent && there || c.Match != "" && now.tag != c.Match {
			return blobstore.ErrCondition
		}
		m.mu.writes++
		tag = blobstore.Tag(strconv.Itoa(m.mu.writes))
		m.mu.objects[name] = object{
			data: bytes.Clone(data), tag: tag,
			Object: blobstore.Object{Name: name, Size: int64(len(data)), Modified: m.clock.Wall()},
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return tag, nil
}

func (m *Memory) read(ctx context.Context, call Call) (object, error) {
	var o object
	err := m.do(ctx, call, func() error {
		var there bool
		if o, there = m.mu.objects[call.Name]; !there {
			return blobstore.ErrNotFound
		}
		return nil
	})
	return o, err
}

// Get implements blobstore.Store.
func (m *Memory) Get(ctx context.Context, name string) ([]byte, blobstore.Tag, error) {
	if err := blobstore.CheckName(name); err != nil {
		return nil, "", err
	}
	o, err := m.read(ctx, Call{Verb: Get, Name: name})
	if err != nil {
		return nil, "", err
	}
	return append([]byte{}, o.data...), o.tag, nil
}

// GetRange implements blobstore.Store.
func (m *Memory) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if err := blobstore.CheckRange(name, offset, length); err != nil {
		return nil, err
	}
	o, err := m.read(ctx, Call{Verb: GetRange, Name: name})
	if err != nil {
		return nil, err
	}
	from := min(offset, o.Size)
	return append([]byte{}, o.data[from:from+min(length, o.Size-from)]...), nil
}

// List implements blobstore.Store.
func (m *Memory) List(ctx context.Context, prefix, after string, fn func(blobstore.Object) error) error {
	var found []blobstore.Object
	err := m.do(ctx, Call{Verb: List, Name: prefix}, func() error {
		for name, o := range m.mu.objects {
			if strings.HasPrefix(name, prefix) && name > after {
				found = append(found, o.Object)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b blobstore.Object) int { return strings.Compare(a.Name, b.Name) })
	for _, o := range found {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(o); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements blobstore.Store.
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := blobstore.CheckName(name); err != nil {
		return err
	}
	return m.do(ctx, Call{Verb: Delete, Name: name}, func() error {
		delete(m.mu.objects, name)
		return nil
	})
}

// Close implements blobstore.Store. What was written stays.
func (m *Memory) Close() error { return nil }
