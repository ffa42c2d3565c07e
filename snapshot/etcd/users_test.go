package etcd

import (
	"bytes"
	"encoding/base64"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/proto/authpb"
	"github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// TestUsersAndWhatTheyMayDoComeAlong imports an etcd with authentication on,
// whose log has requests that it permitted and others that it denied, exports
// that again, and imports it once more.
func TestUsersAndWhatTheyMayDoComeAlong(t *testing.T) {
	by := func(user string, revision uint64, number protowire.Number, m interface{ MarshalVT() ([]byte, error) }) []byte {
		header := field(nil, 1, 5)
		if user != "" {
			header = field(nested(header, 2, []byte(user)), 3, revision)
		}
		return nested(nested(field(nil, 1, 5), 100, header), number, must(m.MarshalVT()))
	}
	put := func(key string) *etcdserverpb.PutRequest { return &etcdserverpb.PutRequest{Key: []byte(key)} }
	hash := base64.StdEncoding.EncodeToString([]byte("a hash"))
	requests := [][]byte{
		by("alice", 7, requestPut, put("own")),
		by("alice", 7, requestPut, put("root's")), // Denied.
		by("", 0, requestPut, put("nobody's")),    // Denied.
		by("alice", 6, requestPut, put("own of an old token")),
		by("root", 7, requestUserAdd, &etcdserverpb.AuthUserAddRequest{Name: "bob", HashedPassword: hash}),
		by("alice", 8, requestUserAdd, &etcdserverpb.AuthUserAddRequest{Name: "eve", HashedPassword: hash}), // Denied.
		by("root", 8, requestRoleAdd, &etcdserverpb.AuthRoleAddRequest{Name: "readers"}),
		by("root", 9, requestRoleGrant, &etcdserverpb.AuthRoleGrantPermissionRequest{Name: "readers", Perm: &authpb.Permission{Key: []byte("r")}}),
		by("root", 10, requestUserGrantRole, &etcdserverpb.AuthUserGrantRoleRequest{User: "bob", Role: "readers"}),
		by("alice", 11, requestPut, put("own again")),
	}
	m := newModel()
	m.put("a", "1", 0, 0)
	m.head++
	dir, _ := dataDir(t, m, oneVoter, 10+uint64(len(requests)), 12, func(i uint64) []byte { return requests[i-11] })
	db := filepath.Join(dir, "member", "snap", "db")
	setBucket(t, db, bucketUsers, "root", must((&authpb.User{Name: []byte("root"), Roles: []string{"root"}}).MarshalVT()))
	setBucket(t, db, bucketUsers, "alice", must((&authpb.User{Name: []byte("alice"), Password: []byte("hash"), Roles: []string{"own"}}).MarshalVT()))
	setBucket(t, db, bucketRoles, "own", must((&authpb.Role{Name: []byte("own"), KeyPermission: []*authpb.Permission{
		{PermType: authpb.Permission_READWRITE, Key: []byte("own"), RangeEnd: []byte("owo")},
	}}).MarshalVT()))
	setBucket(t, db, bucketAuth, authEnabled, []byte{1})
	setBucket(t, db, bucketAuth, authRevision, number(7))

	to := filepath.Join(t.TempDir(), "out.snap")
	report, err := Import(t.Context(), testConfig(), dir, to)
	if err != nil {
		t.Fatal(err)
	}
	if report.Users != 3 || report.Roles != 2 || !report.AuthEnabled {
		t.Fatalf("%+v", report)
	}
	checkUsers(t, to)
	exported := filepath.Join(t.TempDir(), "etcd.db")
	if r, err := Export(t.Context(), testConfig(), to, exported, "3.7"); err != nil || r.Users != 3 || r.Roles != 2 {
		t.Fatal(r, err)
	}
	again := filepath.Join(t.TempDir(), "again.snap")
	if _, err := Import(t.Context(), testConfig(), exported, again); err != nil {
		t.Fatal(err)
	}
	checkUsers(t, again)
}

// checkUsers wants what etcd would have had at the end of the log.
func checkUsers(t *testing.T, path string) {
	t.Helper()
	rows, k := keysOf(t, path)
	var names []string
	for _, row := range rows {
		kv := &mvccpb.KeyValue{}
		if err := kv.UnmarshalVT([]byte(row)); err != nil {
			t.Fatal(err)
		}
		names = append(names, string(kv.Key))
	}
	if !slices.Equal(names, []string{"a", "own", "own again"}) {
		t.Errorf("keys are %q", names)
	}
	table := auth.NewTable()
	for _, row := range k.Rows {
		var err error
		switch {
		case row.Table == backend.TableUser:
			err = table.LoadUser(row.Key, row.Value)
		case row.Table == backend.TableRole:
			err = table.LoadRole(row.Key, row.Value)
		case row.Table == backend.TableMeta && bytes.Equal(row.Key, auth.ConfigKey):
			err = table.LoadConfig(row.Value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	table.Publish()
	s := table.State()
	if !s.Enabled || s.Revision != 11 || !slices.Equal(s.Users(), []string{"alice", "bob", "root"}) || !slices.Equal(s.Roles(), []string{"own", "readers"}) {
		t.Errorf("enabled %v, revision %d, users %q, roles %q", s.Enabled, s.Revision, s.Users(), s.Roles())
	}
	if string(s.User("bob").Password) != "a hash" || string(s.User("alice").Password) != "hash" {
		t.Error("the passwords have changed")
	}
	if err := s.Check(auth.Actor{User: "bob", Revision: 11}, auth.Read, []byte("r"), nil); err != nil {
		t.Error(err)
	}
}
