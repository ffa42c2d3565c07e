package server

import (
	"context"
	"slices"

	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/proto/codec"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// kvService answers etcdserverpb.KV.
type kvService struct {
	pb.UnimplementedKVServer
	*core
}

// kvDesc is the generated description of the service, but that Range answers
// with bytes that are encoded already.
func kvDesc() *grpc.ServiceDesc {
	d := pb.KV_ServiceDesc
	d.Methods = slices.Clone(d.Methods)
	for i := range d.Methods {
		if d.Methods[i].MethodName == "Range" {
			d.Methods[i].Handler = handleRange
		}
	}
	return &d
}

func handleRange(srv any, ctx context.Context, decode func(any) error, through grpc.UnaryServerInterceptor) (any, error) {
	r := &pb.RangeRequest{}
	if err := decode(r); err != nil {
		return nil, err
	}
	answer := func(ctx context.Context, req any) (any, error) {
		return srv.(*kvService).read(ctx, req.(*pb.RangeRequest))
	}
	if through == nil {
		return answer(ctx, r)
	}
	return through(ctx, r, &grpc.UnaryServerInfo{Server: srv, FullMethod: pb.KV_Range_FullMethodName}, answer)
}

func (s *kvService) read(ctx context.Context, r *pb.RangeRequest) (*codec.RangeReady, error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	if !r.Serializable {
		if err := s.linearize(ctx); err != nil {
			return nil, toWire(err)
		}
	}
	if err := s.meet(ctx); err != nil {
		return nil, toWire(err)
	}
	store, err := s.replica.Use()
	if err != nil {
		return nil, toWire(err)
	}
	defer store.Release()
	v := store.View()
	defer v.Release()
	if s.authOn() { // After the view: what comes later than a permission was taken away is not in it.
		if err := s.permit(ctx, func(a *auth.Asker) error { return a.Range(r) }); err != nil {
			return nil, toWire(err)
		}
	}
	res, err := v.Range(ctx, statemachine.RangeArgs(r))
	if err != nil {
		return nil, toWire(err)
	}
	s.replica.Machine.Counters.Ranges.Add(1)
	h := s.headerWithoutRevision()
	h.Revision = int64(res.Revision)
	return &codec.RangeReady{Header: h, KVs: res.KVs, More: res.More, Count: res.Count}, nil
}

func (s *kvService) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	if err := checkPut(r); err != nil {
		return nil, err
	}
	v, err := s.propose(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_Put{Put: r}})
	if err != nil {
		return nil, toWire(err)
	}
	answer := v.(*pb.PutResponse)
	s.fill(answer.Header)
	return answer, nil
}

func (s *kvService) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	if err := checkDelete(r); err != nil {
		return nil, err
	}
	v, err := s.propose(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_DeleteRange{DeleteRange: r}})
	if err != nil {
		return nil, toWire(err)
	}
	answer := v.(*pb.DeleteRangeResponse)
	s.fill(answer.Header)
	return answer, nil
}

func (s *kvService) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := checkTxn(r, s.cfg.TxnOpsMax); err != nil {
		return nil, err
	}
	answer, err := s.txn(ctx, r)
	if err != nil {
		return nil, toWire(err)
	}
	s.fill(answer.Header)
	return answer, nil
}

func (s *kvService) txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if !statemachine.ReadOnly(r) {
		v, err := s.propose(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_Txn{Txn: r}})
		if err != nil {
			return nil, err
		}
		return v.(*pb.TxnResponse), nil
	}
	if !statemachine.Serializable(r) {
		if err := s.linearize(ctx); err != nil {
			return nil, err
		}
	}
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
	if s.authOn() {
		if err := s.permit(ctx, func(a *auth.Asker) error { return a.Txn(r) }); err != nil {
			return nil, err
		}
	}
	return statemachine.ReadTxn(ctx, v, r)
}

func (s *kvService) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	v, err := s.propose(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_Compaction{Compaction: r}})
	if err != nil {
		return nil, toWire(err)
	}
	if r.Physical {
		if err := s.waitMerged(ctx); err != nil {
			return nil, toWire(err)
		}
	}
	answer := v.(*pb.CompactionResponse)
	s.fill(answer.Header)
	return answer, nil
}

func (s *kvService) waitMerged(ctx context.Context) error {
	store, err := s.replica.Use()
	if err != nil {
		return err
	}
	defer store.Release()
	return store.WaitMerged(ctx)
}
