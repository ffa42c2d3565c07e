package pods

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// keepVolumes has volumes follow what they are made from, and ends pods whose volumes
// have become too large.
func (r *Runtime) keepVolumes(ctx context.Context) error {
	for r.pause(ctx, refreshInterval) {
		for _, o := range r.going() {
			if len(o.Spec.Volumes) == 0 {
				continue
			}
			if err := r.cfg.Volumes.Refresh(ctx, o); err != nil && ctx.Err() == nil {
				r.log.Debug("volumes do not follow their sources, trying again", "pod", o.Namespace+"/"+o.Name, "error", err)
			}
			if message, exceeded := r.cfg.Volumes.Exceeded(ctx, o); exceeded {
				r.evict(o.UID, message)
			}
		}
	}
	return ctx.Err()
}

// going are the pods that are there and not being stopped.
func (r *Runtime) going() []*corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*corev1.Pod
	for _, p := range r.mu.pods {
		if p.open && p.stop == nil && p.object != nil {
			all = append(all, p.object)
		}
	}
	return all
}

// keepImages has images that nobody uses removed when room is short.
func (r *Runtime) keepImages(ctx context.Context) error {
	for r.pause(ctx, collectInterval) {
		if err := r.cfg.Images.Collect(ctx, r.Used()); err != nil && ctx.Err() == nil {
			r.log.Warn("images are not collected", "error", err)
		}
	}
	return ctx.Err()
}

// Used are the names and IDs of images that containers have, or are about to.
func (r *Runtime) Used() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := map[string]bool{}
	for _, p := range r.mu.pods {
		if !p.exists {
			continue
		}
		for _, c := range p.containers {
			if c.state.ImageID != "" {
				used[c.state.ImageID] = true
			}
		}
		if p.object == nil {
			continue
		}
		for _, list := range [][]corev1.Container{p.object.Spec.InitContainers, p.object.Spec.Containers} {
			for i := range list {
				used[list[i].Image] = true
			}
		}
	}
	return used
}

// cpuSample is the processor that a container had used at a time.
type cpuSample struct {
	pod  types.UID
	at   time.Duration // Monotonic.
	used time.Duration
	rate int64 // Thousandths of a core, the last time it could be told.
}

// Usage implements kubelet.Meter.
func (r *Runtime) Usage(o *corev1.Pod) map[string]*kubepb.Use {
	r.mu.Lock()
	p := r.mu.pods[o.UID]
	open := p != nil && p.open
	r.mu.Unlock()
	if !open {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.tasks.Context(), callMax)
	defer cancel()
	measured, err := r.engine.Usage(ctx, string(o.UID))
	if err != nil {
		r.log.Debug("a pod is not measured", "pod", o.Namespace+"/"+o.Name, "error", err)
		return nil
	}
	use := map[string]*kubepb.Use{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, u := range measured {
		c := p.containers[name]
		if c == nil || c.state.Phase != kubelet.Running {
			continue
		}
		use[name] = &kubepb.Use{CpuMillis: r.rateLocked(p, c, u.CPU), MemoryBytes: u.MemoryBytes}
	}
	r.dropSamplesLocked(p)
	return use
}

// rateLocked is the processor used since the last time it was asked for, or since the
// start.
func (r *Runtime) rateLocked(p *pod, c *container, used time.Duration) int64 {
	now := r.clock.Mono()
	last, ok := r.mu.cpu[c.id]
	if !ok {
		last = cpuSample{at: now - max(0, r.clock.Wall().Sub(c.state.Started))}
	}
	if now-last.at < rateWindowMin {
		return last.rate // Too short to tell.
	}
	rate := max(0, (used-last.used).Milliseconds()*1000/(now-last.at).Milliseconds())
	r.mu.cpu[c.id] = cpuSample{p.uid, now, used, rate}
	return rate
}

// dropSamplesLocked forgets the attempts of a pod that have ended.
func (r *Runtime) dropSamplesLocked(p *pod) {
	runs := map[string]bool{}
	for _, c := range p.containers {
		runs[c.id] = c.state.Phase == kubelet.Running
	}
	for id, s := range r.mu.cpu {
		if s.pod == p.uid && !runs[id] {
			delete(r.mu.cpu, id)
		}
	}
}
