package auth

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/holdfast-db/holdfast/proto/authpb"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// apply puts a change into force, as the state machine does row by row.
func (t *Table) apply(tb testing.TB, c *Change, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	encode := func(m interface{ MarshalVT() ([]byte, error) }) []byte {
		b, err := m.MarshalVT()
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
	for _, u := range c.Users {
		if u.Row == nil {
			t.ForgetUser([]byte(u.Name))
		} else if err := t.LoadUser([]byte(u.Name), encode(u.Row)); err != nil {
			tb.Fatal(err)
		}
	}
	for _, r := range c.Roles {
		if r.Row == nil {
			t.ForgetRole([]byte(r.Name))
		} else if err := t.LoadRole([]byte(r.Name), encode(r.Row)); err != nil {
			tb.Fatal(err)
		}
	}
	if c.Auth != nil {
		if err := t.LoadConfig(encode(c.Auth)); err != nil {
			tb.Fatal(err)
		}
	}
	t.Publish()
}

// do is apply of what a method of State returns.
func do(tb testing.TB, t *Table) func(*Change, error) {
	tb.Helper()
	return func(c *Change, err error) { tb.Helper(); t.apply(tb, c, err) }
}

func enabled(tb testing.TB, table *Table) {
	tb.Helper()
	do(tb, table)(table.State().AddUser(&holdfastpb.UserAdd{Name: Root, PasswordHash: []byte("h")}))
	do(tb, table)(table.State().GrantRole(Root, Root))
	do(tb, table)(table.State().Enable())
}

func permission(kind authpb.Permission_Type, key, end string) *authpb.Permission {
	return &authpb.Permission{PermType: kind, Key: []byte(key), RangeEnd: []byte(end)}
}

// The keys of the test, and all places where a range over them can begin or
// end: what lies between two neighbors is permitted whole or not at all, so the
// lower one stands for all of it.
var (
	testKeys = []string{"a", "aa", "ab", "b", "c", "d"}
	places   = func() (list []string) {
		for _, k := range testKeys {
			list = append(list, k, k+"\x00")
		}
		slices.Sort(list)
		return slices.Compact(list)
	}()
)

// naive knows permissions as a list of places.
type naive struct {
	may    map[Verb]map[string]bool
	leases map[int64][]string
}

func in(place, key, end string) bool {
	switch end {
	case "":
		return place == key
	case "\x00":
		return place >= key
	}
	return place >= key && place < end
}

func (n *naive) grant(p *authpb.Permission) {
	for _, place := range places {
		if in(place, string(p.Key), string(p.RangeEnd)) {
			if p.PermType != authpb.Permission_WRITE {
				n.may[Read][place] = true
			}
			if p.PermType != authpb.Permission_READ {
				n.may[Write][place] = true
			}
		}
	}
}

func (n *naive) all(verb Verb, key, end []byte) bool {
	for _, place := range places {
		if in(place, string(key), string(end)) && !n.may[verb][place] {
			return false
		}
	}
	return true
}

func (n *naive) request(op *pb.RequestOp) bool {
	if r := op.GetRequestRange(); r != nil {
		return n.all(Read, r.Key, r.RangeEnd)
	}
	if d := op.GetRequestDeleteRange(); d != nil {
		return n.all(Write, d.Key, d.RangeEnd) && (!d.PrevKv || n.all(Read, d.Key, d.RangeEnd))
	}
	if p := op.GetRequestPut(); p != nil {
		may := n.all(Write, p.Key, nil) && (!p.PrevKv || n.all(Read, p.Key, nil))
		for _, key := range n.leases[p.Lease] {
			may = may && n.all(Write, []byte(key), nil)
		}
		return may
	}
	t, may := op.GetRequestTxn(), true
	for _, c := range t.Compare {
		may = may && n.all(Read, c.Key, c.RangeEnd)
	}
	for _, op := range slices.Concat(t.Success, t.Failure) {
		may = n.request(op) && may
	}
	return may
}

func randomRange(rng *rand.Rand) (key, end []byte) {
	i := rng.Intn(len(testKeys))
	key = []byte(testKeys[i])
	switch rng.Intn(4) {
	case 0:
		return key, nil
	case 1:
		return key, []byte{0}
	case 2:
		return key, []byte(testKeys[i] + "\x00")
	}
	if i == len(testKeys)-1 {
		return key, nil
	}
	return key, []byte(testKeys[i+1+rng.Intn(len(testKeys)-i-1)])
}

func randomOp(rng *rand.Rand, depth int) *pb.RequestOp {
	key, end := randomRange(rng)
	switch n := rng.Intn(7); {
	case n < 2:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, PrevKv: rng.Intn(3) == 0, Lease: int64(rng.Intn(3))}}}
	case n < 4:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key, RangeEnd: end, PrevKv: rng.Intn(3) == 0}}}
	case n < 6 || depth == 0:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key, RangeEnd: end}}}
	}
	t := &pb.TxnRequest{}
	for range rng.Intn(2) {
		t.Compare = append(t.Compare, &pb.Compare{Key: key, RangeEnd: end})
	}
	for range rng.Intn(3) {
		t.Success = append(t.Success, randomOp(rng, depth-1))
	}
	for range rng.Intn(3) {
		t.Failure = append(t.Failure, randomOp(rng, depth-1))
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

// FuzzDecisionsAreThoseOfANaiveList compares decisions about random requests with
// those of a list of all places that each permission reaches.
func FuzzDecisionsAreThoseOfANaiveList(f *testing.F) {
	for seed := range int64(60) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed int64) {
		rng := rand.New(rand.NewSource(seed))
		table := NewTable()
		do(t, table)(table.State().AddUser(&holdfastpb.UserAdd{Name: "u"}))
		n := &naive{may: map[Verb]map[string]bool{Read: {}, Write: {}}, leases: map[int64][]string{1: {"a"}, 2: {"b", "d"}}}
		for i := range 1 + rng.Intn(3) {
			role := fmt.Sprint("role", i)
			do(t, table)(table.State().AddRole(role))
			do(t, table)(table.State().GrantRole("u", role))
			seen := map[string]bool{}
			for range rng.Intn(4) {
				key, end := randomRange(rng)
				p := permission(authpb.Permission_Type(rng.Intn(3)), string(key), string(end))
				if seen[string(key)+"-"+string(end)] {
					continue // Would replace the other.
				}
				seen[string(key)+"-"+string(end)] = true
				do(t, table)(table.State().GrantPermission(role, p))
				n.grant(p)
			}
		}
		enabled(t, table)
		s := table.State()
		ask := Asker{State: s, By: Actor{"u", s.Revision}, LeaseKeys: func(id int64) (keys [][]byte, err error) {
			for _, key := range n.leases[id] {
				keys = append(keys, []byte(key))
			}
			return keys, nil
		}}
		for range 50 {
			op := randomOp(rng, 3)
			err := ask.op(op)
			if want := n.request(op); (err == nil) != want || err != nil && !errors.Is(err, ErrDenied) {
				t.Fatalf("seed %d: %v: got %v, permitted %v; read %q, write %q", seed, op, err, want, s.users["u"].read, s.users["u"].write)
			}
		}
	})
}

