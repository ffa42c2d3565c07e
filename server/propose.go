package server

import (
	"context"
	"errors"
	"time"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/statemachine/alarm"
)

// timeout of a request: what clients wait at most for a cluster that is
// electing a leader.
func (c *core) timeout() time.Duration {
	return requestTimeout + 2*c.cfg.ElectionTimeout
}

// propose puts a command into the log and waits for its answer.
func (c *core) propose(ctx context.Context, cmd *holdfastpb.Command) (any, error) {
	if err := c.sign(ctx, cmd); err != nil {
		return nil, err
	}
	size := cmd.SizeVT()
	if size > c.cfg.RequestBytesMax {
		return nil, errRequestTooLarge
	}
	if err := c.checkQuota(ctx, cmd); err != nil {
		return nil, err
	}
	if err := c.mayAcknowledge(ctx); err != nil {
		return nil, err // Not proposed: it has no effect.
	}
	data := make([]byte, size)
	if _, err := cmd.MarshalToSizedBufferVT(data); err != nil {
		return nil, err
	}
	v, err := c.node.Propose(ctx, data)
	if errors.Is(err, raftnode.ErrNoLeader) {
		return nil, errNotProposed
	}
	if err == nil {
		err = c.archived(ctx)
	}
	if err == nil && c.epoch.open() != nil {
		return nil, errTimeout // It is in the log of a cluster that may have been given up.
	}
	return v, err
}

// checkQuota refuses what would make the store larger than its quota, and
// raises the alarm, which then keeps everybody from writing.
func (c *core) checkQuota(ctx context.Context, cmd *holdfastpb.Command) error {
	cost := costOf(cmd)
	if cost > 0 && c.archiveFull() {
		return errNoSpace // No alarm is needed: it ends by itself, when the archive is back.
	}
	if cost == 0 || c.cfg.QuotaBytes < 0 {
		return nil
	}
	size := c.replica.Store().Bytes()
	if size+cost < c.cfg.QuotaBytes {
		return nil
	}
	own := alarm.Alarm{Member: c.id.Member, Kind: alarm.NoSpace}
	if !c.replica.Machine.Alarms.Has(own) {
		c.log.Warn("database space is exceeded, raising alarm NOSPACE", "quota", c.cfg.QuotaBytes, "size", size)
		_, err := c.setAlarm(asMember(ctx), &pb.AlarmRequest{
			Action:   pb.AlarmRequest_ACTIVATE,
			MemberID: uint64(own.Member),
			Alarm:    pb.AlarmType_NOSPACE,
		})
		if err != nil {
			return err
		}
	}
	return errNoSpace
}

// costOf is what a command may add to the store, 0 when it adds nothing.
func costOf(cmd *holdfastpb.Command) int64 {
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_Put:
		return costOfPut(c.Put)
	case *holdfastpb.Command_Txn:
		return costOfTxn(c.Txn)
	case *holdfastpb.Command_LeaseGrant:
		return leaseOverheadBytes
	}
	return 0
}

func costOfPut(p *pb.PutRequest) int64 {
	return int64(putOverheadBytes + len(p.Key) + len(p.Value))
}

func costOfTxn(t *pb.TxnRequest) int64 {
	var most int64
	for _, branch := range [][]*pb.RequestOp{t.Success, t.Failure} {
		var cost int64
		for _, op := range branch {
			if p := op.GetRequestPut(); p != nil {
				cost += costOfPut(p)
			}
			if nested := op.GetRequestTxn(); nested != nil {
				cost += costOfTxn(nested)
			}
		}
		most = max(most, cost)
	}
	return most
}
