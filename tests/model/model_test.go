package model

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// state shows everything that a model knows.
func state(s *Store) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d %d %v\n", s.Revision(), s.Compacted(), s.Leases())
	for _, kv := range s.At(s.Revision()) {
		fmt.Fprintf(&out, "%q=%q %d %d %d %d\n", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
	}
	for id := range int64(10) {
		fmt.Fprintf(&out, "lease %d: %q\n", id, s.LeaseKeys(id))
	}
	for _, e := range s.Events(1, s.Revision()) {
		fmt.Fprintf(&out, "%d %q %q %d\n", e.Type, e.Kv.Key, e.Kv.Value, e.Kv.ModRevision)
	}
	return out.String()
}

func TestACompactionHidesButForgetsNothing(t *testing.T) {
	s := New()
	for _, v := range []string{"1", "2", "3"} {
		if _, err := s.Execute(&pb.PutRequest{Key: []byte("a"), Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Execute(&pb.CompactionRequest{Revision: 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Execute(&pb.RangeRequest{Key: []byte("a"), Revision: 2}); err != ErrCompacted {
		t.Fatalf("reading what was compacted: %v", err)
	}
	if kv := s.Get("a", 2); string(kv.GetValue()) != "1" || len(s.Events(1, 4)) != 3 || len(s.Events(3, 3)) != 1 || len(s.At(2)) != 1 {
		t.Fatalf("at revision 2 was %v, events are %v", kv, s.Events(1, 4))
	}
}

func TestAFailedRequestChangesNothing(t *testing.T) {
	seed := rand.Uint64()
	d, s := NewDraw(rand.New(rand.NewPCG(seed, 0))), New()
	failed := 0
	for range 600 {
		before, req := state(s), d.Request(s)
		if _, err := s.Execute(req); err != nil {
			failed++
			if state(s) != before {
				t.Fatalf("seed %d: %s\nfailed with %v, and left\n%s\nof\n%s", seed, show(req), err, state(s), before)
			}
		}
	}
	if failed < 50 {
		t.Fatalf("seed %d: only %d requests failed", seed, failed)
	}
}

func TestUndoForceAndCloneLeadToTheSameState(t *testing.T) {
	seed := rand.Uint64()
	d, s := NewDraw(rand.New(rand.NewPCG(seed, 0))), New()
	for range 400 {
		req := d.Request(s)
		if _, ok := req.(*pb.LeaseRevokeRequest); ok {
			continue // What is undone is what happened to keys.
		}
		before, rev, clone := state(s), s.Revision(), s.Clone()
		if _, err := s.Execute(req); err != nil || s.Revision() == rev {
			continue
		}
		if state(clone) != before {
			t.Fatalf("seed %d: %s\nchanged a clone", seed, show(req))
		}
		after := state(s)
		var events []*mvccpb.Event
		for _, e := range s.Events(rev+1, rev+1) {
			events = append(events, proto.Clone(e).(*mvccpb.Event))
		}
		s.Undo()
		if state(s) != before {
			t.Fatalf("seed %d: %s\nis undone to\n%s\nfrom\n%s", seed, show(req), state(s), before)
		}
		s.Force(events)
		if state(s) != after {
			t.Fatalf("seed %d: %s\nis forced to\n%s\nright is\n%s", seed, show(req), state(s), after)
		}
	}
}