func TestWhoAsksIsLookedAtBeforeWhat(t *testing.T) {
	table := NewTable()
	if err := table.State().Check(Actor{}, Write, []byte("k"), nil); err != nil {
		t.Fatalf("while authentication is off: %v", err)
	}
	enabled(t, table)
	s := table.State()
	for _, c := range []struct {
		by   Actor
		want error
	}{
		{Actor{}, ErrNobody}, {Actor{"root", 0}, ErrNobody}, {Actor{"root", s.Revision - 1}, ErrOldRevision},
		{Actor{"who", s.Revision}, ErrDenied}, {Actor{"root", s.Revision}, nil},
	} {
		if err := s.Check(c.by, Read, []byte("k"), nil); !errors.Is(err, c.want) {
			t.Errorf("%v: %v, want %v", c.by, err, c.want)
		}
	}
	if err := (&Asker{State: s, By: Actor{"who", s.Revision}}).op(&pb.RequestOp{}); !errors.Is(err, ErrDenied) {
		t.Errorf("an operation that nobody knows: %v", err)
	}
}

func TestRootCanNotBeLockedOut(t *testing.T) {
	table := NewTable()
	for _, c := range []struct {
		do   func(*State) (*Change, error)
		want error
	}{
		{(*State).Enable, ErrRootUser},
		{func(s *State) (*Change, error) { return s.AddUser(&holdfastpb.UserAdd{Name: Root}) }, nil},
		{(*State).Enable, ErrRootRole},
		{func(s *State) (*Change, error) { return s.GrantRole(Root, Root) }, nil},
		{(*State).Enable, nil},
		{func(s *State) (*Change, error) { return s.DeleteUser(Root) }, ErrManagement},
		{func(s *State) (*Change, error) { return s.DeleteRole(Root) }, ErrManagement},
		{func(s *State) (*Change, error) { return s.RevokeRole(Root, Root) }, ErrManagement},
		{(*State).Disable, nil},
		{func(s *State) (*Change, error) { return s.RevokeRole(Root, Root) }, nil},
		{func(s *State) (*Change, error) { return s.DeleteUser(Root) }, nil},
		{func(s *State) (*Change, error) { return s.AddUser(&holdfastpb.UserAdd{}) }, ErrUserName},
		{func(s *State) (*Change, error) { return s.AddRole("") }, ErrRoleName},
		{func(s *State) (*Change, error) { return s.AddRole(string(make([]byte, NameBytesMax+1))) }, ErrRowTooLarge},
	} {
		change, err := c.do(table.State())
		if !errors.Is(err, c.want) {
			t.Fatalf("got %v, want %v", err, c.want)
		}
		if err == nil {
			table.apply(t, change, nil)
		}
	}
	if r := table.State().Revision; r != 6 {
		t.Errorf("the revision is %d after five changes", r)
	}
}

