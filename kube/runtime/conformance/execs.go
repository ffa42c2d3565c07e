package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func execCases() []test {
	return []test{
		{name: "a command in a container has its own streams and exit code", run: func(s *scene) {
			id := s.ready(s.spec(s.pod(), "wait"))
			for _, want := range []int32{0, 7, 200} {
				code, out, errs := s.exec(id, "both", "one", "two", fmt.Sprint(want))
				s.equal("exit code and streams", fmt.Sprint(code, out, errs), fmt.Sprint(want, "one\n", "two\n"))
			}
		}},
		{name: "what a command writes is not in the log of the container", run: func(s *scene) {
			c := s.spec(s.pod(), "wait")
			id := s.ready(c)
			s.exec(id, "print", "secret")
			s.equal("log", text(c.Log, ""), "ready\n")
		}},
		{name: "a command reads its standard input to the end", run: func(s *scene) {
			id := s.ready(s.spec(s.pod(), "wait"))
			in := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB.
			var out, errs buffer
			code, err := s.engine.Exec(s.ctx, id, &runtime.ExecSpec{Command: []string{s.setup.Files.Program, "cat"},
				Streams: runtime.Streams{Stdin: bytes.NewReader(in), Stdout: &out, Stderr: &errs}})
			s.ok(err)
			s.equal("exit code and what it says", fmt.Sprint(code, " ", errs.String()), "0 read 1048576\n")
			if out.String() != string(in) {
				s.Errorf("%d bytes came back, or others", len(out.String()))
			}
		}},
		{name: "a command without standard input finds its end at once", run: func(s *scene) {
			id := s.ready(s.spec(s.pod(), "wait"))
			code, _, errs := s.exec(id, "cat")
			s.equal("exit code and what it says", fmt.Sprint(code, " ", errs), "0 read 0\n")
		}},
		{name: "a command that ends does not wait for more input", run: func(s *scene) {
			id := s.ready(s.spec(s.pod(), "wait"))
			in, feed := io.Pipe()
			defer feed.Close()
			var out buffer
			code, err := s.engine.Exec(s.ctx, id, &runtime.ExecSpec{Command: []string{s.setup.Files.Program, "exit", "3"},
				Streams: runtime.Streams{Stdin: in, Stdout: &out}})
			s.ok(err)
			s.equal("exit code", code, 3)
		}},
	}
}

func execFailureCases() []test {
	return []test{
		{name: "a command that cannot be run is told as such", run: func(s *scene) {
			id := s.ready(s.spec(s.pod(), "wait"))
			for _, name := range []string{"/bin/absent", "absent", "/bin/text"} {
				_, err := s.engine.Exec(s.ctx, id, &runtime.ExecSpec{Command: []string{name}})
				s.wraps(err, runtime.ErrNoCommand)
			}
			code, out, _ := s.exec(id, "print", "but others can")
			s.equal("exit code and output", fmt.Sprint(code, " ", out), "0 but others can\n")
		}},
		{name: "no command runs in a container that has ended, or is not there", run: func(s *scene) {
			pod := s.pod()
			id := s.start(s.spec(pod, "exit", "0"))
			s.ended(pod, id)
			spec := &runtime.ExecSpec{Command: []string{s.setup.Files.Program, "exit", "0"}}
			_, err := s.engine.Exec(s.ctx, id, spec)
			s.wraps(err, runtime.ErrNotRunning)
			_, err = s.engine.Exec(s.ctx, pod.UID+"-absent", spec)
			s.wraps(err, runtime.ErrNotFound)
		}},
		{name: "a command is as confined as its container", isolated: true, run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "wait")
			c.Env, c.WorkingDir = append(c.Env, "OF=container"), "/data"
			c.Security = runtime.Security{User: number[int64](4321), Group: number[int64](5432), DropCapabilities: []string{"ALL"}, ReadOnlyRoot: true}
			id := s.ready(c)
			code, out, errs := s.exec(id, "report")
			s.equal("exit code", code, 0)
			if errs != "" {
				s.Error(errs)
			}
			r := s.parse(out)
			s.equal("variable and folder", r.env("OF")+" "+r.Dir, "container /data")
			s.equal("user and group", fmt.Sprint(r.UID, r.GID), "4321 5432")
			for _, set := range []string{"CapEff", "CapPrm", "CapBnd", "CapInh"} {
				s.equal(set, r.Status[set], "0000000000000000")
			}
			s.equal("no_new_privs and the filter", r.Status["NoNewPrivs"]+r.Status["Seccomp"], "12")
			code, _, _ = s.exec(id, "write", "/etc/new", "x")
			s.equal("exit code of a write", code, 1)
		}},
		{name: "a command ends with its context", run: func(s *scene) {
			pod := s.pod()
			id := s.ready(s.spec(pod, "wait"))
			ctx, cancel := context.WithCancel(s.ctx)
			defer cancel()
			var out buffer
			done := make(chan error, 1)
			go func() {
				_, err := s.engine.Exec(ctx, id, &runtime.ExecSpec{Command: []string{s.setup.Files.Program, "deaf"}, Streams: runtime.Streams{Stdout: &out}})
				done <- err
			}()
			s.until("the command", func() bool { return out.String() == "ready\n" })
			cancel()
			select {
			case err := <-done:
				if err == nil {
					s.Error("it ended well")
				}
			case <-s.ctx.Done():
				s.Fatal("it did not end")
			}
			s.equal("the container", s.container(pod, id).Phase, runtime.Running)
		}},
	}
}

