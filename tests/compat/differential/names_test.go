package differential

import (
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Names that stand for IDs that each side draws for itself. They lie where no
// drawn ID is likely to.
const (
	clusterName   = 0xc000_0000_0000_0001
	memberNames   = 0xd000_0000_0000_0000 // And up; the first is the member of the pair.
	leaseNames    = 0x7e00_0000_0000_0000 // And up.
	revisionNames = 0x5e00_0000_0000_0000 // And up; only clients with keys of their own have such names.
)

const (
	ownPeerURL   = "http://own.peer:1"
	ownClientURL = "http://own.client:1"
)

// kind of a field that holds an ID.
type kind int

const (
	plain kind = iota
	clusterID
	memberID
	leaseID
	revision
	urls // Or other words with names in them.
)

var kinds = map[protoreflect.FullName]kind{
	"etcdserverpb.ResponseHeader.cluster_id":  clusterID,
	"etcdserverpb.ResponseHeader.member_id":   memberID,
	"etcdserverpb.Member.ID":                  memberID,
	"etcdserverpb.MemberRemoveRequest.ID":     memberID,
	"etcdserverpb.MemberUpdateRequest.ID":     memberID,
	"etcdserverpb.MemberPromoteRequest.ID":    memberID,
	"etcdserverpb.AlarmRequest.memberID":      memberID,
	"etcdserverpb.AlarmMember.memberID":       memberID,
	"etcdserverpb.MoveLeaderRequest.targetID": memberID,
	"etcdserverpb.StatusResponse.leader":      memberID,

	"mvccpb.KeyValue.lease":                   leaseID,
	"etcdserverpb.PutRequest.lease":           leaseID,
	"etcdserverpb.Compare.lease":              leaseID,
	"etcdserverpb.LeaseGrantRequest.ID":       leaseID,
	"etcdserverpb.LeaseGrantResponse.ID":      leaseID,
	"etcdserverpb.LeaseRevokeRequest.ID":      leaseID,
	"etcdserverpb.LeaseKeepAliveRequest.ID":   leaseID,
	"etcdserverpb.LeaseKeepAliveResponse.ID":  leaseID,
	"etcdserverpb.LeaseTimeToLiveRequest.ID":  leaseID,
	"etcdserverpb.LeaseTimeToLiveResponse.ID": leaseID,
	"etcdserverpb.LeaseStatus.ID":             leaseID,

	"etcdserverpb.ResponseHeader.revision":           revision,
	"mvccpb.KeyValue.create_revision":                revision,
	"mvccpb.KeyValue.mod_revision":                   revision,
	"etcdserverpb.Compare.create_revision":           revision,
	"etcdserverpb.Compare.mod_revision":              revision,
	"etcdserverpb.RangeRequest.revision":             revision,
	"etcdserverpb.RangeRequest.min_mod_revision":     revision,
	"etcdserverpb.RangeRequest.max_mod_revision":     revision,
	"etcdserverpb.RangeRequest.min_create_revision":  revision,
	"etcdserverpb.RangeRequest.max_create_revision":  revision,
	"etcdserverpb.WatchCreateRequest.start_revision": revision,

	"etcdserverpb.Member.peerURLs":              urls,
	"etcdserverpb.Member.clientURLs":            urls,
	"etcdserverpb.MemberAddRequest.peerURLs":    urls,
	"etcdserverpb.MemberUpdateRequest.peerURLs": urls,
	"etcdserverpb.StatusResponse.errors":        urls,
}

// book maps what one side calls something to the name it has on both.
type book struct{ names, reals map[uint64]uint64 }

func newBook() book { return book{map[uint64]uint64{}, map[uint64]uint64{}} }

func (b book) add(real, name uint64) { b.names[real], b.reals[name] = name, real }

func (b book) name(real uint64) uint64 {
	if name, ok := b.names[real]; ok {
		return name
	}
	return real
}

func (b book) real(name uint64) uint64 {
	if real, ok := b.reals[name]; ok {
		return real
	}
	return name
}

// names translates between one side and the test.
type names struct {
	mu        sync.Mutex
	books     map[kind]book
	replaces  [][2]string // Own URL, its name.
	revisions bool        // Whether revisions have names.
	first     bool        // Of the side whose answers are counted.
}

func newNames(t *target) *names {
	return &names{
		books:    map[kind]book{clusterID: newBook(), memberID: newBook(), leaseID: newBook(), revision: newBook()},
		replaces: [][2]string{{t.peerURL(), ownPeerURL}, {"http://" + t.client, ownClientURL}},
	}
}

// learn gives a name to what a side has drawn.
func (n *names) learn(k kind, real, name uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.books[k].add(real, name)
	if k == memberID { // Status tells of alarms in words.
		n.replaces = append(n.replaces, [2]string{fmt.Sprintf("memberID:%d", real), fmt.Sprintf("memberID:%d", name)})
	}
}

// revision is the name of a revision.
func (n *names) revision(real int64) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return int64(n.books[revision].name(uint64(real)))
}

// outward is a request in the words of the side.
func (n *names) outward(req proto.Message) proto.Message {
	req = proto.Clone(req)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.walk(req.ProtoReflect(), func(k kind, v uint64) uint64 { return n.books[k].real(v) }, func(s string) string {
		for _, r := range n.replaces {
			s = strings.ReplaceAll(s, r[1], r[0])
		}
		return s
	})
	return req
}

// inward is an answer in the words of the test.
func (n *names) inward(msg proto.Message) proto.Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.walk(msg.ProtoReflect(), func(k kind, v uint64) uint64 { return n.books[k].name(v) }, func(s string) string {
		for _, r := range n.replaces {
			s = strings.ReplaceAll(s, r[0], r[1])
		}
		return s
	})
	return msg
}

func (n *names) walk(m protoreflect.Message, number func(kind, uint64) uint64, word func(string) string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch k := kinds[f.FullName()]; {
		case f.Message() != nil && f.IsList():
			for i := range v.List().Len() {
				n.walk(v.List().Get(i).Message(), number, word)
			}
		case f.Message() != nil:
			n.walk(v.Message(), number, word)
		case k == urls:
			for i := range v.List().Len() {
				v.List().Set(i, protoreflect.ValueOfString(word(v.List().Get(i).String())))
			}
		case k == plain || k == revision && !n.revisions:
		case f.Kind() == protoreflect.Uint64Kind:
			m.Set(f, protoreflect.ValueOfUint64(number(k, v.Uint())))
		default:
			m.Set(f, protoreflect.ValueOfInt64(int64(number(k, uint64(v.Int())))))
		}
		return true
	})
}
