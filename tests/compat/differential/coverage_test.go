package differential

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// coverage counts what was sent and what came back.
type coverage struct {
	mu       sync.Mutex
	requests int
	counts   map[string]int
}

var covered = &coverage{counts: map[string]int{}}

func (c *coverage) request(rpc string, req proto.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	c.counts["rpc "+rpc]++
	c.message(req.ProtoReflect())
}

func (c *coverage) answer(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.msg == nil {
		c.counts["error "+errorName(a)]++
		return
	}
	c.message(a.msg.ProtoReflect())
}

// words counts an error that travels inside an answer.
func (c *coverage) words(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts["error "+s]++
}

func errorName(a answer) string { return fmt.Sprintf("%v: %s", a.st.Code(), a.st.Message()) }

func (c *coverage) message(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Enum() != nil && !f.IsList() && f.ContainingOneof() == nil {
			c.enum(f, m.Get(f).Enum())
		}
		if !m.Has(f) {
			continue
		}
		c.counts["field "+string(f.FullName())]++
		switch v := m.Get(f); {
		case f.Enum() != nil && f.IsList():
			for j := range v.List().Len() {
				c.enum(f, v.List().Get(j).Enum())
			}
		case f.Message() != nil && f.IsList():
			for j := range v.List().Len() {
				c.message(v.List().Get(j).Message())
			}
		case f.Message() != nil:
			c.message(v.Message())
		}
	}
}

func (c *coverage) enum(f protoreflect.FieldDescriptor, n protoreflect.EnumNumber) {
	name := "an unknown number"
	if v := f.Enum().Values().ByNumber(n); v != nil {
		name = string(v.Name())
	}
	c.counts[fmt.Sprintf("value %s %s", f.FullName(), name)]++
}

// excluded is what this version does not have yet, and what no client can
// bring about. Each entry covers the names that it begins.
var excluded = []struct{ name, reason string }{
	{"value etcdserverpb.DowngradeRequest.action ENABLE", "changes what an etcd is from then on; ours is in docs/differences.md"},
	{"field etcdserverpb.DowngradeInfo.", "is set while a downgrade is under way, which ours never is"},
	{"field etcdserverpb.DowngradeVersionTestRequest.", "belongs to etcd's own tests"},
	{"field etcdserverpb.DefragmentResponse.header", "the protocol leaves it empty"},
	{"field etcdserverpb.MoveLeaderResponse.header", "the protocol leaves it empty"},
	{"field etcdserverpb.SnapshotResponse.header", "the protocol leaves it empty"},
	{"field etcdserverpb.LeaseGrantResponse.error", "the protocol leaves it empty"},
	{"value etcdserverpb.AlarmMember.alarm NONE", "no alarm is called so"},
	{"error Canceled: etcdserver: watch canceled", "ends a stream that the client has left: nobody sees it"},
	{"error FailedPrecondition: etcdserver: not capable", "wants members of different versions"},
	{"error FailedPrecondition: etcdserver: cluster ID mismatch", "is told to members only"},
	{"error Unavailable: etcdserver: server stopped", "a race with the end of the process"},
	{"error Unavailable: etcdserver: request timed out, possibly due to previous leader failure", "a race with an election"},
	{"error Unavailable: etcdserver: request timed out, possibly due to connection lost", "a race with a lost connection"},
	{"error Unavailable: etcdserver: request timed out, waiting for the applied index took too long", "wants a member too slow to apply"},
	{"error Unavailable: etcdserver: leader changed", "a race with an election"},
	{"error Unknown: etcdserver: too many requests", "wants more than 5000 entries that wait to be applied"},
}

