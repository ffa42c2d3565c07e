// Package clienttest is a cluster for tests of clients: members in this
// process, one store in memory behind all of them, and no network.
//
// It answers as the protocol says for what clients do, and fails on command:
// a member stops or falls silent, an answer is lost after the request was
// executed, a stream ends between two messages. It knows nothing of Raft:
// whatever one member has, all have.
package clienttest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/proto/codec"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// Faults are asked on the way of each call. Nil: no fault. They may block until
// ctx ends.
type Faults struct {
	// Before decides whether a call is executed; its error is the answer.
	Before func(ctx context.Context, member int, method string) error
	// After decides whether the answer of an executed unary call arrives.
	After func(ctx context.Context, member int, method string) error
	// Watching decides whether an answer of a watch goes out; its error ends the stream.
	Watching func(member int, m *pb.WatchResponse) error
}

// Cluster is a set of members over one store.
type Cluster struct {
	store *store

	mu struct {
		sync.Mutex
		members  []*member
		faults   Faults
		calls    map[string]int
		metadata metadata.MD // Of the last call.
		fragment int
	}
}

type member struct {
	listener *bufconn.Listener
	server   *grpc.Server
	tasks    *task.Group
	silent   chan struct{} // Closed when the member speaks again. Nil: it speaks.
}

// pipeBytes is how much a connection holds before its writer waits.
const pipeBytes = 256 << 10

// New starts a cluster of so many members, which stops with the test.
func New(t testing.TB, members int) *Cluster {
	c := &Cluster{store: newStore()}
	c.mu.members = make([]*member, members)
	c.mu.calls = make(map[string]int)
	for i := range members {
		c.Start(i)
	}
	t.Cleanup(func() {
		for i := range members {
			c.Stop(i)
		}
	})
	return c
}

// Endpoints are the members' addresses, which Dial understands.
func (c *Cluster) Endpoints() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for i := range c.mu.members {
		list = append(list, Endpoint(i))
	}
	return list
}

// Endpoint is the address of one member.
func Endpoint(member int) string { return fmt.Sprintf("http://member-%d:2379", member) }

// Dial is the Dial of a client's Config.
func (c *Cluster) Dial(ctx context.Context, address string) (net.Conn, error) {
	var i int
	if _, err := fmt.Sscanf(address, "member-%d:2379", &i); err != nil {
		return nil, fmt.Errorf("no member has the address %q", address)
	}
	c.mu.Lock()
	var l *bufconn.Listener
	if i < len(c.mu.members) && c.mu.members[i] != nil {
		l = c.mu.members[i].listener
	}
	c.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("member %d is not running", i)
	}
	return l.DialContext(ctx)
}

// Start starts a member that is not running.
func (c *Cluster) Start(i int) {
	m := &member{listener: bufconn.Listen(pipeBytes), tasks: task.New(context.Background())}
	s := &service{cluster: c, store: c.store, member: i, tasks: m.tasks}
	m.server = grpc.NewServer(
		grpc.ForceServerCodecV2(codec.New()),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
	)
	pb.RegisterKVServer(m.server, s)
	pb.RegisterWatchServer(m.server, s)
	pb.RegisterLeaseServer(m.server, s)
	pb.RegisterClusterServer(m.server, s)
	pb.RegisterMaintenanceServer(m.server, s)
	pb.RegisterAuthServer(m.server, s)
	m.tasks.Go("serve", func(context.Context) error { return m.server.Serve(m.listener) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.members[i] = m
}

// Stop breaks a member's connections. It does nothing to one that is stopped.
func (c *Cluster) Stop(i int) {
	c.mu.Lock()
	m := c.mu.members[i]
	c.mu.members[i] = nil
	c.mu.Unlock()
	if m == nil {
		return
	}
	m.server.Stop()
	_ = m.tasks.Wait() // Serve may say that its listener was closed.
}

// Silence lets a member neither answer nor hang up, until it is stopped or
// Silence is called with false.
func (c *Cluster) Silence(i int, silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.mu.members[i]
	if m.silent != nil {
		close(m.silent)
		m.silent = nil
	}
	if silent {
		m.silent = make(chan struct{})
	}
}

// SetFaults replaces all faults.
func (c *Cluster) SetFaults(f Faults) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.faults = f
}

// FragmentAt lets answers of watches hold at most so many events each, where
// the client can join them. Zero: any number.
func (c *Cluster) FragmentAt(events int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.fragment = events
}

// Calls tells how often a method, by its short name, was asked for.
func (c *Cluster) Calls(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.calls[method]
}

// Metadata is that of the last call.
func (c *Cluster) Metadata() metadata.MD {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.metadata
}

// Revision is the store's.
func (c *Cluster) Revision() int64 {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	return c.store.mu.revision
}

// Put writes a key past all members, and returns the revision.
func (c *Cluster) Put(key, value string) int64 {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.store.putLocked(&pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	return c.store.commitLocked()
}

// PutAll writes keys in one revision, past all members.
func (c *Cluster) PutAll(value string, keys ...string) int64 {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	for _, key := range keys {
		c.store.putLocked(&pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	}
	return c.store.commitLocked()
}

// Compact compacts at a revision, past all members.
func (c *Cluster) Compact(revision int64) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.store.mu.compacted = revision
}

// Expire ends a lease, past all members.
func (c *Cluster) Expire(id int64) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.store.revokeLocked(id)
}
