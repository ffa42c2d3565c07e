package statemachine

import (
	"fmt"

	"github.com/holdfast-db/holdfast/internal/assert"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/statemachine/alarm"
)

// request is one command on its way: its transaction, and the rows that the
// typed tables take in once that has committed.
type request struct {
	m     *Machine
	tx    *mvcc.Tx
	term  ident.Term
	index ident.Index // Of the entry.
	rows  []row
}

func (r *request) setRow(table mvcc.Table, key, value []byte) {
	r.tx.SetRow(table, key, value)
	r.rows = append(r.rows, row{table: table, key: key, value: value})
}

func (r *request) deleteRow(table mvcc.Table, key []byte) {
	r.tx.DeleteRow(table, key)
	r.rows = append(r.rows, row{table: table, key: key, gone: true})
}

// execute runs a command whole or not at all.
func (m *Machine) execute(r *request, cmd *holdfastpb.Command) (any, error) {
	value, err := m.dispatch(r, cmd)
	if err != nil {
		r.tx.Abort()
		return nil, err
	}
	r.tx.Commit()
	for _, row := range r.rows {
		if err := m.take(row); err != nil {
			assert.Failf("row made by this machine: %v", err)
		}
	}
	m.Auth.Publish()
	return value, nil
}

func (m *Machine) dispatch(r *request, cmd *holdfastpb.Command) (any, error) {
	if err := m.refusedByAlarm(cmd); err != nil {
		return nil, err
	}
	if err := r.permitted(cmd); err != nil {
		return nil, err
	}
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_Put:
		return r.put(c.Put)
	case *holdfastpb.Command_DeleteRange:
		return r.deleteRange(c.DeleteRange)
	case *holdfastpb.Command_Txn:
		return r.txn(c.Txn)
	case *holdfastpb.Command_Compaction:
		return r.compact(c.Compaction)
	case *holdfastpb.Command_LeaseGrant:
		return r.leaseGrant(c.LeaseGrant)
	case *holdfastpb.Command_LeaseRevoke:
		return r.leaseRevoke(c.LeaseRevoke)
	case *holdfastpb.Command_LeaseExpire:
		return r.leaseExpire(c.LeaseExpire)
	}
	return r.manage(cmd)
}

// manage executes what changes the cluster rather than its keys.
func (r *request) manage(cmd *holdfastpb.Command) (any, error) {
	switch c := cmd.Command.(type) {
	case *holdfastpb.Command_MemberAdd:
		return r.memberAdd(c.MemberAdd)
	case *holdfastpb.Command_MemberRemove:
		return r.memberRemove(c.MemberRemove)
	case *holdfastpb.Command_MemberUpdate:
		return r.memberUpdate(c.MemberUpdate)
	case *holdfastpb.Command_MemberPromote:
		return r.memberPromote(c.MemberPromote)
	case *holdfastpb.Command_MemberPublish:
		return r.memberPublish(c.MemberPublish)
	case *holdfastpb.Command_Alarm:
		return r.alarm(c.Alarm)
	case *holdfastpb.Command_ClusterInit:
		return r.clusterInit(c.ClusterInit)
	}
	return r.manageAuth(cmd)
}

// refusedByAlarm keeps what would make things worse from happening while an
// alarm is on. What gives space back stays allowed.
func (m *Machine) refusedByAlarm(cmd *holdfastpb.Command) error {
	if m.Alarms.On(alarm.Corrupt) {
		switch cmd.Command.(type) {
		case *holdfastpb.Command_Put, *holdfastpb.Command_DeleteRange, *holdfastpb.Command_Txn,
			*holdfastpb.Command_Compaction, *holdfastpb.Command_LeaseGrant, *holdfastpb.Command_LeaseRevoke:
			return ErrCorrupt
		}
	}
	if m.Alarms.On(alarm.NoSpace) {
		switch c := cmd.Command.(type) {
		case *holdfastpb.Command_Put, *holdfastpb.Command_LeaseGrant:
			return ErrNoSpace
		case *holdfastpb.Command_Txn:
			if Puts(c.Txn) {
				return ErrNoSpace
			}
		}
	}
	return nil
}

func (r *request) header() *pb.ResponseHeader {
	return &pb.ResponseHeader{Revision: int64(r.tx.Revision())}
}

func (r *request) alarm(c *holdfastpb.AlarmSet) (any, error) {
	a := alarm.Alarm{Member: ident.MemberID(c.GetAlarm().GetMemberID()), Kind: alarm.Kind(c.GetAlarm().GetAlarm())}
	on := r.m.Alarms.Has(a)
	answer := &pb.AlarmResponse{Header: r.header()}
	switch {
	case c.Active && a.Kind != alarm.None:
		if !on {
			r.setRow(mvcc.TableAlarm, alarm.Key(a), nil)
		}
		answer.Alarms = []*pb.AlarmMember{c.Alarm}
	case !c.Active && on:
		r.deleteRow(mvcc.TableAlarm, alarm.Key(a))
		answer.Alarms = []*pb.AlarmMember{c.Alarm}
	}
	return answer, nil
}

// ClusterKey is the key of the one row of table meta that tells of the cluster
// as a whole.
var ClusterKey = []byte("cluster")

// clusterInit is proposed by every new leader until it has taken effect; the
// first wins.
func (r *request) clusterInit(c *holdfastpb.ClusterInit) (any, error) {
	if r.m.Cluster() != nil {
		return nil, nil
	}
	value, err := (&holdfastpb.Cluster{Uuid: c.Uuid, ClusterId: c.ClusterId, Version: c.Version, Timeline: &holdfastpb.TimelineInfo{Number: 1}}).MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode cluster row: %w", err)
	}
	r.setRow(mvcc.TableMeta, ClusterKey, value)
	return nil, nil
}
