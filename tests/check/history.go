package check

import (
	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// Outcome is what is known of a request.
type Outcome uint8

// Outcomes. The zero value is the careful one.
const (
	Unknown      Outcome = iota // A time-out, a broken connection: at most one effect, not before the call.
	Acknowledged                // There is a Response.
	Refused                     // Definitely no effect. Error says why.
)

var outcomeNames = []string{Unknown: "unknown", Acknowledged: "acknowledged", Refused: "refused"}

func (o Outcome) String() string { return outcomeNames[min(int(o), len(outcomeNames)-1)] }

// Op is one request of one client. Requests are those of the protocol: Range,
// Put, DeleteRange, Txn, Compaction, LeaseGrant, LeaseRevoke, LeaseKeepAlive
// and LeaseTimeToLive are checked, others only shown. A lease keep-alive is an
// Op for each message and its answer. Operations that return and are called at
// the same time are taken for concurrent.
type Op struct {
	ID         int // Unique in a history.
	Client     int
	Member     int   // That was asked.
	Connection int   // Counts those of the client to the member: serializable reads may go back from one to the next.
	Call       int64 // ns of the one monotonic clock of the history.
	Return     int64 // 0: never. An Unknown one may have it, but it bounds nothing.
	Request    proto.Message
	Response   proto.Message // Nil unless Acknowledged.
	Outcome    Outcome
	Error      string // As the client got it, without the code.
}

// Watch is one watcher, from its creation to its end. Resumed ones are others.
type Watch struct {
	ID      int // Unique among watches, from 1.
	Client  int
	Member  int
	Call    int64 // When it was asked for.
	Open    bool  // It was open when the log was read, and had been given time: it must have everything.
	Resumes int   // The ID of the watch that this one continues, 0 if none.
	Request *pb.WatchCreateRequest
	Seen    []WatchSeen // In the order of arrival, whatever was addressed to it, marks for all watchers included.
}

// WatchSeen is one answer that a watcher got.
type WatchSeen struct {
	Time     int64
	Response *pb.WatchResponse
}

// Compaction is one that no operation of the history asked for, such as those
// of automatic compaction.
type Compaction struct {
	Revision  int64
	NotBefore int64 // When it can have been at the earliest.
}

// Hash is what a member said of its keys. At equal Revision and Compacted, all
// members must say the same.
type Hash struct {
	Member    int
	Revision  int64
	Compacted int64
	Hash      uint32
}

// History is everything that was done to a cluster and seen of it. Its order
// of operations does not matter. The cluster began empty, at revision 1.
type History struct {
	Ops         []Op
	Watches     []Watch
	Log         []*mvccpb.Event // All of them in order, read at the end by a watch from revision 1, or kept by the harness. Previous values are optional.
	Head        int64           // The revision that the log was read at; 0: that of its last event.
	Compactions []Compaction
	Hashes      []Hash
	Holds       []Hold // Of locks and elections.
	Spans       []Span // For the report.
}

// Span is something that went on beside the operations: a fault, a leader, an
// election. It is drawn as a bar in the lane of its name.
type Span struct {
	Lane  string // Such as "leader", "network".
	Text  string
	From  int64
	To    int64 // From again: a moment.
	Fault bool  // It does harm: what was acknowledged before, during and after is counted.
}
