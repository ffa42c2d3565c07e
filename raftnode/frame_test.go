package raftnode

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/ident"
)

func someRequests() []entry.Request {
	return []entry.Request{
		{ID: ident.RequestID{Member: 0xa1, Nonce: 7, Sequence: 1}, Data: []byte("put a")},
		{ID: ident.RequestID{Member: 0xa1, Nonce: 7, Sequence: 300}, Data: []byte("put b")},
	}
}

func addLearner(id uint64) *raftpb.ConfChangeV2 {
	return &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(id)}}}
}

func TestFramesHaveTheFormOfTheirVersion(t *testing.T) {
	conf, err := encodeForwardConf(6, addLearner(9), someRequests()[0])
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, frame := range []struct {
		name string
		data []byte
	}{
		{"forward", encodeForward(5, someRequests())},
		{"forward-conf", conf},
		{"refusal-not-leader", encodeRefusal(ErrNotLeader, someRequests())},
		{"refusal-conf-pending", encodeRefusal(ErrConfPending, someRequests()[:1])},
		{"refusal-conf-invalid", encodeRefusal(ErrConfInvalid, someRequests()[:1])},
	} {
		text.WriteString(frame.name + " " + hex.EncodeToString(frame.data) + "\n")
	}
	golden.File(t, "testdata/v1/frames.txt", text.String())
}

func TestForwardsAndRefusalsComeBackAsTheyWere(t *testing.T) {
	list, err := DecodeForward(3, encodeForward(5, someRequests()))
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for i, p := range list {
		want := someRequests()[i]
		if p.From != 3 || p.Term != 5 || p.Request.ID != want.ID || !bytes.Equal(p.Request.Data, want.Data) || p.Conf != nil {
			t.Errorf("request %d: %+v", i, p)
		}
	}
	data, err := encodeForwardConf(6, addLearner(9), someRequests()[0])
	if err != nil {
		t.Fatal(err)
	}
	list, err = DecodeForward(3, data)
	if err != nil || len(list) != 1 || list[0].Term != 6 || list[0].Conf.Changes[0].GetNodeId() != 9 || list[0].Request.ID.Sequence != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	for _, reason := range []error{ErrNotLeader, ErrConfPending, ErrConfInvalid} {
		got, ids, err := DecodeRefusal(encodeRefusal(reason, someRequests()))
		if err != nil || !errors.Is(got, reason) || len(ids) != 2 || ids[1] != someRequests()[1].ID {
			t.Errorf("%v: %v %v %v", reason, got, ids, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(encodeForward(5, someRequests()))
	conf, err := encodeForwardConf(6, addLearner(9), someRequests()[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(conf)
	f.Add(encodeRefusal(ErrNotLeader, someRequests()))
	f.Fuzz(func(t *testing.T, data []byte) {
		if list, err := DecodeForward(1, data); err == nil {
			for _, p := range list {
				if p.Conf != nil {
					_ = checkChange(&raftpb.ConfState{Voters: []uint64{1, 2, 3}}, p.Conf)
				}
			}
		} else if !errors.Is(err, ErrFrame) {
			t.Error(err)
		}
		if _, _, err := DecodeRefusal(data); err != nil && !errors.Is(err, ErrFrame) {
			t.Error(err)
		}
	})
}
