package interop

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3discovery"
	"go.uber.org/zap"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

func expect(t *testing.T, s *side, size int) {
	t.Helper()
	_, err := pb.NewKVClient(s.conn).Put(t.Context(), &pb.PutRequest{Key: []byte("/_etcd/registry/t/_config/size"), Value: fmt.Append(nil, size)})
	if err != nil {
		t.Fatal(err)
	}
}

func discovering(service string) []string {
	return []string{"--discovery-token", "t", "--discovery-endpoints", service}
}

func TestMembersOfOursFindEachOtherAtAnEtcd(t *testing.T) {
	service := start37(t, t.TempDir())
	expect(t, service, 3)
	endpoint := strings.TrimPrefix(service.conn.Target(), "passthrough:///")
	var members []*member.Member
	for i := range 3 {
		m := member.New(t, member.Config{Name: fmt.Sprintf("m%d", i+1), Discovery: discovering(endpoint)})
		m.Spawn()
		members = append(members, m)
	}
	for _, m := range members {
		m.WaitReady()
	}
	list, err := pb.NewClusterClient(dial(t, members[0].Client)).MemberList(t.Context(), &pb.MemberListRequest{Linearizable: true})
	if err != nil || len(list.Members) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	late := member.New(t, member.Config{Name: "m4", Discovery: discovering(endpoint)})
	late.Spawn()
	select {
	case <-late.Exited():
	case <-time.After(patience):
		t.Error("a fourth member waits for a cluster that has all its members")
	}
	members[0].Kill() // Who has data asks nobody.
	service.conn.Close()
	members[0].Start()
}

// Etcd's own code and ours, at a service of ours.
func TestAMemberOfEtcdAndOneOfOursFindEachOther(t *testing.T) {
	service := member.New(t, member.Config{})
	service.Start()
	expect(t, &side{t: t, conn: dial(t, service.Client)}, 2)
	ours := member.New(t, member.Config{Name: "ours", Discovery: discovering("http://" + service.Client)})
	ours.Spawn()
	text, err := v3discovery.JoinCluster(zap.NewNop(), &v3discovery.DiscoveryConfig{Token: "t", ConfigSpec: clientv3.ConfigSpec{
		Endpoints: []string{service.Client}, DialTimeout: patience, RequestTimeout: patience,
		Secure: &clientv3.SecureConfig{InsecureTransport: true}, Auth: &clientv3.AuthConfig{},
	}}, 7, "theirs=http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "ours=http://"+ours.Peer) || !strings.Contains(text, "theirs=http://127.0.0.1:1") {
		t.Errorf("etcd is told of %s", text)
	}
	// It knows the other too, and now waits for its vote.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !strings.Contains(ours.Log(), "theirs=http://127.0.0.1:1") {
		select {
		case <-ours.Exited():
			t.Fatal("our member has ended")
		case <-ctx.Done():
			t.Fatal("our member does not know of the other")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
