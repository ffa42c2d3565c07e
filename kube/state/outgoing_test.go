package state

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/proto/codec"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func TestEventsGoOutAsTheMessageThatTheyAre(t *testing.T) {
	want := &kubepb.WatchResponse{}
	var out outgoing
	for i, size := range []int{0, 100, 5000, 20_000, 1} { // Those above 4 kB are not copied.
		e := &kubepb.WatchEvent{Type: kubepb.WatchEvent_Type(i % 3), Object: &kubepb.Object{Kind: "Pod", Name: "a", ResourceVersion: 7, Raw: make([]byte, size)}}
		want.Events = append(want.Events, e)
		object, err := e.Object.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		part := wireEvent{e.Type, object}
		out.wire = append(out.wire, part)
		out.size += part.all()
	}
	sent, err := codec.New().Marshal(&out)
	if err != nil {
		t.Fatal(err)
	}
	b, got := sent.Materialize(), &kubepb.WatchResponse{}
	if err := got.UnmarshalVT(b); err != nil || !proto.Equal(got, want) || len(b) != out.ReadySize() {
		t.Errorf("%v, %d bytes of %d: %v", err, len(b), out.ReadySize(), got)
	}
}
