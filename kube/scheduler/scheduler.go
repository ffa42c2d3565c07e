package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/scheduler/placement"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Config is what a scheduler needs. Client and Logger are required.
type Config struct {
	Client *objects.Client // As the identity "system:scheduler".

	// Profile is how nodes are rated for pods that do not choose by schedulerName:
	// "spread" (the default) or "binpack".
	Profile string

	// Bound is told of each pod that has got a node, and how long it waited. Nil: nobody
	// counts.
	Bound func(waited time.Duration)

	Seed   uint64      // Breaks ties between nodes. The same seed, the same choice.
	Clock  clock.Clock // Default: the machine's.
	Logger hclog.Logger
}

// Validate reports all that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if c.Client == nil {
		errs = append(errs, errors.New("client: a scheduler needs one"))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("logger: a scheduler needs one"))
	}
	if _, ok := placement.ProfileNamed(c.Profile); !ok && c.Profile != "" {
		errs = append(errs, fmt.Errorf("profile %q: it is %s or %s", c.Profile, placement.Spread.Name, placement.Binpack.Name))
	}
	return errors.Join(errs...)
}

// Scheduler gives pods their nodes while it is run.
type Scheduler struct {
	client  *objects.Client
	profile placement.Profile
	seed    uint64
	clock   clock.Clock
	log     hclog.Logger
	journal *journal
	onBound func(waited time.Duration)
}

// New returns a scheduler that does nothing before Run.
func New(c Config) (*Scheduler, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	profile, ok := placement.ProfileNamed(c.Profile)
	if !ok {
		profile = placement.Spread
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	return &Scheduler{client: c.Client, profile: profile, seed: c.Seed, clock: c.Clock, log: c.Logger, journal: newJournal(), onBound: c.Bound}, nil
}

// Run schedules until ctx ends, or until a bind is refused because the fence does not
// hold: then another leads, and Run returns nil. It may be called again; it begins
// with what the cluster is then. Each bind carries the fence, if there is one.
func (s *Scheduler) Run(ctx context.Context, fence *kubepb.Fence) error {
	t := newTerm(s, fence)
	g := task.New(ctx)
	g.Go("scheduler pods", t.pods.Run)
	g.Go("scheduler nodes", t.nodes.Run)
	g.Go("scheduler conditions", t.reports.writeConditions)
	g.Go("scheduler events", t.reports.writeEvents)
	for range bindsMax {
		g.Go("scheduler bind", t.bindAll)
	}
	g.Go("scheduler decide", t.decideAll)
	g.Go("scheduler hold", t.awaitRecovery)
	err := g.Wait()
	if errors.Is(err, errFenced) {
		s.log.Warn("another scheduler leads", "fence", fence.GetCreateRevision())
		return nil
	}
	return err
}

// Explain says what was decided about a pod, the newest first. A scheduler that does
// not lead knows of nothing, or of what was when it did.
func (s *Scheduler) Explain(_ context.Context, pod *kubepb.Ref) (*kubepb.ExplainResponse, error) {
	return &kubepb.ExplainResponse{Decisions: s.journal.of(placement.Key{Namespace: pod.GetNamespace(), Name: pod.GetName()})}, nil
}

// profileOf is what a pod asks for by the name of its scheduler.
// Pods of other names are somebody else's.
func (s *Scheduler) profileOf(o *corev1.Pod) (placement.Profile, bool) {
	switch o.Spec.SchedulerName {
	case "", corev1.DefaultSchedulerName:
		return s.profile, true
	case placement.Binpack.Name:
		return placement.Binpack, true
	}
	return placement.Profile{}, false
}
