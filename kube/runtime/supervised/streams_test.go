//go:build linux

package supervised

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/stage"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

// one is a pod with a container that runs a script, which has an input.
type one struct {
	*testing.T
	set *Set
	pod *Pod
	id  string
	log string
}

func startOne(t *testing.T, script string) *one {
	t.Helper()
	// Processes are known by the ID of their container, on the whole machine: tests of
	// other packages, that run at the same time, have pods called u1.
	const uid = "streams"
	s := newSet(t, nil)
	dir := t.TempDir()
	if _, err := s.Open(t.Context(), &runtime.PodSpec{UID: uid, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	p, err := s.Find(uid)
	if err != nil {
		t.Fatal(err)
	}
	o := &one{T: t, set: s, pod: p, id: ContainerID(uid, "c", 0), log: filepath.Join(dir, "0.log")}
	l := &supervisor.Launch{ID: o.id, Name: "c", Log: o.log, Stdin: true, StopSignal: int(unix.SIGTERM), Stage: stage.Spec{
		Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=" + os.Getenv("PATH")}, Dir: "/",
	}}
	if err := s.Start(t.Context(), uid, l, func(*Pod) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return o
}

// join attaches, and leaves it to the caller to read.
func (o *one) join(ctx context.Context) *net.UnixConn {
	o.Helper()
	conn, done, err := client{o.pod.Dir()}.connect(ctx, &supervisor.Request{Call: supervisor.CallAttach, ID: o.id})
	if err != nil {
		o.Fatal(err)
	}
	o.Cleanup(done)
	if kind, _, err := supervisor.ReadFrame(conn); kind != supervisor.FrameJoined || err != nil {
		o.Fatalf("%c, %v", kind, err)
	}
	return conn
}

// hear reads what comes, up to the answer.
func (o *one) hear(conn net.Conn) (output string, answer *supervisor.Answer) {
	o.Helper()
	var said strings.Builder
	for {
		kind, payload, err := supervisor.ReadFrame(conn)
		if err != nil {
			o.Fatalf("after %d bytes: %v", said.Len(), err)
		}
		if kind == supervisor.FrameAnswer {
			answer = &supervisor.Answer{}
			if err := json.Unmarshal(payload, answer); err != nil {
				o.Fatal(err)
			}
			return said.String(), answer
		}
		said.Write(payload)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 1000 {
		if is() {
			return
		}
		<-clock.Real().After(10 * time.Millisecond)
	}
	t.Fatalf("not in 10 s: %s", what)
}

// Two are attached, and one of them never reads: the other and the log have all, the
// container ends, and the first hears why he was let go once he reads. Who reads is let go
// too where the machine pauses for so long: then it is tried again.
func TestWhoDoesNotReadIsLetGoAndHearsWhy(t *testing.T) {
	heard := false
	for try := 1; !heard && try <= 8; try++ {
		t.Run(strconv.Itoa(try), func(t *testing.T) { heard = oneReads(t) })
	}
	if !heard {
		t.Error("who reads is let go, again and again")
	}
}

// oneReads of two, and has all, unless it was let go. It reports which.
func oneReads(t *testing.T) bool {
	const lines = 40_000
	o := startOne(t, `read go; i=0; while [ $i -lt 40000 ]; do echo "line $i 0123456789012345678901234567890123456789"; i=$((i+1)); done`)
	silent, reader := o.join(t.Context()), o.join(t.Context())
	if _, err := reader.Write(supervisor.EncodeFrame(supervisor.FrameStdin, []byte("go\n"))); err != nil {
		t.Fatal(err)
	}
	said, all := o.hear(reader)
	if n := strings.Count(said, "\n"); all.Failure == nil && n != lines {
		t.Errorf("who reads heard %d lines of %d", n, lines)
	}
	said, answer := o.hear(silent)
	if answer.Failure == nil || !strings.Contains(answer.Failure.Text, "its log has all") {
		t.Errorf("who did not read heard %d bytes, %+v", len(said), answer.Failure)
	}
	eventually(t, "the log has all", func() bool {
		log, err := os.ReadFile(o.log)
		return err == nil && bytes.Count(log, []byte("\n")) == lines
	})
	return all.Failure == nil
}

// A command ends when pipe and connection are full, and only later somebody reads.
func TestOutputOfACommandWaitsForWhoReadsIt(t *testing.T) {
	o := startOne(t, "exec sleep 1000")
	conn, done, err := client{o.pod.Dir()}.connect(t.Context(), &supervisor.Request{
		Call: supervisor.CallExec, ID: o.id, Command: []string{"/bin/sh", "-c", "echo $$ >&2; exec dd if=/dev/zero bs=1024"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	pid, heard := 0, 0
	for pid == 0 {
		kind, payload, err := supervisor.ReadFrame(conn)
		if err != nil {
			t.Fatal(err)
		}
		heard += len(payload)
		if kind == supervisor.FrameStderr {
			if pid, err = strconv.Atoi(strings.TrimSpace(string(payload))); err != nil {
				t.Fatal(err)
			}
		}
	}
	written, same := 0, 0
	eventually(t, "it cannot write any more", func() bool {
		before := written
		written = writtenBy(t, pid)
		if same++; written == 0 || written != before {
			same = 0
		}
		return same == 20
	})
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-clock.Real().After(2500 * time.Millisecond) // Longer than is waited for what holds a pipe.
	said, answer := o.hear(conn)
	if heard += len(said); heard < written || answer.Failure != nil || answer.ExitCode != 137 {
		t.Errorf("heard %d bytes of %d, %+v", heard, written, answer)
	}
}

// writtenBy is how much a process has written.
func writtenBy(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/io")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "wchar: ")
	n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return n
}

// endless is an input without an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestCommandWhoseClientGoesIsKilledThoughItDoesNotReadItsInput(t *testing.T) {
	o := startOne(t, "exec sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	result := make(chan error, 1)
	go func() {
		_, err := o.set.Exec(ctx, o.id, &runtime.ExecSpec{
			Command: []string{"/bin/sh", "-c", "echo $$; exec sleep 1000"}, Streams: runtime.Streams{Stdin: endless{}, Stdout: in},
		})
		result <- err
	}()
	pid := 0
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	eventually(t, "the command is killed", func() bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) })
}

func TestWhoAttachedAndGoesIsForgottenThoughTheContainerDoesNotReadItsInput(t *testing.T) {
	o := startOne(t, "exec sleep 1000")
	descriptors := func() int {
		open, err := os.ReadDir("/proc/" + strconv.Itoa(supervisorPID(t, o.pod)) + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(open)
	}
	before := descriptors()
	conn := o.join(t.Context())
	if err := conn.SetWriteDeadline(clock.Real().Wall().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(frameWriter{conn, supervisor.FrameStdin}, endless{})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("all is taken: %v", err)
	}
	conn.Close()
	eventually(t, "its connection is closed", func() bool { return descriptors() <= before })
}
