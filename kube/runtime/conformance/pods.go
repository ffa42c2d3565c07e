package conformance

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func podCases() []test {
	return []test{
		{name: "an engine says what it is", run: func(s *scene) {
			info := s.engine.Info()
			if info.Name == "" || info.Version == "" || info.PodNetwork && !info.Isolated {
				s.Errorf("it is %+v", info)
			}
			s.equal("what a second one is", s.another().Info(), info)
		}},
		{name: "a pod that was opened is listed with its name", run: func(s *scene) {
			spec := s.podSpec()
			pod := s.open(spec)
			listed := s.listed(spec.UID)
			if listed == nil {
				s.Fatal("it is not listed")
			}
			s.equal("its name", listed.Namespace+"/"+listed.Name, spec.Namespace+"/"+spec.Name)
			s.equal("the address listed", listed.IP, pod.IP)
			s.equal("that there is an address", pod.IP != "", s.engine.Info().PodNetwork)
			s.equal("its containers", len(listed.Containers), 0)
		}},
		{name: "a pod may be opened again and keeps its address", run: func(s *scene) {
			spec := s.podSpec()
			first := s.open(spec)
			again, err := s.engine.Open(s.ctx, spec)
			s.ok(err)
			s.equal("its address", again.IP, first.IP)
			pods, err := s.engine.List(s.ctx)
			s.ok(err)
			found := 0
			for _, p := range pods {
				if p.UID == spec.UID {
					found++
				}
			}
			s.equal("how often it is listed", found, 1)
		}},
		{name: "what was not opened is closed without an error", run: func(s *scene) {
			s.ok(s.engine.Close(s.ctx, s.podSpec().UID))
		}},
		{name: "an opening that ends with its context is mended by the next one", run: func(s *scene) {
			spec := s.podSpec()
			s.opened = append(s.opened, spec)
			ctx, cancel := context.WithTimeout(s.ctx, 5*time.Millisecond)
			defer cancel()
			s.engine.Open(ctx, spec) // May be done by then.
			_, err := s.engine.Open(s.ctx, spec)
			s.ok(err)
			c := s.spec(spec, "print", "it runs")
			s.equal("output", s.output(spec, c), "it runs\n")
		}},
	}
}

func containerCases() []test {
	return []test{
		{name: "a container is not started in a pod that is not open", run: func(s *scene) {
			spec := s.podSpec()
			s.opened = append(s.opened, spec)
			if id, err := s.engine.Start(s.ctx, s.spec(spec, "wait")); err == nil {
				s.Errorf("it is started: %s", id)
			}
		}},
		{name: "a container runs, and its ID begins with the UID of its pod", run: func(s *scene) {
			pod := s.pod()
			id := s.ready(s.spec(pod, "wait"))
			if !strings.HasPrefix(id, pod.UID) {
				s.Errorf("ID %q in pod %s", id, pod.UID)
			}
			c := s.container(pod, id)
			if c == nil {
				s.Fatal("it is not listed")
			}
			s.equal("name, attempt and phase", fmt.Sprint(c.Name, c.Attempt, c.Phase), fmt.Sprint("main", 0, runtime.Running))
			s.equal("its image", c.ImageID, s.setup.Images.Plain.ID)
			if age := time.Since(c.Started); age < 0 || age > timeMax {
				s.Errorf("started %v", c.Started)
			}
		}},
		{name: "a start that is repeated starts nothing more", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "wait")
			id := s.ready(c)
			s.equal("the ID of the second start", s.start(c), id)
			s.equal("containers", len(s.containers(pod)), 1)
		}},
		{name: "containers of one name in two pods have nothing to do with each other", run: func(s *scene) {
			a, b := s.pod(), s.pod()
			inA, inB := s.ready(s.spec(a, "wait")), s.ready(s.spec(b, "wait"))
			if inA == inB {
				s.Fatal("two containers with one ID")
			}
			if s.container(b, inA) != nil || s.container(a, inB) != nil {
				s.Error("one is listed in the pod of the other")
			}
			s.ok(s.engine.Close(s.ctx, a.UID))
			if s.listed(a.UID) != nil {
				s.Error("a closed pod is listed")
			}
			if c := s.container(b, inB); c == nil || c.Phase != runtime.Running {
				s.Errorf("after the other pod was closed: %+v", c)
			}
		}},
		{name: "pods are opened and containers started at the same time", run: startTogether},
		{name: "closing ends and removes everything but logs, and may be repeated", run: closeAll},
	}
}

func startTogether(s *scene) {
	const pods, each = 3, 2
	specs := make([]*runtime.PodSpec, pods)
	for i := range specs {
		specs[i] = s.podSpec()
		s.opened = append(s.opened, specs[i])
	}
	errs := make(chan error, pods)
	var all sync.WaitGroup
	for _, pod := range specs {
		all.Go(func() {
			if _, err := s.engine.Open(s.ctx, pod); err != nil {
				errs <- err
				return
			}
			for i := range each {
				c := s.spec(pod, "wait")
				s.named(pod, c, fmt.Sprint("c", i), 0)
				if _, err := s.engine.Start(s.ctx, c); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		s.Error(err)
	}
	for _, pod := range specs {
		running := 0
		for _, c := range s.containers(pod) {
			if c.Phase == runtime.Running {
				running++
			}
		}
		s.equal("running containers", running, each)
	}
}

// closeAll closes a pod with a container that runs and one that has ended.
func closeAll(s *scene) {
	pod := s.pod()
	c, other := s.spec(pod, "deaf"), s.spec(pod, "exit", "3")
	s.named(pod, other, "other", 0)
	s.ready(c)
	s.ended(pod, s.start(other))
	s.ok(s.engine.Close(s.ctx, pod.UID))
	if s.listed(pod.UID) != nil {
		s.Error("it is listed")
	}
	if left := Left(s.T, pod.UID); len(left) > 0 {
		s.Errorf("left: %s", strings.Join(left, "\n"))
	}
	s.equal("its log", text(c.Log, ""), "ready\n")
	if entries, err := os.ReadDir(pod.Dir + "/engine"); err == nil && len(entries) > 0 {
		s.Errorf("left in its folder: %v", entries)
	}
	s.ok(s.engine.Close(s.ctx, pod.UID))
}
