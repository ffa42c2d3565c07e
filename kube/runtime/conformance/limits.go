package conformance

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func limitCases() []test {
	return []test{
		{name: "a container that takes more memory than it may is killed, and the reason is told", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "grab", "400", "slowly")
			c.Resources.LimitMemoryBytes = 64 << 20
			end := s.ended(pod, s.start(c))
			s.equal("reason", end.Reason, runtime.OOMKilled)
			s.equal("exit code", end.ExitCode, 128+9)
		}},
		{name: "a container that stays within its memory runs", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "grab", "30")
			c.Resources.LimitMemoryBytes = 100 << 20
			id := s.ready(c)
			s.ok(s.engine.Stop(s.ctx, id, 10*time.Second))
			end := s.ended(pod, id)
			s.equal("exit code and reason", fmt.Sprint(end.ExitCode, end.Reason), "0")
		}},
		{name: "a container gets no more of the processors than it may", isolated: true, alone: true, run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "burn")
			c.Resources.LimitMilliCPU = 200
			s.ready(c)
			use := func() time.Duration { return s.usage(pod, "main").CPU }
			var share float64
			// On a busy machine one look may show less than the limit, none more.
			s.until("0.2 of a processor, within 15 %", func() bool {
				begin, before := time.Now(), use() // In this order, so that a pause between them makes it less.
				<-time.After(1500 * time.Millisecond)
				share = float64(use()-before) / float64(time.Since(begin))
				if share > 0.23 {
					s.Fatalf("it used %.3f of a processor", share)
				}
				return math.Abs(share-0.2) <= 0.03
			})
			s.Logf("%.3f of a processor", share)
		}},
		{name: "a container has no more processes than it may", isolated: true, run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "fork", "40")
			c.Resources.LimitPIDs = 30 // Threads count too.
			started := strings.Fields(s.output(pod, c))
			n, err := strconv.Atoi(started[len(started)-1])
			s.ok(err)
			if n >= 30 {
				s.Errorf("%d children with a limit of 30", n)
			}
			c = s.spec(pod, "fork", "40")
			s.named(pod, c, "free", 0)
			s.equal("children without a limit", s.output(pod, c), "started 40\n")
		}},
		{name: "the use of a pod is told by container, and grows", run: func(s *scene) {
			pod := s.pod()
			busy, idle := s.spec(pod, "burn"), s.spec(pod, "grab", "40")
			s.named(pod, idle, "idle", 0)
			s.ready(busy)
			s.ready(idle)
			first := s.usage(pod, "main").CPU
			s.until("more use", func() bool { return s.usage(pod, "main").CPU > first+200*time.Millisecond })
			// Runtimes that look each few seconds do not know it at once.
			s.until("40 MiB of memory", func() bool { return s.usage(pod, "idle").MemoryBytes >= 40<<20 })
			if b := s.usage(pod, "idle").MemoryBytes; b > 200<<20 {
				s.Errorf("%d bytes of memory", b)
			}
		}},
	}
}

func (s *scene) usage(pod *runtime.PodSpec, name string) runtime.Use {
	s.Helper()
	use, err := s.engine.Usage(s.ctx, pod.UID)
	s.ok(err)
	return use[name]
}
