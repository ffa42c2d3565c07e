package recipe

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Isolation says what a transaction may overlook.
type Isolation int

// From strict to lax.
const (
	// SerializableSnapshot reads from one revision, and fails to commit if what
	// it read or writes has changed since.
	SerializableSnapshot Isolation = iota
	// Serializable reads from one revision, and looks only at what it read.
	Serializable
	// RepeatableReads reads each key once, each at its own revision.
	RepeatableReads
	// ReadCommitted does not look at what others did.
	ReadCommitted
)

// STM is a transaction in the making: reads are remembered, writes wait.
type STM struct {
	ctx       context.Context
	client    *client.Client
	isolation Isolation
	revision  int64 // At which it reads; of its first read. Zero before.
	reads     map[string]*mvccpb.KeyValue
	writes    map[string]client.Op
	values    map[string]string // Of writes that are puts.
}

// Transact calls f until what it did could be committed as if nobody else had
// done anything meanwhile. An error of f ends it. One of the commit that is
// ErrUnknownOutcome leaves open whether f's writes happened: to call f again
// could do them twice.
func Transact(ctx context.Context, c *client.Client, isolation Isolation, f func(*STM) error) error {
	for {
		s := &STM{
			ctx: ctx, client: c, isolation: isolation,
			reads: map[string]*mvccpb.KeyValue{}, writes: map[string]client.Op{}, values: map[string]string{},
		}
		err := f(s)
		if err == nil {
			var done bool
			if done, err = s.commit(); done {
				return nil
			}
		}
		if errors.Is(err, client.ErrCompacted) && ctx.Err() == nil {
			continue // The revision it read from is gone: once more from a newer one.
		}
		if err != nil {
			return err
		}
	}
}

// Get returns the value of a key, "" if there is none.
func (s *STM) Get(key string) (string, error) {
	if _, ok := s.writes[key]; ok {
		return s.values[key], nil
	}
	kv, err := s.read(key)
	return string(kv.GetValue()), err
}

// Revision returns the revision that changed a key last before this
// transaction, 0 if there is none.
func (s *STM) Revision(key string) (int64, error) {
	kv, err := s.read(key)
	return kv.GetModRevision(), err
}

func (s *STM) read(key string) (*mvccpb.KeyValue, error) {
	if kv, ok := s.reads[key]; ok {
		return kv, nil
	}
	g := client.Get{Range: client.One(key)}
	if s.isolation <= Serializable {
		g.Revision = s.revision
	}
	r, err := s.client.Get(s.ctx, g)
	if err != nil {
		return nil, err
	}
	if s.revision == 0 {
		s.revision = r.Header.Revision
	}
	var kv *mvccpb.KeyValue
	if len(r.Kvs) > 0 {
		kv = r.Kvs[0]
	}
	s.reads[key] = kv
	return kv, nil
}

// Put writes a key.
func (s *STM) Put(key, value string) {
	s.writes[key] = client.Put{Key: key, Value: []byte(value)}
	s.values[key] = value
}

// Delete removes a key.
func (s *STM) Delete(key string) {
	s.writes[key] = client.Delete{Range: client.One(key)}
	delete(s.values, key)
}

func (s *STM) commit() (bool, error) {
	var txn client.Txn
	if s.isolation < ReadCommitted {
		for _, key := range slices.Sorted(maps.Keys(s.reads)) {
			txn.If = append(txn.If, client.IfModified(key, client.Equal, s.reads[key].GetModRevision()))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.writes)) {
		txn.Then = append(txn.Then, s.writes[key])
		if _, read := s.reads[key]; s.isolation == SerializableSnapshot && s.revision > 0 && !read {
			txn.If = append(txn.If, client.IfModified(key, client.Less, s.revision+1))
		}
	}
	if len(txn.Then) == 0 && s.isolation <= Serializable {
		return true, nil // All was read at one revision.
	}
	r, err := s.client.Txn(s.ctx, txn)
	if err != nil {
		return false, err
	}
	return r.Succeeded, nil
}
