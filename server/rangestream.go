package server

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/proto/codec"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

var (
	errStreamSorted   = status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	errStreamFiltered = status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
)

func checkRangeStream(r *pb.RangeRequest) error {
	if err := checkRange(r); err != nil {
		return err
	}
	if r.SortTarget != pb.RangeRequest_KEY || r.SortOrder == pb.RangeRequest_DESCEND {
		return errStreamSorted
	}
	if r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0 {
		return errStreamFiltered
	}
	return nil
}

// RangeStream answers a range in parts, all of one revision, so that no side
// holds more than a part of it. The last part has what is said of the whole. There
// are so many streams at a time that their parts fit into the memory meant for them.
func (s *kvService) RangeStream(r *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	if err := checkRangeStream(r); err != nil {
		return err
	}
	if !r.Serializable {
		if err := s.linearize(stream.Context()); err != nil {
			return toWire(err)
		}
	}
	return s.sendSlowly(stream.Context(), "range", &s.ranges, s.cfg.rangeStreamsMax(), errTooManyRangeStreams, errRangeStalled, func(ctx context.Context, took func()) error {
		return s.sendRange(ctx, r, stream, took)
	})
}

func (s *kvService) sendRange(ctx context.Context, r *pb.RangeRequest, stream pb.KV_RangeStreamServer, took func()) error {
	args := statemachine.RangeArgs(r)
	args.PartBytes = rangePartBytes
	var head ident.Revision
	var count int64
	for {
		res, err := s.readPart(ctx, r, args)
		if err != nil {
			return toWire(err)
		}
		if head == 0 {
			head = res.Revision
			if args.Revision <= 0 {
				args.Revision = head
			}
		}
		count += res.Count
		part := &codec.RangePartReady{RangeReady: codec.RangeReady{KVs: res.KVs}}
		if res.Next == nil {
			part.Header = s.headerWithoutRevision()
			part.Header.Revision = int64(head)
			part.More, part.Count = res.More, count
		}
		took() // The one before; this one from now on.
		if err := stream.SendMsg(part); err != nil || res.Next == nil {
			return err
		}
		args.Key = res.Next
		if args.Limit > 0 {
			args.Limit -= int64(len(res.KVs))
		}
	}
}

// readPart holds the store no longer than it reads: a client that takes its time
// must not keep a compaction from being merged. If one overtakes it, the next
// part fails.
func (s *kvService) readPart(ctx context.Context, r *pb.RangeRequest, args mvcc.RangeArgs) (*mvcc.RangeResult, error) {
	if err := s.meet(ctx); err != nil {
		return nil, err
	}
	store, err := s.replica.Use()
	if err != nil {
		return nil, err
	}
	defer store.Release()
	v := store.View()
	defer v.Release()
	if s.authOn() { // With each part: a grant that is taken back ends the stream.
		if err := s.permit(ctx, func(a *auth.Asker) error { return a.Range(r) }); err != nil {
			return nil, err
		}
	}
	s.replica.Machine.Counters.Ranges.Add(1)
	return v.Range(ctx, args)
}
