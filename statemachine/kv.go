package statemachine

import (
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

func (r *request) put(p *pb.PutRequest) (any, error) {
	answer, err := r.putOne(p)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (r *request) putOne(p *pb.PutRequest) (*pb.PutResponse, error) {
	if len(p.Key) == 0 {
		return nil, ErrEmptyKey
	}
	if err := r.checkLease(p); err != nil {
		return nil, err
	}
	prev, err := r.tx.Put(mvcc.PutArgs{
		Key:         p.Key,
		Value:       p.Value,
		Lease:       ident.LeaseID(p.Lease),
		IgnoreValue: p.IgnoreValue,
		IgnoreLease: p.IgnoreLease,
		WantPrev:    p.PrevKv,
	})
	if err != nil {
		return nil, err
	}
	r.m.Counters.Puts.Add(1)
	r.m.Counters.PutBytes.Add(int64(len(p.Key) + len(p.Value)))
	return &pb.PutResponse{Header: r.header(), PrevKv: prev}, nil
}

func (r *request) checkLease(p *pb.PutRequest) error {
	if p.Lease == 0 {
		return nil
	}
	return r.m.Leases.Check(ident.LeaseID(p.Lease))
}

func (r *request) deleteRange(d *pb.DeleteRangeRequest) (any, error) {
	answer, err := r.deleteOne(d)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (r *request) deleteOne(d *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	if len(d.Key) == 0 {
		return nil, ErrEmptyKey
	}
	n, prev, err := r.tx.DeleteRange(d.Key, d.RangeEnd, d.PrevKv)
	if err != nil {
		return nil, err
	}
	r.m.Counters.Deletes.Add(1)
	return &pb.DeleteRangeResponse{Header: r.header(), Deleted: n, PrevKvs: prev}, nil
}

func (r *request) compact(c *pb.CompactionRequest) (any, error) {
	if err := r.tx.Compact(ident.Revision(c.Revision)); err != nil {
		return nil, err
	}
	return &pb.CompactionResponse{Header: r.header()}, nil
}

// RangeArgs says a range request in the words of the store.
func RangeArgs(r *pb.RangeRequest) mvcc.RangeArgs {
	return mvcc.RangeArgs{
		Key:        r.Key,
		End:        r.RangeEnd,
		Revision:   ident.Revision(r.Revision),
		Limit:      r.Limit,
		CountOnly:  r.CountOnly,
		KeysOnly:   r.KeysOnly,
		SortTarget: sortTargets[r.SortTarget],
		SortOrder:  sortOrders[r.SortOrder],
		MinMod:     ident.Revision(r.MinModRevision),
		MaxMod:     ident.Revision(r.MaxModRevision),
		MinCreate:  ident.Revision(r.MinCreateRevision),
		MaxCreate:  ident.Revision(r.MaxCreateRevision),
	}
}

// Values that the protocol does not know were refused before; were they not,
// they would mean the default, on every member alike.
var (
	sortTargets = map[pb.RangeRequest_SortTarget]mvcc.SortTarget{
		pb.RangeRequest_KEY:     mvcc.SortByKey,
		pb.RangeRequest_VERSION: mvcc.SortByVersion,
		pb.RangeRequest_CREATE:  mvcc.SortByCreate,
		pb.RangeRequest_MOD:     mvcc.SortByMod,
		pb.RangeRequest_VALUE:   mvcc.SortByValue,
	}
	sortOrders = map[pb.RangeRequest_SortOrder]mvcc.SortOrder{
		pb.RangeRequest_NONE:    mvcc.SortNone,
		pb.RangeRequest_ASCEND:  mvcc.SortAscend,
		pb.RangeRequest_DESCEND: mvcc.SortDescend,
	}
)

func rangeAnswer(res *mvcc.RangeResult) (*pb.RangeResponse, error) {
	kvs, err := decode(res.KVs)
	if err != nil {
		return nil, err
	}
	return &pb.RangeResponse{
		Header: &pb.ResponseHeader{Revision: int64(res.Revision)},
		Kvs:    kvs,
		More:   res.More,
		Count:  res.Count,
	}, nil
}

func decode(rows [][]byte) ([]*mvccpb.KeyValue, error) {
	kvs := make([]*mvccpb.KeyValue, len(rows))
	for i, row := range rows {
		kvs[i] = &mvccpb.KeyValue{}
		if err := kvs[i].UnmarshalVT(row); err != nil {
			return nil, err
		}
	}
	return kvs, nil
}
