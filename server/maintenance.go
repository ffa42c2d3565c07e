package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/ident"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/statemachine/alarm"
)

// maintenanceService answers etcdserverpb.Maintenance.
type maintenanceService struct {
	pb.UnimplementedMaintenanceServer
	*core
}

func (s *maintenanceService) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	st := s.node.Status()
	sizes := s.replica.Sizes()
	answer := &pb.StatusResponse{
		Header:           s.header(),
		Version:          s.cfg.ProtocolVersion,
		StorageVersion:   storageVersion,
		DbSize:           sizes.Total,
		DbSizeInUse:      sizes.InUse,
		DbSizeQuota:      s.cfg.QuotaBytes,
		Leader:           uint64(st.Leader),
		RaftIndex:        uint64(st.Commit),
		RaftTerm:         uint64(st.Term),
		RaftAppliedIndex: uint64(st.Applied),
		IsLearner:        s.learner(),
		DowngradeInfo:    &pb.DowngradeInfo{},
	}
	if st.Leader == 0 {
		answer.Errors = append(answer.Errors, "etcdserver: no leader")
	}
	answer.Errors = append(answer.Errors, s.archive.alarms(s.cfg.Clock.Mono())...)
	if err := s.epoch.open(); err != nil {
		answer.Errors = append(answer.Errors, status.Convert(err).Message())
	}
	for _, a := range s.replica.Machine.Alarms.List(alarm.None) {
		answer.Errors = append(answer.Errors, alarmText(a))
	}
	return answer, nil
}

// alarmText is an alarm as etcd writes a message: what is zero is left out.
func alarmText(a alarm.Alarm) string {
	text := "alarm:" + pb.AlarmType(a.Kind).String()
	if a.Member != 0 {
		text = fmt.Sprintf("memberID:%d %s", uint64(a.Member), text)
	}
	return text
}

func (s *maintenanceService) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	if r.Action == pb.AlarmRequest_GET {
		err := s.linearize(ctx)
		if errors.Is(err, raftnode.ErrNoLeader) {
			return nil, errNotProposed // In etcd this question is a proposal.
		}
		if err != nil {
			return nil, toWire(err)
		}
		answer := &pb.AlarmResponse{Header: s.header()}
		for _, a := range s.replica.Machine.Alarms.List(alarm.Kind(r.Alarm)) {
			answer.Alarms = append(answer.Alarms, &pb.AlarmMember{MemberID: uint64(a.Member), Alarm: pb.AlarmType(a.Kind)})
		}
		return answer, nil
	}
	if _, known := pb.AlarmRequest_AlarmAction_name[int32(r.Action)]; !known {
		return nil, errAlarmAction // It would be taken for the end of the alarm.
	}
	answer, err := s.setAlarm(ctx, r)
	if err != nil {
		return nil, toWire(err)
	}
	s.fill(answer.Header)
	return answer, nil
}

func (c *core) setAlarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	v, err := c.propose(ctx, &holdfastpb.Command{Command: &holdfastpb.Command_Alarm{Alarm: &holdfastpb.AlarmSet{
		Alarm:  &pb.AlarmMember{MemberID: r.MemberID, Alarm: r.Alarm},
		Active: r.Action == pb.AlarmRequest_ACTIVATE,
	}}})
	if err != nil {
		return nil, err
	}
	return v.(*pb.AlarmResponse), nil
}

// Defragment rewrites base when that gives space back. What a compaction has
// set free is waited for, so that the way out of a full store, compact and then
// defragment, works at once.
func (s *maintenanceService) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	store, err := s.replica.Use()
	if err != nil {
		return nil, toWire(err)
	}
	defer store.Release()
	if err := store.WaitMerged(ctx); err != nil {
		return nil, toWire(err)
	}
	s.metrics.defragmenting.Add(1)
	if s.cfg.AwayOnDefragment {
		s.tellServing(false)
		defer func() {
			if s.metrics.defragmenting.Load() == 0 { // Not while another one goes on.
				s.tellServing(true)
			}
		}()
	}
	start := s.cfg.Clock.Mono()
	err = store.Defragment(ctx)
	s.metrics.defragmenting.Add(-1)
	s.metrics.defragment.Observe((s.cfg.Clock.Mono() - start).Seconds())
	if err != nil {
		return nil, toWire(err)
	}
	return &pb.DefragmentResponse{}, nil
}

