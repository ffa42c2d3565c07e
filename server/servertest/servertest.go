// Package servertest starts members inside a test: on loopback ports that the
// system chooses, in temporary folders, with timers short enough for a test.
package servertest

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/server"
)

// readyMax bounds the wait for a member: far more than it takes, so that a
// loaded machine is no failure.
const readyMax = 2 * time.Minute

// segmentBytes of a Raft log: two files are written in full at each first start,
// which at their usual size was half of the time that a test of one member took.
const segmentBytes = 4 << 20

// Cluster is members in this process.
type Cluster struct {
	t       testing.TB
	Members []*Member
}

// Member is one of them; Server is nil while it is stopped.
type Member struct {
	*server.Server
	Config  server.Config
	PeerURL string
	t       testing.TB
}

// New starts n members and waits until all serve. Set, if not nil, changes the
// configuration of each before.
func New(t testing.TB, n int, set func(i int, c *server.Config)) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	var initial []string
	for i := range n {
		m := &Member{t: t, PeerURL: "http://" + Hold(t)}
		m.Config = server.DefaultConfig(hclog.NewNullLogger())
		m.Config.Name = fmt.Sprintf("m%d", i)
		m.Config.DataDir = filepath.Join(t.TempDir(), m.Config.Name)
		m.Config.ListenPeerURLs = []string{m.PeerURL}
		m.Config.ListenClientURLs = []string{"http://" + Hold(t)}
		m.Config.WALSegmentBytes = segmentBytes
		m.Config.HeartbeatInterval = 50 * time.Millisecond
		m.Config.ElectionTimeout = 500 * time.Millisecond
		m.Config.Listen = net.Listen
		initial = append(initial, m.Config.Name+"="+m.PeerURL)
		c.Members = append(c.Members, m)
	}
	for i, m := range c.Members {
		m.Config.InitialCluster = strings.Join(initial, ",")
		if set != nil {
			set(i, &m.Config)
		}
	}
	c.start()
	for _, m := range c.Members {
		m.WaitReady()
	}
	return c
}

// start starts all at once, as machines do, and has all end at once: one after
// the other, each leader would hand over to the next.
func (c *Cluster) start() {
	c.t.Helper()
	c.t.Cleanup(func() { c.each((*Member).close) })
	if err := c.each((*Member).start); err != nil {
		c.t.Fatal(err)
	}
}

// each does the same to all members, beside each other.
func (c *Cluster) each(f func(*Member) error) error {
	errs := make([]error, len(c.Members))
	var all sync.WaitGroup
	for i, m := range c.Members {
		all.Go(func() { errs[i] = f(m) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (m *Member) start() error {
	s, err := server.Start(m.t.Context(), m.Config)
	if err != nil {
		return fmt.Errorf("start %s: %w", m.Config.Name, err)
	}
	if before := m.Server; before != nil {
		m.t.Cleanup(func() { before.Close() }) // Where it ended by itself.
	}
	m.Server = s
	return nil
}

func (m *Member) close() error {
	if m.Server == nil {
		return nil
	}
	return m.Close()
}

// Start starts a member that is stopped.
func (m *Member) Start() {
	m.t.Helper()
	if err := m.start(); err != nil {
		m.t.Fatal(err)
	}
}

// WaitReady waits until clients are served.
func (m *Member) WaitReady() {
	m.t.Helper()
	select {
	case <-m.Ready():
	case <-m.Done():
		m.t.Fatalf("member %s ended: %v", m.Config.Name, m.Err())
	case <-time.After(readyMax):
		m.t.Fatalf("member %s is not ready after %v", m.Config.Name, readyMax)
	}
}

// Stop closes a member, which can be started again.
func (m *Member) Stop() {
	m.t.Helper()
	if err := m.Close(); err != nil {
		m.t.Fatalf("stop %s: %v", m.Config.Name, err)
	}
}

// Leader waits for the member that leads.
func (c *Cluster) Leader() *Member {
	c.t.Helper()
	deadline := time.Now().Add(readyMax)
	for time.Now().Before(deadline) {
		for _, m := range c.Members {
			select {
			case <-m.Done():
				continue
			default:
			}
			if m.IsLeader() {
				return m
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-c.t.Context().Done():
		}
	}
	c.t.Fatal("nobody leads")
	return nil
}

// ClientURLs of all members.
func (c *Cluster) ClientURLs() []string {
	var urls []string
	for _, m := range c.Members {
		urls = append(urls, m.Config.ListenClientURLs...)
	}
	return urls
}
