package conformance

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func contains(text, word string) bool {
	for _, w := range strings.Fields(text) {
		if w == word {
			return true
		}
	}
	return false
}

func restartCases() []test {
	return []test{
		{name: "a container that is started again is another one in the same pod", run: func(s *scene) {
			pod := s.pod()
			ip := s.listed(pod.UID).IP
			ids := map[string]bool{}
			for attempt := range 3 {
				c := s.spec(pod, "exit", "1")
				s.named(pod, c, "main", attempt)
				id := s.start(c)
				ids[id] = true
				s.ended(pod, id)
			}
			s.equal("different IDs", len(ids), 3)
			s.equal("the address of the pod", s.listed(pod.UID).IP, ip)
		}},
		{name: "of the ended attempts the last is kept with its log, and those before are removed", run: func(s *scene) {
			pod := s.pod()
			var logs []string
			for attempt := range 3 {
				c := s.spec(pod, "both", "out", "err", "1")
				s.named(pod, c, "main", attempt)
				logs = append(logs, c.Log)
				s.ended(pod, s.start(c))
			}
			c := s.spec(pod, "wait")
			s.named(pod, c, "main", 3)
			s.ready(c)
			var attempts []int
			for _, c := range s.containers(pod) {
				attempts = append(attempts, c.Attempt)
			}
			if len(attempts) != 2 || attempts[0]+attempts[1] != 5 {
				s.Errorf("attempts %v are listed, want 2 and 3", attempts)
			}
			for attempt, log := range logs[:2] {
				if _, err := os.Stat(log); !errors.Is(err, fs.ErrNotExist) {
					s.Errorf("the log of attempt %d: %v", attempt, err)
				}
			}
			s.equal("the log of the last that ended", text(logs[2], "stdout"), "out\n")
		}},
	}
}

func adoptionCases() []test {
	return []test{
		{name: "after a restart of the kubelet everything runs on, and can be used and ended", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "wait", "9")
			id := s.ready(c)
			before := s.container(pod, id)
			s.engine = s.another()
			after := s.container(pod, id)
			if after == nil {
				s.Fatal("it is not listed any more")
			}
			s.equal("the container", *after, *before)
			s.equal("name of the pod", s.listed(pod.UID).Name, pod.Name)
			s.equal("the ID of a repeated start", s.start(c), id)
			code, out, _ := s.exec(id, "print", "still there")
			s.equal("exec", out, "still there\n")
			s.equal("exit code of exec", code, 0)
			s.ok(s.engine.Stop(s.ctx, id, 20*time.Second))
			s.equal("exit code", s.ended(pod, id).ExitCode, 9)
		}},
		{name: "a kubelet that restarts learns of ends that it has missed", run: func(s *scene) {
			pod := s.pod()
			stop := filepath.Join(pod.Dir, "shared")
			must(s.T, os.Mkdir(stop, 0o755))
			c := s.spec(pod, "until", "data/end", "7")
			c.Mounts, c.WorkingDir = []runtime.Mount{{Source: stop, Target: "/data"}}, "/"
			id := s.ready(c)
			s.ok(s.engine.Shutdown())
			begin := time.Now()
			must(s.T, os.WriteFile(filepath.Join(stop, "end"), nil, 0o644))
			s.until("the end of the process", func() bool { return len(s.running(pod, "until")) == 0 })
			s.engine = nil // It is shut down already.
			s.engine = s.another()
			end := s.ended(pod, id)
			s.equal("exit code", end.ExitCode, 7)
			if end.Finished.Before(begin.Add(-time.Second)) || end.Finished.After(time.Now()) {
				s.Errorf("it ended %v, now is %v", end.Finished, time.Now())
			}
		}},
		{name: "logs go on while no kubelet runs", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "tick")
			id := s.ready(c, "tick")
			s.ok(s.engine.Shutdown())
			begin := len(text(c.Log, ""))
			s.until("more lines", func() bool { return len(text(c.Log, "")) > begin+100 })
			s.engine = nil
			s.engine = s.another()
			begin = len(text(c.Log, ""))
			s.until("more lines afterwards", func() bool { return len(text(c.Log, "")) > begin+100 })
			s.ok(s.engine.Stop(s.ctx, id, 20*time.Second))
		}},
	}
}

func nextAttemptCases() []test {
	return []test{
		{name: "a restarted kubelet hears of changes", run: func(s *scene) {
			pod := s.pod()
			s.ready(s.spec(pod, "deaf"))
			s.engine = s.another()
			before := s.heard(pod.UID)
			s.kill(pod, "deaf")
			s.until("the word of a change", func() bool { return s.heard(pod.UID) > before })
		}},
		{name: "a restarted kubelet starts the next attempt in the pod that is there", run: func(s *scene) {
			pod := s.pod()
			ip := s.listed(pod.UID).IP
			s.ended(pod, s.start(s.spec(pod, "exit", "1")))
			s.engine = s.another()
			again, err := s.engine.Open(s.ctx, pod)
			s.ok(err)
			s.equal("the address", again.IP, ip)
			c := s.spec(pod, "wait")
			s.named(pod, c, "main", 1)
			s.ready(c)
			s.equal("containers listed", len(s.containers(pod)), 2)
		}},
	}
}
