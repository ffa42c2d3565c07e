package pods

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/probe"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

func graceOf(o *corev1.Pod) time.Duration {
	if s := o.Spec.TerminationGracePeriodSeconds; s != nil {
		return api.Seconds(*s)
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// end ends a pod: its containers, what they share, its volumes.
func (r *Runtime) end(ctx context.Context, p *pod) {
	for _, names := range r.waves(p) {
		r.stopAll(ctx, p, names)
	}
	r.lookAtEnds(ctx, p)
	if ctx.Err() != nil {
		return // The next kubelet goes on with it.
	}
	r.cfg.Changed(p.uid) // How they ended is told while the rest goes.
	r.cfg.Wires.Unpublish(string(p.uid))
	told, delay := "", retryMin
	for {
		// Processes that nobody knew of go first: they may use the volumes.
		err := r.engine.Close(ctx, string(p.uid))
		if err == nil && !r.keeps(p) {
			err = r.cfg.Volumes.Remove(ctx, string(p.uid))
		}
		if err == nil {
			break
		}
		if text := err.Error(); text != told && ctx.Err() == nil {
			told = text
			r.log.Warn("what is left of a pod is not removed yet, trying on", "pod", p.uid, "error", err)
		}
		if !r.pause(ctx, delay) {
			return
		}
		delay = min(2*delay, retryMax)
	}
	r.mu.Lock()
	p.exists, p.open, p.ip, p.stop, p.keeps = false, false, "", nil, false
	for name, c := range p.containers {
		if c.state.Phase == kubelet.Creating || c.state.Phase == kubelet.Refused {
			delete(p.containers, name) // It never was one.
		}
	}
	r.mu.Unlock()
	r.cfg.Changed(p.uid)
}

// keeps reports whether the volumes of a pod stay, as of now.
func (r *Runtime) keeps(p *pod) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return p.keeps
}

// waves are the containers in the order in which they are stopped: sidecars after
// those that they serve, the last first.
func (r *Runtime) waves(p *pod) [][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var plain, sidecars []string
	if p.object != nil {
		for i := range p.object.Spec.InitContainers {
			if c := &p.object.Spec.InitContainers[i]; api.Sidecar(c) {
				sidecars = append(sidecars, c.Name)
			}
		}
	}
	for name := range p.containers {
		if !slices.Contains(sidecars, name) {
			plain = append(plain, name)
		}
	}
	waves := [][]string{plain}
	for _, name := range slices.Backward(sidecars) {
		waves = append(waves, []string{name})
	}
	return waves
}

// stopAll stops some containers at the same time, and waits.
func (r *Runtime) stopAll(ctx context.Context, p *pod, names []string) {
	var wait []<-chan struct{}
	r.mu.Lock()
	for _, name := range names {
		c := p.containers[name]
		if c == nil || c.state.Phase != kubelet.Running {
			continue
		}
		if c.stopper == nil {
			r.stopContainerLocked(p, name, c, p.stop)
		}
		wait = append(wait, c.stopper.done)
	}
	r.mu.Unlock()
	for _, done := range wait {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// lookAtEnds notes how the containers ended, as long as the engine knows.
func (r *Runtime) lookAtEnds(ctx context.Context, p *pod) {
	for delay := retryMin; ; delay = min(2*delay, retryMax) {
		err := r.look(ctx)
		if err == nil || ctx.Err() != nil {
			break
		}
		r.log.Warn("how the containers of a pod ended is not known yet, asking again", "pod", p.uid, "error", err)
		if !r.pause(ctx, delay) {
			break
		}
	}
	if ctx.Err() != nil {
		return
	}
	var watches []*watch
	r.mu.Lock()
	for _, c := range p.containers {
		if c.state.Phase == kubelet.Running { // It was stopped, whatever the engine told.
			watches, c.watch = append(watches, c.watch), nil
			c.state = vanished(c.state, r.clock.Wall())
		}
	}
	r.mu.Unlock()
	for _, w := range watches {
		w.close()
	}
}

// stopper is a container on its way out.
type stopper struct {
	*deadline
	done chan struct{} // Closed when it has ended.
}

func (r *Runtime) stopContainerLocked(p *pod, name string, c *container, d *deadline) {
	if c.stopper != nil {
		c.stopper.shorten(d.at())
		return
	}
	s := &stopper{d, make(chan struct{})}
	c.stopper = s
	c.watch.ending()
	o, id := p.object, c.id
	runs := r.tasks.Go("container stop", func(ctx context.Context) error {
		defer close(s.done)
		r.stopContainer(ctx, p, o, name, id, s.deadline)
		return nil
	})
	if !runs {
		close(s.done)
	}
}

func (r *Runtime) stopContainer(ctx context.Context, p *pod, o *corev1.Pod, name, id string, d *deadline) {
	defer r.lookSoon()
	least := time.Duration(0)
	if hook := preStop(o, name); hook != nil && d.at() > r.clock.Mono() {
		bound, cancel := d.bound(ctx, r.clock)
		err := r.hook(bound, p, o, specOf(o, name), id, hook)
		cancel()
		if err != nil && ctx.Err() == nil {
			r.cfg.Event(o, corev1.EventTypeWarning, eventPreStopHook, fmt.Sprintf("PreStopHook of container %s failed: %v", name, err))
		}
		least = hookGraceMin
	}
	for delay := retryMin; ctx.Err() == nil; delay = min(2*delay, retryMax) {
		when, moved := d.get()
		one, cancel := context.WithCancel(ctx)
		unhook := context.AfterFunc(moved, cancel)
		err := r.engine.Stop(one, id, max(least, when-r.clock.Mono()))
		hurried := one.Err() != nil
		unhook()
		cancel()
		switch {
		case err == nil, errors.Is(err, runtime.ErrNotFound):
			return
		case hurried:
			least, delay = 0, retryMin
			continue
		}
		r.log.Warn("a container is not stopped yet, trying on", "pod", p.uid, "container", name, "error", err)
		if !r.pause(ctx, delay) {
			return
		}
	}
}

func preStop(o *corev1.Pod, name string) *corev1.LifecycleHandler {
	if o == nil {
		return nil
	}
	spec := specOf(o, name)
	if spec == nil || spec.Lifecycle == nil {
		return nil
	}
	return spec.Lifecycle.PreStop
}

// hook runs what a container wants done after its start or before its end.
func (r *Runtime) hook(ctx context.Context, p *pod, o *corev1.Pod, spec *corev1.Container, id string, hook *corev1.LifecycleHandler) error {
	r.mu.Lock()
	ip := p.ip
	r.mu.Unlock()
	t := r.target(o, spec, id, ip)
	return probe.Run(ctx, &t, r.clock, hook)
}

// Evict says that a pod cannot stay. The kubelet stops it.
func (r *Runtime) evict(uid types.UID, message string) {
	r.mu.Lock()
	p := r.mu.pods[uid]
	if p == nil || !p.exists || p.stop != nil || p.evicted != "" {
		r.mu.Unlock()
		return
	}
	p.evicted = message
	o := p.object
	r.mu.Unlock()
	r.cfg.Event(o, corev1.EventTypeWarning, "Evicted", message)
	r.cfg.Changed(uid)
}