func TestAGrantOfTheSameRangeReplacesTheOther(t *testing.T) {
	table := NewTable()
	do(t, table)(table.State().AddRole("r"))
	for _, p := range []*authpb.Permission{permission(0, "a", "c"), permission(0, "a", "b"), permission(1, "a", "b"), permission(2, "A", "")} {
		do(t, table)(table.State().GrantPermission("r", p))
	}
	if got := fmt.Sprint(table.State().Role("r").KeyPermission); got != fmt.Sprint([]*authpb.Permission{permission(2, "A", ""), permission(0, "a", "c"), permission(1, "a", "b")}) {
		t.Error(got)
	}
	for _, bad := range []*authpb.Permission{permission(0, "", "b"), permission(0, "b", "b"), permission(0, "b", "a")} {
		if _, err := table.State().GrantPermission("r", bad); !errors.Is(err, ErrManagement) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := table.State().RevokePermission("r", []byte("a"), nil); !errors.Is(err, ErrNotPermitted) {
		t.Error(err)
	}
}

// heard is what a watcher was told.
type heard []string

func (h *heard) Assigned(token, user string) { *h = append(*h, "assigned "+token+" "+user) }
func (h *heard) Invalidated(user string)     { *h = append(*h, "invalidated "+user) }
func (h *heard) Disabled()                   { *h = append(*h, "disabled") }

func TestTokensHearOfPasswordsAndOfTheEnd(t *testing.T) {
	table, h := NewTable(), &heard{}
	enabled(t, table)
	table.Watch(h)
	do(t, table)(table.State().AddUser(&holdfastpb.UserAdd{Name: "u", PasswordHash: []byte("1")}))
	table.Assign("t", "u")
	do(t, table)(table.State().GrantRole("u", Root))
	do(t, table)(table.State().SetPassword(&holdfastpb.UserPassword{Name: "u", PasswordHash: []byte("2")}))
	do(t, table)(table.State().DeleteUser("u"))
	do(t, table)(table.State().Disable())
	if want := (heard{"assigned t u", "invalidated u", "invalidated u", "disabled"}); !slices.Equal(*h, want) {
		t.Errorf("heard %q, want %q", *h, want)
	}
}

// TestRowsHaveTheirBytes pins docs/format/base.md: snapshots and archives are full of them.
func TestRowsHaveTheirBytes(t *testing.T) {
	for _, c := range []struct {
		row  interface{ MarshalVT() ([]byte, error) }
		want string
	}{
		{&holdfastpb.Auth{Enabled: true, Revision: 300}, "080110ac02"},
		{&authpb.User{Name: []byte("u"), Password: []byte("h"), Roles: []string{"r"}, Options: &authpb.UserAddOptions{NoPassword: true}}, "0a01751201681a01722202" + "0801"},
		{&authpb.Role{Name: []byte("r"), KeyPermission: []*authpb.Permission{permission(2, "a", "b")}}, "0a0172120808021201611a0162"},
	} {
		b, err := c.row.MarshalVT()
		if err != nil || hex.EncodeToString(b) != c.want {
			t.Errorf("%T is %x, want %s (%v)", c.row, b, c.want, err)
		}
	}
	table := NewTable()
	for _, err := range []error{
		table.LoadConfig([]byte{0xff}), table.LoadConfig(nil), table.LoadUser([]byte("x"), nil), table.LoadRole([]byte("x"), []byte{0xff}),
	} {
		if err == nil {
			t.Error("a damaged row was taken")
		}
	}
}

// BenchmarkCheck is what a put costs more with authentication on: how many of
// these a second can apply answer?
func BenchmarkCheck(b *testing.B) {
	table := NewTable()
	do(b, table)(table.State().AddRole("r"))
	for i := range 50 {
		key := fmt.Sprintf("/registry/%03d/", 2*i)
		do(b, table)(table.State().GrantPermission("r", permission(authpb.Permission_READWRITE, key, fmt.Sprintf("/registry/%03d0", 2*i))))
	}
	for i := range 200 {
		name := fmt.Sprint("user", i)
		do(b, table)(table.State().AddUser(&holdfastpb.UserAdd{Name: name}))
		do(b, table)(table.State().GrantRole(name, "r"))
	}
	enabled(b, table)
	s := table.State()
	ask := Asker{State: s, By: Actor{"user77", s.Revision}}
	p := &pb.PutRequest{Key: []byte("/registry/042/pods/default/nginx")}
	b.ReportAllocs()
	for b.Loop() {
		if err := ask.Put(p); err != nil {
			b.Fatal(err)
		}
	}
}