func execWholeCases() []test {
	return []test{
		{name: "a command that nobody reads along with tells all at its end, and ends with its context", run: func(s *scene) {
			pod := s.pod()
			id := s.ready(s.spec(pod, "wait"))
			both := func() {
				var out, errs buffer
				code, err := s.engine.Exec(s.ctx, id, &runtime.ExecSpec{
					Command: []string{s.setup.Files.Program, "both", "one", "two", "7"}, Streams: runtime.Streams{Stdout: &out, Stderr: &errs}, Whole: true})
				s.ok(err)
				s.equal("exit code and streams", fmt.Sprint(code, out.String(), errs.String()), "7one\ntwo\n")
			}
			both()
			ctx, cancel := context.WithCancel(s.ctx)
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := s.engine.Exec(ctx, id, &runtime.ExecSpec{Command: []string{s.setup.Files.Program, "deaf"}, Whole: true})
				done <- err
			}()
			s.until("the command", func() bool { return len(s.running(pod, "deaf")) == 1 })
			both() // By then its start is over, and not only the command there.
			both()
			cancel()
			if err := <-done; err == nil {
				s.Error("it ended well")
			}
			s.until("its end", func() bool { return len(s.running(pod, "deaf")) == 0 })
			s.equal("the container", s.container(pod, id).Phase, runtime.Running)
		}},
	}
}

func attachCases() []test {
	return []test{
		{name: "who joins a container gets what it writes from then on, until it ends", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "tick")
			id := s.ready(c, "tick 3")
			var out buffer
			done := make(chan error, 1)
			go func() { done <- s.engine.Attach(s.ctx, id, runtime.Streams{Stdout: &out}) }()
			s.until("lines", func() bool { return strings.Count(out.String(), "\n") > 3 })
			if strings.Contains(out.String(), "tick 0\n") {
				s.Error("it gets what was before")
			}
			s.ok(s.engine.Stop(s.ctx, id, 20*time.Second))
			s.ok(<-done)
		}},
		{name: "who joins a container that reads is heard", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "ask")
			c.Stdin = true
			id := s.ready(c, "who?")
			var out buffer
			in, feed := io.Pipe()
			done := make(chan error, 1)
			go func() { done <- s.engine.Attach(s.ctx, id, runtime.Streams{Stdin: in, Stdout: &out}) }()
			// An engine may hear who joins before it lets that one hear: containerd does.
			said := 0
			s.until("an answer", func() bool {
				_, err := io.WriteString(feed, "world\n")
				s.ok(err)
				said++
				return strings.Contains(out.String(), "hello world\n")
			})
			_, err := io.WriteString(feed, "bye\n")
			s.ok(err)
			s.equal("exit code", s.ended(pod, id).ExitCode, 0)
			s.ok(<-done)
			feed.Close()
			s.equal("log", text(c.Log, ""), "who?\n"+strings.Repeat("hello world\n", said))
		}},
		{name: "nobody joins a container that has ended, or is not there", run: func(s *scene) {
			pod := s.pod()
			id := s.start(s.spec(pod, "exit", "0"))
			s.ended(pod, id)
			s.wraps(s.engine.Attach(s.ctx, id, runtime.Streams{}), runtime.ErrNotRunning)
			if err := s.engine.Attach(s.ctx, pod.UID+"-absent", runtime.Streams{}); !errors.Is(err, runtime.ErrNotFound) {
				s.Errorf("error %v", err)
			}
		}},
	}
}
