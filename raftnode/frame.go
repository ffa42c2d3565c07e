package raftnode

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
)

// What members tell each other besides Raft's messages, drawn in
// docs/format/forward.md:
//
//	forward:  | 1 | term (8) | batch of requests |
//	forward:  | 2 | term (8) | ConfChangeV2, its context a batch of one request |
//	refusal:  | reason | batch of the refused requests, without data |
const (
	forwardRequests    = 1
	forwardConf        = 2
	forwardHeaderBytes = 1 + 8

	refusedNotLeader   = 1 // May be tried again.
	refusedConfPending = 2
	refusedConfInvalid = 3
)

func encodeForward(term ident.Term, requests []entry.Request) []byte {
	batch := entry.Batch{Requests: requests}
	data := append(make([]byte, 0, forwardHeaderBytes+entry.BatchSizeMax(&batch)), forwardRequests)
	return entry.AppendBatch(binary.LittleEndian.AppendUint64(data, uint64(term)), &batch)
}

func encodeForwardConf(term ident.Term, change *raftpb.ConfChangeV2, request entry.Request) ([]byte, error) {
	change = proto.CloneOf(change)
	change.Context = entry.AppendBatch(nil, &entry.Batch{Requests: []entry.Request{request}})
	data := binary.LittleEndian.AppendUint64([]byte{forwardConf}, uint64(term))
	data, err := proto.MarshalOptions{}.MarshalAppend(data, change)
	if err != nil {
		return nil, fmt.Errorf("encode configuration change: %w", err)
	}
	return data, nil
}

// DecodeForward reads a frame of KindForward. The data is not copied.
func DecodeForward(from ident.MemberID, data []byte) ([]Proposal, error) {
	if len(data) < forwardHeaderBytes {
		return nil, fmt.Errorf("forward of %d bytes: %w", len(data), ErrFrame)
	}
	term := ident.Term(binary.LittleEndian.Uint64(data[1:]))
	rest := data[forwardHeaderBytes:]
	switch data[0] {
	case forwardRequests:
		batch, err := entry.DecodeBatch(rest, nil)
		if err != nil {
			return nil, errors.Join(ErrFrame, err)
		}
		list := make([]Proposal, len(batch.Requests))
		for i, r := range batch.Requests {
			list[i] = Proposal{Request: r, From: from, Term: term}
		}
		return list, nil
	case forwardConf:
		change := &raftpb.ConfChangeV2{}
		if err := proto.Unmarshal(rest, change); err != nil {
			return nil, errors.Join(ErrFrame, err)
		}
		batch, err := entry.DecodeBatch(change.Context, nil)
		if err != nil || len(batch.Requests) != 1 {
			return nil, errors.Join(ErrFrame, err)
		}
		return []Proposal{{Request: batch.Requests[0], Conf: change, From: from, Term: term}}, nil
	}
	return nil, fmt.Errorf("forward of kind %d: %w", data[0], ErrFrame)
}

func encodeRefusal(reason error, requests []entry.Request) []byte {
	code := byte(refusedNotLeader)
	switch {
	case errors.Is(reason, ErrConfPending):
		code = refusedConfPending
	case errors.Is(reason, ErrConfInvalid):
		code = refusedConfInvalid
	}
	batch := entry.Batch{Requests: make([]entry.Request, len(requests))}
	for i := range requests {
		batch.Requests[i].ID = requests[i].ID
	}
	return entry.AppendBatch([]byte{code}, &batch)
}

// DecodeRefusal reads a frame of KindAnswer: which requests had no effect, and
// why. Those refused with ErrNotLeader may be proposed again.
func DecodeRefusal(data []byte) (reason error, ids []ident.RequestID, err error) {
	if len(data) == 0 {
		return nil, nil, fmt.Errorf("empty refusal: %w", ErrFrame)
	}
	switch data[0] {
	case refusedNotLeader:
		reason = ErrNotLeader
	case refusedConfPending:
		reason = ErrConfPending
	case refusedConfInvalid:
		reason = ErrConfInvalid
	default:
		return nil, nil, fmt.Errorf("refusal for reason %d: %w", data[0], ErrFrame)
	}
	batch, err := entry.DecodeBatch(data[1:], nil)
	if err != nil {
		return nil, nil, errors.Join(ErrFrame, err)
	}
	for _, r := range batch.Requests {
		ids = append(ids, r.ID)
	}
	return reason, ids, nil
}
