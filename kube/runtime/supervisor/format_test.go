//go:build linux

package supervisor

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/kube/runtime/stage"
)

var then = time.Date(2026, 3, 1, 12, 0, 0, 500, time.UTC)

func pretty(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func TestFormsOfFilesAndMessagesAreThoseOfVersion1(t *testing.T) {
	adj := -998
	golden.File(t, "testdata/v1/record.json", pretty(t, Record{
		Version: Version, ID: "u1.web.2", Name: "web", Attempt: 2, ImageID: "sha256:ab", Log: "/logs/web/2.log", Scratch: "/pods/u1/engine/containers/web.2",
		State: StateExited, PID: 42, Started: then, Finished: then.Add(time.Second), ExitCode: 137, Reason: OOMKilled, Message: "why",
	}))
	golden.File(t, "testdata/v1/boot.json", pretty(t, Boot{
		Version: Version, UID: "u1", Dir: "/pods/u1/engine", Cgroups: []string{"/cg/cgroup.procs"}, Hostname: "web", Loopback: true, OOMScoreAdj: &adj, Subreaper: true,
	}))
	user := int64(7)
	golden.File(t, "testdata/v1/start.json", pretty(t, Request{Version: Version, Call: CallStart, Launch: &Launch{
		ID: "u1.web.2", Name: "web", Attempt: 2, ImageID: "sha256:ab", Log: "/logs/web/2.log", Isolated: true, Scratch: "/s", StopSignal: 15, Stdin: true,
		Kills: &Counter{File: "/cg/memory.events", Key: "oom_kill"}, MemoryMax: 1,
		Stage: stage.Spec{
			Cgroups: []string{"/cg/web/cgroup.procs"}, Argv: []string{"a", "b"}, Prefix: "/p", Env: []string{"A=b"}, Dir: "/", TTY: true, NoNewPrivileges: true, OOMScoreAdj: &adj,
			Root:   &stage.Root{Layers: []string{"/l"}, Work: "/w", ReadOnly: true, Mounts: []stage.Mount{{Source: "/v", Target: "/data", ReadOnly: true}}},
			Rights: &stage.Rights{ImageUser: "www", User: &user, Group: &user, Groups: []int64{8}, NonRoot: true, Caps: []string{"CHOWN"}, Unfiltered: true},
		},
	}}))
	golden.File(t, "testdata/v1/answer.json", pretty(t, Answer{
		Version: Version, Failure: &Failure{FailureNotRunning, "why"}, UID: "u1", PID: 3, ExitCode: 4, Usage: map[string]Usage{"web": {CPUNanos: 5, MemoryBytes: 6}},
	}))
}

func TestFrameIsReadBackAndOneThatIsTooLargeIsNot(t *testing.T) {
	kind, payload, err := ReadFrame(bytes.NewReader(EncodeFrame(FrameStdout, []byte("hello"))))
	if kind != FrameStdout || string(payload) != "hello" || err != nil {
		t.Errorf("%q %q %v", kind, payload, err)
	}
	if _, _, err := ReadFrame(strings.NewReader("1\xff\xff\xff\xffx")); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
	if _, _, err := ReadFrame(strings.NewReader("1\x00\x00\x00\x05hell")); err == nil {
		t.Error("a frame that was cut is whole")
	}
}

func TestRecordOfANewerVersionIsRefusedAndUnknownMembersAreNot(t *testing.T) {
	if _, err := decodeRecord([]byte(`{"version":2,"id":"a"}`)); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("got %v", err)
	}
	r, err := decodeRecord([]byte(`{"version":1,"id":"a","later":[1]}`))
	if err != nil || r.ID != "a" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestTornRecordIsRemovedAndOpenOnesAreLost(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, RecordFolder), 0o700); err != nil {
		t.Fatal(err)
	}
	scratch := filepath.Join(dir, RecordFolder, "a.0")
	if err := os.Mkdir(scratch, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{
		{ID: "u.a.0", Name: "a", State: StateRunning, Scratch: scratch}, {ID: "u.b.0", Name: "b", State: StateExited, ExitCode: 3},
	} {
		if err := writeRecord(dir, &r, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(recordPath(dir, "torn", 0), []byte(`{"version":1,`), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		all, err := MarkLost(dir, then)
		if err != nil || len(all) != 2 {
			t.Fatalf("%+v, %v", all, err)
		}
		if a := all[0]; a.State != StateExited || a.Reason != Lost || a.ExitCode != 137 || !a.Finished.Equal(then) {
			t.Errorf("running: %+v", a)
		}
		if b := all[1]; b.Reason != "" || b.ExitCode != 3 {
			t.Errorf("exited: %+v", b)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(dir, RecordFolder)); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}
