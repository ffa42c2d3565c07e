package raftnode_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// thinLog stores nothing; a sync takes as long as a disk might.
type thinLog struct {
	*raftnodetest.MemLog
	sync    time.Duration
	entries atomic.Int64
	syncs   atomic.Int64
}

func (l *thinLog) Append(entries []*raftpb.Entry, _ *wal.HardState) error {
	l.entries.Add(int64(len(entries)))
	return nil
}

func (l *thinLog) Sync() error {
	l.syncs.Add(1)
	if l.sync > 0 {
		<-clock.Real().After(l.sync)
	}
	return nil
}

// thinMachine answers and keeps nothing.
type thinMachine struct {
	*raftnodetest.Machine
	answers []entry.Answer
}

func (m *thinMachine) Apply(entries []entry.Entry) ([]entry.Answer, error) {
	m.answers = m.answers[:0]
	for i := range entries {
		for _, r := range entries[i].Requests {
			m.answers = append(m.answers, entry.Answer{ID: r.ID})
		}
	}
	return m.answers, nil
}

// What does a put cost in raftnode alone, with nothing stored and nothing executed?
func BenchmarkPropose(b *testing.B) {
	for _, sync := range []time.Duration{0, 200 * time.Microsecond} {
		for _, aside := range []bool{false, true} {
			for _, clients := range []int{1, 100, 1000} {
				b.Run(fmt.Sprintf("sync=%s/aside=%v/clients=%d", sync, aside, clients), func(b *testing.B) {
					benchmarkPropose(b, clients, sync, aside)
				})
			}
		}
	}
}

func benchmarkPropose(b *testing.B, clients int, syncTime time.Duration, aside bool) {
	log := &thinLog{MemLog: raftnodetest.NewMemLog(first), sync: syncTime}
	machine := &thinMachine{Machine: raftnodetest.NewMachine(first, voters(1))}
	node := startThin(b, 1, log, machine, nowhere{}, aside)
	<-node.Ready()
	putAll(b, clients, node)
	b.ReportMetric(float64(b.N)/float64(log.entries.Load()), "requests/entry")
	if err := node.Close(); err != nil {
		b.Fatal(err)
	}
}

func startThin(b *testing.B, id ident.MemberID, log *thinLog, machine *thinMachine, network raftnode.Network, aside bool) *raftnode.Node {
	b.Helper()
	node, err := raftnode.Start(raftnode.Config{
		ID: id, StateMachine: machine, Applied: machine.Applied(), Log: log, Recovered: log.Recovered(),
		Network: network, Clock: clock.Real(), Random: raftnodetest.NewRandom(uint64(id)), Logger: hclog.NewNullLogger(),
		AlwaysAppendAside: aside,
	})
	if err != nil {
		b.Fatal(err)
	}
	return node
}

func putAll(b *testing.B, clients int, nodes ...*raftnode.Node) {
	b.Helper()
	data := make([]byte, 300)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range clients {
		node := nodes[i%len(nodes)]
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := node.Propose(context.Background(), data); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

// The same with three members on a net that only hands pointers over: the time
// is that of all three together.
func BenchmarkProposeTrio(b *testing.B) {
	for _, clients := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			net := raftnodetest.NewNet()
			var nodes []*raftnode.Node
			var leaderLog *thinLog
			for id := ident.MemberID(1); id <= 3; id++ {
				leaderLog = &thinLog{MemLog: raftnodetest.NewMemLog(first), sync: 200 * time.Microsecond}
				machine := &thinMachine{Machine: raftnodetest.NewMachine(first, voters(1, 2, 3))}
				nodes = append(nodes, startThin(b, id, leaderLog, machine, net.At(id), false))
				net.Attach(id, nodes[id-1])
			}
			for _, n := range nodes {
				<-n.Ready()
			}
			putAll(b, clients, nodes...)
			b.ReportMetric(float64(b.N)/float64(leaderLog.entries.Load()), "requests/entry")
			for _, n := range nodes {
				if err := n.Close(); err != nil {
					b.Fatal(err)
				}
			}
			if err := net.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// What does a linearizable read cost?
func BenchmarkReadIndex(b *testing.B) {
	log := &thinLog{MemLog: raftnodetest.NewMemLog(first)}
	machine := &thinMachine{Machine: raftnodetest.NewMachine(first, voters(1))}
	node := startThin(b, 1, log, machine, nowhere{}, false)
	<-node.Ready()
	b.ReportAllocs()
	for b.Loop() {
		if err := node.ReadIndex(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	if err := node.Close(); err != nil {
		b.Fatal(err)
	}
}
