package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
)

// inShortFolders starts three members in folders whose sockets have names that
// the system takes.
func inShortFolders(t *testing.T) *servertest.Cluster {
	t.Helper()
	folder, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return servertest.New(t, 3, func(_ int, c *server.Config) { c.DataDir = filepath.Join(folder, c.Name) })
}

func TestAMemberThatRunsIsAskedAndFrozen(t *testing.T) {
	quick.LeaveOut(t)
	c := inShortFolders(t)
	m := c.Members[1]
	dir := m.Config.DataDir
	info, err := os.Stat(filepath.Join(dir, recovery.SocketName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket has mode %v, %v", info, err)
	}
	if _, stderr, code := offline(t, "--endpoints", m.Config.ListenClientURLs[0], "put", "a", "1"); code != 0 {
		t.Fatal(stderr)
	}
	facts := filepath.Join(t.TempDir(), "facts.json")
	collect := func(more ...string) string {
		t.Helper()
		if _, stderr, code := offline(t, append([]string{"recover", "collect", "--out", facts, dir}, more...)...); code != 0 {
			t.Fatal(stderr)
		}
		text, err := os.ReadFile(facts)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	plan := func() (stdout, stderr string, code int) {
		return offline(t, "recover", "plan", "--dead", "m0,m2", "--out", facts+".plan", facts)
	}
	if text := collect(); !strings.Contains(text, `"running": true`) || !strings.Contains(text, `"leader": `) {
		t.Errorf("facts: %s", text)
	}
	if _, stderr, code := plan(); code != exitFailed || !strings.Contains(stderr, "the quorum is not lost") {
		t.Errorf("%d: %s", code, stderr)
	}
	if _, stderr, code := offline(t, "recover", "auto", "--dead", "m0,m2", dir); code != exitFailed || !strings.Contains(stderr, "freeze it") {
		t.Errorf("%d: %s", code, stderr)
	}
	for _, i := range []int{0, 2} {
		c.Members[i].Stop()
	}
	for strings.Contains(collect(), `"leader": `) { // It steps down when it hears of nobody.
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("it follows a leader without a quorum")
		}
	}
	if stdout, stderr, code := plan(); code != 0 || !strings.Contains(stdout, "IT RUNS") {
		t.Fatalf("%d: %s%s", code, stdout, stderr)
	}
	if _, stderr, code := offline(t, "recover", "apply", facts+".plan"); code != exitFailed || !strings.Contains(stderr, "--freeze "+dir) {
		t.Errorf("%d: %s", code, stderr)
	}

	if text := collect("--freeze"); strings.Contains(text, `"running"`) || !strings.Contains(text, `"frozen": "frozen by recover collect"`) {
		t.Errorf("facts: %s", text)
	}
	<-m.Done()
	if !errors.Is(m.Err(), datadir.ErrFrozen) {
		t.Errorf("it ended with %v", m.Err())
	}
	if s, err := server.Start(t.Context(), m.Config); !errors.Is(err, datadir.ErrFrozen) {
		t.Errorf("started again: %v, %v", s, err)
	}
	if stdout, stderr, code := plan(); code != 0 || strings.Contains(stdout, "IT RUNS") {
		t.Errorf("%d: %s%s", code, stdout, stderr)
	}
}

// A path that no socket can have costs the socket alone.
func TestAMemberInADeepFolderRunsWithoutItsSocket(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep", 30))
	c := servertest.New(t, 1, func(_ int, c *server.Config) { c.DataDir = deep })
	_, stderr, code := offline(t, "recover", "collect", deep)
	if code != exitFailed || !strings.Contains(stderr, "in use by another process") || !strings.Contains(stderr, "can not be asked") {
		t.Errorf("%d: %s", code, stderr)
	}
	c.Members[0].Stop()
}
