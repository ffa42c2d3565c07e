package raftnode

import (
	"errors"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
)

// counting takes entries and counts their requests.
type counting struct {
	StateMachine
	entries, requests int
}

func (c *counting) Apply(entries []entry.Entry) ([]entry.Answer, error) {
	for i := range entries {
		c.entries++
		c.requests += len(entries[i].Requests)
		if conf := entries[i].Conf; conf != nil {
			conf.Resolve(true)
		}
	}
	return make([]entry.Answer, c.requests), nil
}

// FuzzEntries commits entries with anything in them. An entry of all members is
// refused by each in the same way, and never ends one by a panic.
func FuzzEntries(f *testing.F) {
	f.Add(entry.AppendBatch(nil, &entry.Batch{Time: 5, Requests: someRequests()}), byte(0))
	f.Add([]byte{}, byte(0))
	change, err := proto.Marshal(addLearner(9))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(change, byte(2))
	old, err := proto.Marshal(&raftpb.ConfChange{NodeId: new(uint64(3))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(old, byte(1))
	f.Fuzz(func(t *testing.T, data []byte, kind byte) {
		machine, published := &counting{}, ident.Index(0)
		answers := 0
		x := Executor{
			Machine: machine, Publish: func(index ident.Index) { published = index },
			Answer: func(*entry.Answer) { answers++ }, Settled: func(ident.Term) {},
			Resolve: func(ident.Index, *raftpb.ConfChangeV2, bool) *raftpb.ConfState { return &raftpb.ConfState{} },
		}
		e := &raftpb.Entry{Index: new(uint64(7)), Term: new(uint64(2)), Type: raftpb.EntryType(kind % 3).Enum(), Data: data}
		err := x.Apply([]*raftpb.Entry{normal(6, 2, ""), e})
		switch {
		case err != nil && !errors.Is(err, ErrEntry):
			t.Error(err)
		case err == nil && (published != 7 || machine.entries != 2 || answers < machine.requests):
			t.Errorf("published %d, %d entries, %d answers of %d requests", published, machine.entries, answers, machine.requests)
		}
	})
}