// defragmentAtStart gives back what is not used, if it is as much as asked for.
func (s *Server) defragmentAtStart(ctx context.Context) error {
	sizes := s.replica.Sizes()
	free := sizes.Total - sizes.InUse
	if s.cfg.DefragmentAtStart <= 0 || free < s.cfg.DefragmentAtStart {
		return nil
	}
	store, err := s.replica.Use()
	if err != nil {
		return err
	}
	defer store.Release()
	s.log.Info("defragmenting before the start", "free", free, "threshold", s.cfg.DefragmentAtStart)
	if err := store.Defragment(ctx); err != nil {
		return fmt.Errorf("defragment at start: %w", err)
	}
	s.log.Info("defragmented", "size-before", sizes.Total, "size", s.replica.Sizes().Total)
	return nil
}

func (s *maintenanceService) Hash(ctx context.Context, _ *pb.HashRequest) (*pb.HashResponse, error) {
	h, err := s.hashAt(ctx, 0)
	if err != nil {
		return nil, toWire(err)
	}
	answer := &pb.HashResponse{Header: s.header(), Hash: h.Hash}
	answer.Header.Revision = int64(h.Revision)
	return answer, nil
}

func (s *maintenanceService) HashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	h, err := s.hashAt(ctx, ident.Revision(r.Revision))
	if err != nil {
		return nil, toWire(err)
	}
	answer := &pb.HashKVResponse{
		Header:          s.header(),
		Hash:            h.Hash,
		CompactRevision: int64(h.Compacted),
		HashRevision:    int64(h.Revision),
	}
	answer.Header.Revision = int64(h.Head)
	return answer, nil
}

func (s *maintenanceService) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	if s.node.Status().Leader != s.id.Member {
		return nil, errNotLeader
	}
	to := s.replica.Machine.Members.Get(ident.MemberID(r.TargetID))
	if to == nil || to.IsLearner {
		return nil, errBadTransferee
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	if err := s.node.TransferLeader(ctx, ident.MemberID(r.TargetID)); err != nil {
		return nil, toWire(err)
	}
	return &pb.MoveLeaderResponse{}, nil
}

// Snapshot sends the whole state as a file. The file is made first, in the data
// directory, because its size must be known before the first chunk and because
// a slow client must not hold base's pages. There are few such files at a time: a disk
// that they fill is the log's as well. So a client that takes nothing is left.
func (s *maintenanceService) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	return s.sendSlowly(stream.Context(), "snapshot", &s.snapshots, snapshotsMax, errTooManyRequests, errSnapshotStalled, func(ctx context.Context, took func()) error {
		return s.sendSnapshot(ctx, stream, took)
	})
}

func (s *maintenanceService) sendSnapshot(ctx context.Context, stream pb.Maintenance_SnapshotServer, took func()) error {
	start := s.cfg.Clock.Mono()
	defer func() { s.metrics.snapshot.Observe((s.cfg.Clock.Mono() - start).Seconds()) }()
	f, size, done, err := s.replica.SnapshotFile(ctx, s.id.Member)
	if err != nil {
		return toWire(err)
	}
	defer done()
	s.log.Info("sending snapshot to client", "bytes", size)
	took()
	body := size - sha256.Size // The file ends in its own hash, as the stream does.
	buf := make([]byte, snapshotChunkBytes)
	manners := s.replica.Manners()
	for sent := int64(0); sent < size; {
		chunk := buf[:min(int64(len(buf)), body-sent)]
		if sent >= body {
			chunk = buf[:size-sent]
		}
		n, err := f.ReadAt(chunk, sent)
		if err != nil && !(errors.Is(err, io.EOF) && n == len(chunk)) {
			return toWire(err)
		}
		sent += int64(n)
		err = stream.Send(&pb.SnapshotResponse{
			Blob:           append([]byte(nil), chunk...), // Send does not wait until it is sent.
			RemainingBytes: uint64(max(body-sent, 0)),
			Version:        storageVersion,
		})
		if err == nil && sent%snapshotPieceBytes == 0 {
			err = manners.GiveWay(ctx)
		}
		if err != nil {
			return err
		}
		took()
	}
	return nil
}

var errSnapshotStalled = status.Error(codes.DeadlineExceeded, "etcdserver: the snapshot was given up: nothing of it was taken for "+clientStallMax.String())
