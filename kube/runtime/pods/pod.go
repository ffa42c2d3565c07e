package pods

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// pod is what the runtime knows of one. The lock of the Runtime guards it.
type pod struct {
	uid        types.UID
	object     *corev1.Pod // The newest that came by. Nil: nobody knows it, it is being removed.
	ip         string
	exists     bool
	open       bool // The engine has what its containers share.
	opens      int  // How often it was opened.
	evicted    string
	containers map[string]*container

	wanted []string  // To be started, in this order.
	stop   *deadline // Nil: it goes on.
	keeps  bool      // It is stopped, and its volumes stay.
	forget bool      // Its folder goes when nothing else is left.

	busy   bool               // A worker is at it.
	cancel context.CancelFunc // Ends the start that the worker is at. Nil: it is at none.
}

// container is the last attempt of one.
type container struct {
	state   kubelet.ContainerState
	id      string // As the engine names it.
	attempt int    // -1: there was none.
	log     string
	missing string   // What it was not started for, the last time, and may come. Empty: nothing.
	watch   *watch   // Nil unless it runs.
	stopper *stopper // Nil: it is not being stopped.
}

func (c *container) runs() bool { return c.state.Phase == kubelet.Running }

func newPod(o *corev1.Pod) *pod {
	return &pod{uid: o.UID, object: o, containers: map[string]*container{}}
}

func (p *pod) container(name string) *container {
	c := p.containers[name]
	if c == nil {
		c = &container{attempt: -1}
		if p.object != nil {
			c.attempt = lastAttempt(p.object, name)
		}
		p.containers[name] = c
	}
	return c
}

// lastAttempt is that of which the status of a pod tells: an earlier kubelet made it.
func lastAttempt(o *corev1.Pod, name string) int {
	s := statusOf(o, name)
	if s == nil || s.ContainerID == "" && s.LastTerminationState.Terminated == nil && s.State.Terminated == nil {
		return -1
	}
	return int(s.RestartCount)
}

func statusOf(o *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{o.Status.InitContainerStatuses, o.Status.ContainerStatuses} {
		if i := slices.IndexFunc(list, func(s corev1.ContainerStatus) bool { return s.Name == name }); i >= 0 {
			return &list[i]
		}
	}
	return nil
}

// specOf is a container of a pod, whether it is an init container or not.
func specOf(o *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{o.Spec.InitContainers, o.Spec.Containers} {
		if i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == name }); i >= 0 {
			return &list[i]
		}
	}
	return nil
}

func (r *Runtime) workLocked(p *pod) {
	if !p.busy {
		p.busy = r.tasks.Go("pod", func(ctx context.Context) error {
			r.work(ctx, p)
			return nil
		})
	}
}

// work does what is noted, until there is no more.
func (r *Runtime) work(ctx context.Context, p *pod) {
	for {
		r.mu.Lock()
		switch {
		case ctx.Err() != nil:
			p.busy = false
			r.mu.Unlock()
			return
		case p.stop != nil && p.exists:
			r.mu.Unlock()
			r.end(ctx, p)
		case len(p.wanted) > 0:
			name, o := p.wanted[0], p.object
			p.wanted = p.wanted[1:]
			one, cancel := context.WithCancel(ctx)
			p.cancel = cancel
			r.mu.Unlock()
			r.begin(one, p, o, name)
			r.mu.Lock()
			p.cancel = nil
			r.mu.Unlock()
			cancel()
		case p.forget && !p.exists:
			r.mu.Unlock()
			if err := r.cfg.Volumes.Purge(ctx, string(p.uid)); err != nil {
				r.log.Warn("the folder of a pod stays until the next start", "pod", p.uid, "error", err)
			}
			r.mu.Lock()
			delete(r.mu.pods, p.uid)
			r.mu.Unlock()
			r.cfg.Changed(p.uid) // A static pod comes again with its UID: it may have been asked for meanwhile.
			return
		default:
			p.busy = false
			r.mu.Unlock()
			return
		}
	}
}

// Adopt implements kubelet.Runtime.
func (r *Runtime) Adopt(pods []*corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := map[types.UID]bool{}
	for _, o := range pods {
		known[o.UID] = true
		p := r.mu.pods[o.UID]
		if p == nil {
			p = newPod(o)
		}
		p.object = o
		if p.open {
			r.placeLocked(p)
		}
		r.adoptLocked(p)
	}
	left, err := r.cfg.Volumes.Leftovers()
	if err != nil {
		r.log.Warn("what is left of pods is not looked for", "error", err)
	}
	for _, text := range left {
		if uid := types.UID(text); !known[uid] && r.mu.pods[uid] == nil {
			r.mu.pods[uid] = &pod{uid: uid, containers: map[string]*container{}}
		}
	}
	for uid, p := range r.mu.pods {
		if !known[uid] {
			r.log.Info("a pod that is none of this node is removed", "pod", uid)
			p.exists, p.forget = true, true
			r.stopLocked(p, orphanGrace)
		}
	}
}

