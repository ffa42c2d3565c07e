//go:build linux

package dr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

// smallDiskBytes hold a log of some segments and a store, and are filled quickly.
const smallDiskBytes = 256 << 20

const (
	largeBytes = 500 << 10
	fullMax    = 20 * time.Second // Longer than it takes to fill what the member has allocated.
)

func TestTheRunbookForAFullDisk(t *testing.T) {
	t.Parallel()
	for _, leads := range []bool{false, true} {
		t.Run(fmt.Sprintf("of the leader %t", leads), func(t *testing.T) { fullDisk(t, leads) })
	}
}

func fullDisk(t *testing.T, leads bool) {
	c := stopped(t, 3)
	m := c.Members[2]
	disk := smallDisk(t, c, m)
	if err := c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored := fill(t, c, "load")
	lead(t, c, m, leads)
	filler := filepath.Join(disk, "other")
	fillDisk(t, filler)
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	failed := 0
	for end := time.Now().Add(fullMax); m.Running() && time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := cl.Put(ctx, client.Put{Key: "large", Value: make([]byte, largeBytes)})
		cancel()
		if err != nil {
			failed++
		}
	}
	if !logs(t, m, "no space left on device") {
		t.Fatal("the disk is not full")
	}
	running := m.Running()
	if !running { // Starting it now helps nothing, and harms nothing.
		if err := errors.Join(m.Start(), m.WaitReady(t.Context())); err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Fatalf("it stopped, and now: %v", err)
		}
	}
	r, err := cl.Put(t.Context(), client.Put{Key: "large", Value: []byte("large")}) // As check wants it.
	if err != nil {
		t.Fatal(err)
	}
	stored.revisions["large"] = r.Header.Revision
	t.Logf("%d writes were answered with an error; the member with the full disk ran on: %t", failed, running)

	p := openPage(t, c, "full-disk.md", "The disk is full")
	p.Names = []string{"/var/lib/holdfast/m3", m.DataDir}
	p.Types(0)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	m.Kill() // It may be waiting: starting it does no harm.
	p.starts(m)
	if out := p.Types(0); strings.Count(out, "is healthy") != 3 {
		t.Error("not three healthy members")
	}
	check(t, c, stored)
}

// smallDisk gives a member a disk that others can fill.
func smallDisk(t *testing.T, c *cluster.Cluster, m *cluster.Member) (mount string) {
	t.Helper()
	mount = filepath.Join(c.Dir, "disk")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("holdfast-test", mount, "tmpfs", 0, fmt.Sprintf("size=%d", smallDiskBytes)); err != nil {
		if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
			t.Fatal(err)
		}
		t.Skipf("a small disk cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		m.Kill()
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	m.DataDir = filepath.Join(mount, m.Name)
	return mount
}

// fillDisk leaves no byte on a file's disk.
func fillDisk(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for piece := 1 << 20; piece > 0; {
		_, err := f.Write(make([]byte, piece))
		if errors.Is(err, syscall.ENOSPC) {
			piece /= 16
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// lead has a member lead, or another.
func lead(t *testing.T, c *cluster.Cluster, m *cluster.Member, leads bool) {
	t.Helper()
	cl, err := c.Client(m)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	until(t, func() error {
		s, err := cl.Status(t.Context())
		if err != nil {
			return err
		}
		if (s.Leader == s.Header.MemberId) == leads {
			return nil
		}
		target := s.Header.MemberId
		if !leads {
			r, err := cl.MemberList(t.Context(), false)
			if err != nil {
				return err
			}
			for _, other := range r.Members {
				if other.ID != s.Leader {
					target = other.ID
				}
			}
		}
		for _, from := range c.Members { // Only the leader hands over.
			if out, err := from.Ctl(t.Context(), "move-leader", fmt.Sprintf("%x", target)); err != nil {
				t.Log(out, err)
			}
		}
		return errors.New("leadership moves")
	})
}

// logs tells whether a member has ever logged a text.
func logs(t *testing.T, m *cluster.Member, text string) bool {
	t.Helper()
	data, err := os.ReadFile(m.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(data, []byte(text))
}
