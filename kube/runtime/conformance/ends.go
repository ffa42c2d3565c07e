package conformance

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func endCases() []test {
	return []test{
		{name: "a container that ends tells its exit code and when", run: func(s *scene) {
			pod := s.pod()
			for i, code := range []string{"0", "7", "255"} {
				c := s.spec(pod, "exit", code)
				s.named(pod, c, "exit-"+code, 0)
				end := s.ended(pod, s.start(c))
				s.equal("exit code", end.ExitCode, []int{0, 7, 255}[i])
				if end.Finished.Before(end.Started) || end.Started.IsZero() || time.Since(end.Finished) > timeMax {
					s.Errorf("from %v to %v", end.Started, end.Finished)
				}
			}
		}},
		{name: "a container that a signal kills has the exit code 128 and the signal", run: func(s *scene) {
			pod := s.pod()
			id := s.ready(s.spec(pod, "deaf"))
			s.kill(pod, "deaf")
			end := s.ended(pod, id)
			s.equal("exit code", end.ExitCode, 128+9)
			if end.Reason == runtime.OOMKilled {
				s.Error("it is taken for one that lacked memory")
			}
		}},
		{name: "the engine says that something changed when a container ends", run: func(s *scene) {
			pod := s.pod()
			id := s.ready(s.spec(pod, "deaf"))
			before := s.heard(pod.UID)
			s.kill(pod, "deaf")
			s.until("the word of a change", func() bool { return s.heard(pod.UID) > before })
			s.ended(pod, id)
		}},
		{name: "stop sends TERM and returns when the container has ended", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "wait", "5")
			id := s.ready(c)
			s.ok(s.engine.Stop(s.ctx, id, 20*time.Second))
			end := s.container(pod, id)
			if end == nil || end.Phase != runtime.Exited {
				s.Fatalf("after stop: %+v", end)
			}
			s.equal("exit code", end.ExitCode, 5)
			s.equal("output", text(c.Log, ""), "ready\nasked to end\n")
		}},
	}
}

func stopCases() []test {
	return []test{
		{name: "stop sends the signal of the image", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "on", "10")
			c.Image = s.setup.Images.WithSignal
			id := s.ready(c)
			s.ok(s.engine.Stop(s.ctx, id, 20*time.Second))
			s.equal("exit code", s.ended(pod, id).ExitCode, 3)
		}},
		{name: "a container that does not hear TERM is killed after its grace", run: func(s *scene) {
			pod := s.pod()
			id := s.ready(s.spec(pod, "deaf"))
			begin := time.Now()
			s.ok(s.engine.Stop(s.ctx, id, time.Second))
			if took := time.Since(begin); took < time.Second || took > 15*time.Second {
				s.Errorf("it took %v", took)
			}
			s.equal("exit code", s.ended(pod, id).ExitCode, 128+9)
		}},
		{name: "a stop in a hurry cuts the grace of an earlier one short", run: func(s *scene) {
			pod := s.pod()
			id := s.ready(s.spec(pod, "deaf"))
			first := make(chan error, 1)
			go func() { first <- s.engine.Stop(s.ctx, id, time.Minute) }()
			begin := time.Now()
			s.ok(s.engine.Stop(s.ctx, id, 100*time.Millisecond))
			s.ok(<-first)
			if took := time.Since(begin); took > 20*time.Second {
				s.Errorf("it took %v", took)
			}
		}},
		{name: "closing a pod cuts the grace of a stop short", run: func(s *scene) {
			pod := s.pod()
			id := s.ready(s.spec(pod, "deaf"))
			first := make(chan error, 1)
			go func() { first <- s.engine.Stop(s.ctx, id, time.Minute) }()
			begin := time.Now()
			s.ok(s.engine.Close(s.ctx, pod.UID))
			<-first // The container is gone: an error or none.
			if took := time.Since(begin); took > 20*time.Second {
				s.Errorf("it took %v", took)
			}
		}},
		{name: "a stop of what has ended is a success", run: func(s *scene) {
			pod := s.pod()
			id := s.start(s.spec(pod, "exit", "4"))
			s.ended(pod, id)
			s.ok(s.engine.Stop(s.ctx, id, time.Minute))
			s.equal("exit code", s.ended(pod, id).ExitCode, 4)
		}},
		{name: "what a container has started ends with it", run: func(s *scene) {
			pod := s.pod()
			stop := filepath.Join(pod.Dir, "shared")
			must(s.T, os.Mkdir(stop, 0o755))
			c := s.spec(pod, "children", "data/end", "6")
			c.Mounts, c.WorkingDir = []runtime.Mount{{Source: stop, Target: "/data"}}, "/"
			id := s.ready(c)
			must(s.T, os.WriteFile(filepath.Join(stop, "end"), nil, 0o644))
			s.equal("exit code", s.ended(pod, id).ExitCode, 6)
			s.until("the end of its child", func() bool { return len(s.running(pod, "deaf")) == 0 })
		}},
	}
}

// running are the processes of a pod that do something.
func (s *scene) running(pod *runtime.PodSpec, verb string) []int {
	var found []int
	for _, pid := range processes() {
		if strings.Contains(variables(pid), mark(pod)) && contains(arguments(pid), verb) {
			n, _ := strconv.Atoi(pid)
			found = append(found, n)
		}
	}
	return found
}

// kill kills, as the machine would, the one process of a pod that does something.
func (s *scene) kill(pod *runtime.PodSpec, verb string) {
	s.Helper()
	pids := s.running(pod, verb)
	if len(pids) != 1 {
		s.Fatalf("processes %v, want one", pids)
	}
	s.ok(syscall.Kill(pids[0], syscall.SIGKILL))
}