// placeLocked says where a pod is that the engine had before. One without the address that it
// should have was not opened to the end, or has ended with its machine.
func (r *Runtime) placeLocked(p *pod) {
	hostNetwork := p.object.Spec.HostNetwork
	if p.open = p.ip != "" || hostNetwork || !r.info.PodNetwork; p.open {
		p.ip = r.podIP(&runtime.Pod{UID: string(p.uid), IP: p.ip}, hostNetwork)
	}
}

// adoptLocked goes on with what there is of a pod.
func (r *Runtime) adoptLocked(p *pod) {
	for _, list := range [][]corev1.ContainerStatus{p.object.Status.InitContainerStatuses, p.object.Status.ContainerStatuses} {
		for i := range list {
			r.adoptContainerLocked(p, &list[i])
		}
	}
	for name, c := range p.containers {
		switch {
		case c.runs() && c.watch == nil:
			c.watch = r.watchLocked(p, name, c, &corev1.ContainerStatus{})
		case c.state.Phase == kubelet.Exited && c.state.ExitCode != 0 && c.state.Message == "" && c.log != "" && saysInLog(p.object, name):
			c.state.Message = tailOf(c.log) // It ended while no kubelet was there, or before one that said so.
		}
	}
	if p.open {
		r.publish(p.object, p.ip)
	}
	if there, err := vfs.Exists(vfs.OS(), r.dir(p.uid)); there || err != nil || len(p.containers) > 0 {
		p.exists = true
		r.mu.pods[p.uid] = p
	}
}

// adoptContainerLocked compares what a status tells of a container with what there is.
func (r *Runtime) adoptContainerLocked(p *pod, s *corev1.ContainerStatus) {
	c := p.containers[s.Name]
	if c != nil {
		if !kubelet.SameContainer(s.ContainerID, c.state.ID) {
			return
		}
		c.state.Image = s.Image
		if c.runs() {
			c.watch = r.watchLocked(p, s.Name, c, s)
		}
		return
	}
	ended := p.object.Status.Phase == corev1.PodSucceeded || p.object.Status.Phase == corev1.PodFailed
	if state, ok := lost(s, r.clock.Wall()); ok && !ended {
		p.containers[s.Name] = &container{attempt: int(s.RestartCount), state: state}
	}
}

// lost is a container of which a status tells and the engine does not. One that ran
// has ended with its machine, or with whoever watched over it.
func lost(s *corev1.ContainerStatus, now time.Time) (kubelet.ContainerState, bool) {
	if t := s.State.Terminated; t != nil {
		return kubelet.ContainerState{
			ID: t.ContainerID, ImageID: s.ImageID, Image: s.Image, Phase: kubelet.Exited, Reason: t.Reason, Message: t.Message,
			Started: t.StartedAt.Time, Finished: t.FinishedAt.Time, ExitCode: t.ExitCode,
		}, true
	}
	if s.State.Running == nil {
		return kubelet.ContainerState{}, false
	}
	return kubelet.ContainerState{
		ID: s.ContainerID, ImageID: s.ImageID, Image: s.Image, Phase: kubelet.Exited, Reason: reasonUnknown, Started: s.State.Running.StartedAt.Time, Finished: now, ExitCode: 137,
		Message: "The container could not be located: the machine may have been started anew.",
	}, true
}

// containerID is how a status names a container: by what people find in the engine if it
// is another program, which has IDs of its own after the UID of the pod.
func (r *Runtime) containerID(id string) string {
	return r.info.Name + "://" + id[strings.LastIndexByte(id, '_')+1:]
}

// stateOf is a container as the engine tells of it.
func (r *Runtime) stateOf(c *runtime.Container) kubelet.ContainerState {
	s := kubelet.ContainerState{
		ID: r.containerID(c.ID), ImageID: c.ImageID, Started: c.Started, Finished: c.Finished, ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message,
		Phase: kubelet.Running,
	}
	if c.Phase == runtime.Exited {
		s.Phase = kubelet.Exited
	}
	return s
}
