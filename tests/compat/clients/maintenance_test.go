package clients

import (
	"crypto/sha256"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func maintenance(f *fixture) {
	at := f.put("a", "1").Header.Revision
	endpoints := f.Client.Endpoints()
	hashes := map[uint32]bool{}
	leaders := map[uint64]bool{}
	for _, e := range endpoints {
		f.eventually("the member has the revision", func() bool {
			h, err := f.Client.HashKV(f.ctx(), e, at)
			if err != nil {
				return false
			}
			hashes[h.Hash] = true
			f.want("hash revision", h.HashRevision, at)
			return true
		})
		st := must[*clientv3.StatusResponse](f)(f.Client.Status(f.ctx(), e))
		leaders[st.Leader] = true
		f.want("version", st.Version, "3.7.3")
		f.want("size", st.DbSize > 0 && st.DbSizeInUse > 0, true)
		f.want("errors", len(st.Errors), 0)
		f.want("learner", st.IsLearner, false)
		must[*clientv3.DefragmentResponse](f)(f.Client.Defragment(f.ctx(), e))
	}
	f.want("hashes", len(hashes), 1)
	f.want("leaders", len(leaders), 1)
	_, err := f.Client.HashKV(f.ctx(), endpoints[0], 1<<40)
	f.wantError("a hash of the future", err, "required revision is a future revision")

	members := must[*clientv3.MemberListResponse](f)(f.Client.MemberList(f.ctx()))
	f.want("members", len(members.Members), len(endpoints))
	for _, m := range members.Members {
		f.want("a name and URLs", m.Name != "" && len(m.ClientURLs) == 1 && len(m.PeerURLs) == 1, true)
	}
	_, err = f.Client.MemberRemove(f.ctx(), 12345)
	f.wantError("remove nobody", err, "etcdserver: member not found")
	_, err = f.Client.MemberPromote(f.ctx(), members.Members[0].ID)
	f.wantError("promote a voter", err, "can only promote a learner member")
	_, err = f.Client.MemberAdd(f.ctx(), members.Members[0].PeerURLs)
	if err == nil {
		f.T.Error("a peer URL was added twice")
	}
}

func alarms(f *fixture) {
	id := must[*clientv3.StatusResponse](f)(f.Client.Status(f.ctx(), f.Client.Endpoints()[0])).Header.MemberId
	raise := pb.NewMaintenanceClient(f.Client.ActiveConnection())
	must[*pb.AlarmResponse](f)(raise.Alarm(f.ctx(), &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: pb.AlarmType_NOSPACE}))
	listed := must[*clientv3.AlarmResponse](f)(f.Client.AlarmList(f.ctx()))
	f.want("listed", len(listed.Alarms), 1)
	_, err := f.Client.Put(f.ctx(), f.key("a"), "1")
	f.wantError("put", err, "database space exceeded")
	f.del("a")
	cleared := must[*clientv3.AlarmResponse](f)(f.Client.AlarmDisarm(f.ctx(), &clientv3.AlarmMember{}))
	f.want("disarmed", len(cleared.Alarms), 1)
	f.put("a", "1")
}

func snapshot(f *fixture) {
	f.put("a", "1")
	r := must[*clientv3.SnapshotResponse](f)(f.Client.SnapshotWithVersion(f.ctx()))
	data := must[[]byte](f)(io.ReadAll(r.Snapshot))
	f.want("version", r.Version, "3.7.0")
	f.want("size", len(data)%512, sha256.Size)
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	f.want("hash", sha256.Sum256(body), [sha256.Size]byte(sum))
}
