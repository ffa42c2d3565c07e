package dr

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/tests/cluster"
)

// refusesToStart wants a member that ends, and says why.
func refusesToStart(t *testing.T, m *cluster.Member, why string) {
	t.Helper()
	if err := errors.Join(m.Start(), m.WaitReady(t.Context())); err == nil || !strings.Contains(err.Error(), why) {
		t.Fatalf("%s starts, or does not say %q: %v", m.Name, why, err)
	}
}

func TestTheRunbookForAMove(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	stored := fill(t, c, "load")
	m := c.Members[2]
	elsewhere, err := cluster.New(t.TempDir(), binaries.Binaries, 1)
	if err != nil {
		t.Fatal(err)
	}
	place := elsewhere.Members[0].Place
	mnt := t.TempDir()
	if err := os.Mkdir(filepath.Join(mnt, "new"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := openPage(t, c, "move.md")
	p.Names = []string{"/mnt/", mnt + "/", "https://10.0.0.7:2380", place.PeerURL, "https://10.0.0.7:2379", place.ClientURL}

	m.Terminate()
	p.Types(0)
	refusesToStart(t, m, "frozen")
	p.starts(m)
	fill(t, c, "on another disk")

	m.Terminate()
	p.Types(0)
	refusesToStart(t, m, "--wal-dir")
	p.starts(m)
	fill(t, c, "with a log elsewhere")

	m.Terminate()
	p.Types(0)
	m.Place = place
	p.starts(m)
	if out := p.Types(0); strings.Count(out, "is healthy") != 3 || !strings.Contains(out, place.PeerURL+", "+place.ClientURL) {
		t.Error("not three healthy members, one of them at its new address")
	}
	check(t, c, stored)
}

func TestTheRunbookForAnUpgrade(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	stored := fill(t, c, "load")
	p := openPage(t, c, "upgrade.md")
	p.Types(0)
	turn := p.Blocks
	for _, m := range c.Members {
		p.Blocks = slices.Clone(turn)
		m.Terminate()
		p.starts(m)
		p.Types(0)
	}
	if out := p.Types(0); strings.Contains(out, "alarm:") {
		t.Error("there is an alarm")
	}
	check(t, c, stored)
}

// The settings of the page are those of one member; the others run beside it.
func TestTheRunbookForAnInstallation(t *testing.T) {
	t.Parallel()
	c := stopped(t, 3)
	p := openPage(t, c, "install.md")
	etc := t.TempDir()
	p.Names = []string{"/etc/holdfast/certs", filepath.Join(c.Dir, "certs"), "/etc/holdfast", etc, archiveOfThePages, "file://" + t.TempDir()}
	p.Types(0)
	cmd := p.Command("set -a; . " + filepath.Join(etc, "holdfast.env") + "; exec holdfast")
	cmd.Env = append(cmd.Env, "HOLDFAST_DATA_DIR="+c.Members[0].DataDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // Killed, as the context has ended.
	for _, m := range c.Members[1:] {
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, func() error { return p.Command(p.Blocks[0].Text).Run() })
	if out := p.Types(0); !strings.Contains(out, "3 of 3 voters answer") {
		t.Error("not three members")
	}
}