// texts are the errors of the protocol that this version knows.
var texts = []string{
	"InvalidArgument: etcdserver: key is not provided",
	"InvalidArgument: etcdserver: key not found",
	"InvalidArgument: etcdserver: value is provided",
	"InvalidArgument: etcdserver: lease is provided",
	"InvalidArgument: etcdserver: too many operations in txn request",
	"InvalidArgument: etcdserver: duplicate key given in txn request",
	"InvalidArgument: etcdserver: invalid sort option",
	"InvalidArgument: etcdserver: invalid client api version",
	"InvalidArgument: etcdserver: request is too large",
	"InvalidArgument: etcdserver: given member URLs are invalid",
	"OutOfRange: etcdserver: mvcc: required revision has been compacted",
	"OutOfRange: etcdserver: mvcc: required revision is a future revision",
	"OutOfRange: etcdserver: too large lease TTL",
	"ResourceExhausted: etcdserver: mvcc: database space exceeded",
	"NotFound: etcdserver: requested lease not found",
	"NotFound: etcdserver: member not found",
	"FailedPrecondition: etcdserver: lease already exists",
	"FailedPrecondition: etcdserver: member ID already exist",
	"FailedPrecondition: etcdserver: Peer URLs already exists",
	"FailedPrecondition: etcdserver: can only promote a learner member",
	"FailedPrecondition: etcdserver: can only promote a learner member which is in sync with leader",
	"FailedPrecondition: etcdserver: too many learner members in cluster",
	"FailedPrecondition: etcdserver: cluster ID mismatch",
	"FailedPrecondition: etcdserver: not leader",
	"FailedPrecondition: etcdserver: not capable",
	"FailedPrecondition: etcdserver: rpc not supported for learner",
	"FailedPrecondition: etcdserver: bad leader transferee",
	"InvalidArgument: etcdserver: user name is empty",
	"InvalidArgument: etcdserver: role name is empty",
	"InvalidArgument: etcdserver: authentication failed, invalid user ID or password",
	"InvalidArgument: etcdserver: permission not given",
	"InvalidArgument: etcdserver: invalid auth management",
	"InvalidArgument: etcdserver: revision of auth store is old",
	"FailedPrecondition: etcdserver: root user does not exist",
	"FailedPrecondition: etcdserver: root user does not have root role",
	"FailedPrecondition: etcdserver: user name already exists",
	"FailedPrecondition: etcdserver: user name not found",
	"FailedPrecondition: etcdserver: role name already exists",
	"FailedPrecondition: etcdserver: role name not found",
	"FailedPrecondition: etcdserver: role is not granted to the user",
	"FailedPrecondition: etcdserver: permission is not granted to the role",
	"FailedPrecondition: etcdserver: authentication is not enabled",
	"PermissionDenied: etcdserver: permission denied",
	"Unauthenticated: etcdserver: invalid auth token",
	"DataLoss: etcdserver: corrupt cluster",
	"Canceled: etcdserver: watch canceled",
	"Unavailable: etcdserver: no leader",
	"Unavailable: etcdserver: leader changed",
	"Unavailable: etcdserver: server stopped",
	"Unavailable: etcdserver: request timed out",
	"Unavailable: etcdserver: request timed out, possibly due to previous leader failure",
	"Unavailable: etcdserver: request timed out, possibly due to connection lost",
	"Unavailable: etcdserver: request timed out, waiting for the applied index took too long",
	"Unavailable: etcdserver: unhealthy cluster",
	"Unknown: etcdserver: re-configuration failed due to not enough started members",
	"Unknown: etcdserver: too many requests",
	"mvcc: duplicate watch ID provided on the WatchStream",
	"mvcc: watcher range is empty",
	"etcdserver: mvcc: required revision has been compacted",
}

func exclusion(name string) (string, bool) {
	for _, x := range excluded {
		// Longer error texts begin like shorter ones.
		if name == x.name || !strings.HasPrefix(name, "error ") && strings.HasPrefix(name, x.name) {
			return x.reason, true
		}
	}
	return "", false
}

// wanted is everything that must have a count.
func wanted() []string {
	var all []string
	seen := map[protoreflect.FullName]bool{}
	var walk func(d protoreflect.MessageDescriptor)
	walk = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] {
			return
		}
		seen[d.FullName()] = true
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			all = append(all, "field "+string(f.FullName()))
			if f.Message() != nil {
				walk(f.Message())
			}
			if f.Enum() != nil {
				for j := range f.Enum().Values().Len() {
					all = append(all, fmt.Sprintf("value %s %s", f.FullName(), f.Enum().Values().Get(j).Name()))
				}
			}
		}
	}
	for name, m := range methods {
		all = append(all, "rpc "+name)
		if _, no := exclusion("rpc " + name); !no {
			walk(m.in.Descriptor())
			walk(m.out.Descriptor())
		}
	}
	for _, s := range texts {
		all = append(all, "error "+s)
	}
	sort.Strings(all)
	return slices.Compact(all)
}

// report prints the table and returns what has no count.
func (c *coverage) report(w io.Writer) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var missing []string
	names := wanted()
	fmt.Fprintf(w, "coverage of %d requests to each side:\n", c.requests)
	for _, name := range names {
		reason, no := exclusion(name)
		switch n := c.counts[name]; {
		case n > 0:
			fmt.Fprintf(w, "%8d  %s\n", n, name)
		case no:
			fmt.Fprintf(w, "       -  %s (%s)\n", name, reason)
		default:
			fmt.Fprintf(w, "       0  %s\n", name)
			missing = append(missing, name)
		}
	}
	for _, name := range c.others(names) {
		fmt.Fprintf(w, "%8d  %s (not asked for)\n", c.counts[name], name)
	}
	met.Lock()
	defer met.Unlock()
	for _, row := range append(slices.Clone(unsteady), meant...) {
		fmt.Fprintf(w, "%8d  tolerated: %s\n", met.rows[row.row], row.row)
	}
	return missing
}

// others are counted and not asked for.
func (c *coverage) others(names []string) []string {
	var others []string
	for name := range c.counts {
		if !slices.Contains(names, name) {
			others = append(others, name)
		}
	}
	sort.Strings(others)
	return others
}
