package raftnode_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
	"github.com/holdfast-db/holdfast/raftnode/wal"
)

// fill has each new segment find the disk full a few times.
func fill(disk *vfstest.Mem) {
	var mu sync.Mutex
	tries := 0
	disk.Inject(func(op vfstest.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind != vfstest.OpCreate || !strings.Contains(op.Name, "wal/new-") {
			return nil
		}
		if tries++; tries%3 != 0 {
			return &fs.PathError{Op: "create", Path: op.Name, Err: syscall.ENOSPC}
		}
		return nil
	})
}

// What was acknowledged survives a crash of a member on a real log whose disk
// is often full, and forgets what was not synced.
func TestAcknowledgedPutsSurviveACrashOnTheRealLog(t *testing.T) {
	disk := vfstest.NewMem()
	cfg := wal.Config{FS: disk, Dir: "wal", SegmentBytes: 16 << 10, Logger: hclog.NewNullLogger()}
	if err := errors.Join(disk.MkdirAll("wal"), disk.SyncDir(".")); err != nil {
		t.Fatal(err)
	}
	log, err := wal.Create(cfg, first)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	machine := raftnodetest.NewMachine(first, voters(1))
	acknowledged := map[string]bool{}
	for boot := range len(vfstest.Images) + 1 {
		log, found, err := wal.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		fill(disk)
		node := startOn(t, log, found, machine)
		<-node.Ready()
		have := map[string]bool{}
		for _, r := range machine.Requests() {
			have[r] = true
		}
		for r := range acknowledged {
			if !have[r] {
				t.Fatalf("boot %d: %s was acknowledged and is lost", boot, r)
			}
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for client := range 10 {
			wg.Go(func() {
				for i := range 20 {
					data := fmt.Sprintf("%d.%d.%d", boot, client, i)
					if _, err := node.Propose(context.Background(), []byte(data)); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					acknowledged[data] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if boot%2 == 0 {
			node.Checkpointed(machine.Checkpoint(), []byte("transaction 7"))
		}
		crashed := disk.Crash(vfstest.Crash{Image: vfstest.Images[boot%len(vfstest.Images)]})
		machineAfter := machine.Crash()
		if err := node.Close(); err != nil {
			t.Fatal(err)
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		disk, machine = crashed, machineAfter
		cfg.FS = disk
	}
}

func startOn(t *testing.T, log raftnode.Log, found *wal.Recovered, machine *raftnodetest.Machine) *raftnode.Node {
	t.Helper()
	node, err := raftnode.Start(raftnode.Config{
		ID: 1, StateMachine: machine, Applied: machine.Applied(), Log: log, Recovered: found,
		Network: nowhere{}, Clock: clock.Real(), Random: raftnodetest.NewRandom(uint64(time.Now().UnixNano())),
		Logger: hclog.NewNullLogger(), CatchUpEntries: 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	return node
}
