package conformance

import (
	"io"
	"strings"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func terminalCases() []test {
	return []test{
		{name: "a command has a terminal if it is wanted, whose size follows", run: func(s *scene) {
			id := s.ready(s.spec(s.pod(), "wait"))
			sizes := make(chan runtime.Size, 1)
			sizes <- runtime.Size{Columns: 100, Rows: 30}
			in, feed := io.Pipe()
			var out buffer
			code := make(chan int32, 1)
			go func() {
				n, err := s.engine.Exec(s.ctx, id, &runtime.ExecSpec{Command: []string{s.setup.Files.Program, "size"}, TTY: true,
					Streams: runtime.Streams{Stdin: in, Stdout: &out, Resize: sizes}})
				if err != nil {
					s.Error(err)
				}
				code <- n
			}()
			s.until("its size", func() bool { return strings.Contains(out.String(), "100x30") })
			sizes <- runtime.Size{Columns: 120, Rows: 40}
			s.until("its new size", func() bool { return strings.Contains(out.String(), "120x40") })
			_, err := io.WriteString(feed, "end\n")
			s.ok(err)
			s.equal("exit code", <-code, 5)
			close(sizes)
		}},
		{name: "without a terminal there is none", run: func(s *scene) {
			pod := s.pod()
			s.equal("a terminal", s.parse(s.output(pod, s.spec(pod, "report"))).TTY, false)
		}},
		{name: "a container has a terminal if it is wanted, which is heard by who joins", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "size")
			c.Stdin, c.TTY = true, true
			id := s.ready(c, "")
			sizes := make(chan runtime.Size, 1)
			sizes <- runtime.Size{Columns: 77, Rows: 22}
			in, feed := io.Pipe()
			defer feed.Close()
			var out buffer
			done := make(chan error, 1)
			go func() {
				done <- s.engine.Attach(s.ctx, id, runtime.Streams{Stdin: in, Stdout: &out, Resize: sizes})
			}()
			s.until("its size", func() bool { return strings.Contains(out.String(), "77x22") })
			_, err := io.WriteString(feed, "end\n")
			s.ok(err)
			s.equal("exit code", s.ended(pod, id).ExitCode, 5)
			s.ok(<-done)
			if got := text(c.Log, "stdout"); !strings.Contains(got, "77x22") {
				s.Errorf("its log is %q", got)
			}
		}},
	}
}
