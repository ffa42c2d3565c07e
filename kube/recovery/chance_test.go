package recovery_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/recovery"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

var (
	seedFlag = flag.Uint64("seed", 0, "of random changes; 0: drawn and printed")
	restores = flag.Int("restores", 3, "restores of a random run")
)

// chance is a run of random changes.
type chance struct {
	*world
	x    *rand.Rand
	made int
	bare map[types.UID]bool
}

// change does one thing that a person may do.
func (c *chance) change() {
	apps := []string{"web", "api", "one"}
	app := apps[c.x.IntN(len(apps))]
	var err error
	switch c.x.IntN(7) {
	case 0, 1:
		replicas := int32(c.x.IntN(6))
		if app == "one" {
			replicas = int32(c.x.IntN(2))
		}
		_, err = c.admin.Scale(c.Context(), &kubepb.ScaleRequest{Object: &kubepb.Ref{Kind: "Deployment", Namespace: "default", Name: app}, Replicas: replicas})
	case 2:
		c.made++
		p := &corev1.Pod{}
		p.Namespace, p.Name, p.Spec = "default", fmt.Sprintf("bare-%d", c.made), spec()
		if p, err = objects.Create(c.Context(), c.admin, p); err == nil {
			c.bare[p.UID] = true
		}
	case 3:
		for name := range c.pods("") { // Any one.
			err = objects.Delete[*corev1.Pod](c.Context(), c.admin, "default", name)
			break
		}
	case 4:
		err = objects.Delete[*appsv1.Deployment](c.Context(), c.admin, "default", app)
	default:
		var annotations map[string]string
		if app == "one" {
			annotations = one
		}
		if _, e := objects.Get[*appsv1.Deployment](c.Context(), c.admin, "default", app); errors.Is(e, objects.ErrNotFound) {
			copies := 1 + int32(c.x.IntN(3))
			if app == "one" {
				copies = 1 // Of more, several would be asked for.
			}
			c.deployment(app, copies, annotations)
		}
	}
	if err != nil && !errors.Is(err, objects.ErrNotFound) && !errors.Is(err, objects.ErrConflict) && !errors.Is(err, objects.ErrGuard) {
		c.Fatal(err)
	}
	<-time.After(time.Duration(c.x.IntN(150)) * time.Millisecond)
}

// steady are the containers that run and that nobody is about to end.
func (c *chance) steady() map[types.UID]string {
	all := c.ids()
	for _, p := range c.pods("") {
		if p.DeletionTimestamp != nil {
			delete(all, p.UID)
		}
	}
	listed := map[types.UID]bool{}
	for _, p := range c.pods("") {
		listed[p.UID] = true
	}
	for uid := range all {
		if !listed[uid] {
			delete(all, uid)
		}
	}
	return all
}

// A store is restored to a random point of its past, again and again. What runs then
// goes on, the ledgers are exact at all times that they are looked at, no singleton
// runs twice, and in the end all is as it is asked for.
func TestRestoresToAnyPointEndNothingThatRuns(t *testing.T) {
	quick.LeaveOut(t)
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	c := &chance{world: newWorld(t, 3, clock.Real()), x: rand.New(rand.NewPCG(seed, 0)), bare: map[types.UID]bool{}}
	c.deployment("web", 2, nil)
	c.deployment("one", 1, one)
	c.eventually("they run", func() error { return c.runs(3) })
	for n := range *restores {
		points := []int64{c.revision()}
		for range 8 + c.x.IntN(10) {
			c.change()
			points = append(points, c.revision())
		}
		snapshot := points[c.x.IntN(len(points))]
		c.planes.Stop() // What they were about to end ends now or never.
		if err := c.planes.Wait(); err != nil {
			t.Error(err)
		}
		before := c.steady()
		if c.x.IntN(2) == 0 {
			m := c.machines[c.x.IntN(len(c.machines))]
			m.stop()
			defer func() { m.stop() }()
			c.restore(snapshot)
			m.start()
		} else {
			c.restore(snapshot)
		}
		is := c.told()
		c.exact()
		c.unchanged(before)
		ending := map[types.UID]bool{}
		for _, p := range c.pods("") {
			ending[p.UID] = p.DeletionTimestamp != nil
		}
		both, running, recorded := lists(is)
		t.Logf("restore %d to %d of %d: both %d, running %d, recorded %d", n, snapshot, points[len(points)-1], len(both), len(running), len(recorded))
		c.eventually("all is decided", func() error {
			r, err := recovery.Adopt(t.Context(), c.admin, true)
			if err != nil {
				return err
			}
			if !r.Settled {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		c.settled()
		c.exact()
		c.whole()
		c.notRestarted(before, ending)
	}
}

// notRestarted checks that of what ran before nothing was started anew, and that what
// belongs to nobody is there.
func (c *chance) notRestarted(before map[types.UID]string, ending map[types.UID]bool) {
	c.Helper()
	now, listed := c.ids(), map[types.UID]*corev1.Pod{}
	for _, p := range c.pods("") {
		listed[p.UID] = p
	}
	for uid, id := range before {
		p := listed[uid]
		switch {
		case p == nil && c.bare[uid] && !ending[uid]:
			c.Errorf("pod %s, which nobody owns, is gone", uid)
		case p != nil && p.DeletionTimestamp == nil && now[uid] != id:
			c.Errorf("container %s of pod %s is %q now", id, p.Name, now[uid])
		}
	}
}

// whole waits until what runs is what is asked for.
func (c *chance) whole() {
	c.Helper()
	c.eventually("all is as it is asked for", func() error {
		wanted := map[string]int{}
		list, _, err := objects.List[*appsv1.Deployment](c.Context(), c.admin, objects.ListOptions{})
		if err != nil {
			return err
		}
		for _, d := range list {
			wanted[d.Name] = int(*d.Spec.Replicas)
		}
		now, n := c.ids(), 0
		for name, p := range c.pods("") {
			if app, _, ok := strings.Cut(name, "-"); ok && len(p.OwnerReferences) > 0 {
				wanted[app]--
			}
			if now[p.UID] == "" || p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning {
				return fmt.Errorf("pod %s is not so yet: %+v", name, p.Status)
			}
			n++
		}
		for app, lack := range wanted {
			if lack != 0 {
				return fmt.Errorf("%s lacks %d", app, lack)
			}
		}
		return c.runs(n)
	})
}
