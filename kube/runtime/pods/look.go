package pods

import (
	"bytes"
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
)

// lookSoon has the engine asked for all pods.
func (r *Runtime) lookSoon() {
	select {
	case r.looks <- struct{}{}:
	default: // It will be, after this.
	}
}

func (r *Runtime) lookOn(ctx context.Context) error {
	for {
		select {
		case <-r.looks:
		case <-r.clock.After(lookInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("the engine does not tell what runs, asking again", "engine", r.info.Name, "error", err)
			if !r.pause(ctx, retryMin) {
				return ctx.Err()
			}
			r.lookSoon()
		}
	}
}

func (r *Runtime) list(ctx context.Context) ([]runtime.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	return r.engine.List(ctx)
}

// look asks the engine and notes what is new.
func (r *Runtime) look(ctx context.Context) error {
	before := r.attempts()
	listed, err := r.list(ctx)
	if err != nil {
		return err
	}
	words := r.lastWords(listed)
	n := &news{changed: map[types.UID]bool{}}
	r.mu.Lock()
	there := map[types.UID]bool{}
	for i := range listed {
		uid := types.UID(listed[i].UID)
		there[uid] = true
		if p := r.mu.pods[uid]; p != nil { // Else it is one that was forgotten: the next start removes it.
			r.notePodLocked(n, p, &listed[i], words)
		}
	}
	for uid, was := range before {
		if p := r.mu.pods[uid]; p != nil && !there[uid] {
			r.noteLossLocked(n, p, was)
		}
	}
	r.mu.Unlock()
	for _, w := range n.watches {
		w.close()
	}
	for uid := range n.changed { //tidy:ordered each pod by itself
		r.cfg.Changed(uid)
	}
	return nil
}

// news are what a look has found.
type news struct {
	changed map[types.UID]bool
	watches []*watch // Of containers that have ended.
}

func (r *Runtime) notePodLocked(n *news, p *pod, is *runtime.Pod, words map[string]string) {
	for _, c := range latest(is.Containers) { //tidy:ordered each container by itself
		if w, differs := r.noteLocked(p, c, words); differs {
			n.changed[p.uid] = true
			n.watches = append(n.watches, w)
		}
	}
}

// noteLossLocked notes that the engine does not know a pod any more.
func (r *Runtime) noteLossLocked(n *news, p *pod, was opened) {
	p.open = p.open && p.opens > was.opens // Opened again meanwhile, it is there.
	for name, id := range was.running {    //tidy:ordered each container by itself
		if c := p.containers[name]; c != nil && c.id == id && c.state.Phase == kubelet.Running {
			n.watches, c.watch = append(n.watches, c.watch), nil
			c.state = vanished(c.state, r.clock.Wall())
			n.changed[p.uid] = true
		}
	}
}

// opened is a pod as it is known before the engine is asked: what it does not tell of
// that has ended.
type opened struct {
	opens   int
	running map[string]string // The IDs of its containers that run.
}

func (r *Runtime) attempts() map[types.UID]opened {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[types.UID]opened{}
	for uid, p := range r.mu.pods {
		if !p.open {
			continue
		}
		is := opened{p.opens, map[string]string{}}
		for name, c := range p.containers {
			if c.state.Phase == kubelet.Running {
				is.running[name] = c.id
			}
		}
		all[uid] = is
	}
	return all
}

// latest is the last attempt of each container.
func latest(list []runtime.Container) map[string]*runtime.Container {
	all := map[string]*runtime.Container{}
	for i := range list {
		c := &list[i]
		if have := all[c.Name]; have == nil || have.Attempt < c.Attempt {
			all[c.Name] = c
		}
	}
	return all
}

// noteLocked notes what the engine tells of a container, and says whether that is
// another thing than what was known.
func (r *Runtime) noteLocked(p *pod, is *runtime.Container, words map[string]string) (*watch, bool) {
	c := p.container(is.Name)
	if is.Attempt < c.attempt || c.id != is.ID || c.state.Phase != kubelet.Running {
		return nil, false // An older one, or one of which the start is not done.
	}
	state := r.stateOf(is)
	state.Image = c.state.Image
	if state.ImageID == "" {
		state.ImageID = c.state.ImageID
	}
	if state == c.state {
		return nil, false
	}
	if text := words[is.ID]; text != "" && state.Phase == kubelet.Exited {
		state.Message = text
	}
	c.state = state
	if state.Phase != kubelet.Exited {
		return nil, true
	}
	w := c.watch
	c.watch = nil
	return w, true
}

func vanished(was kubelet.ContainerState, now time.Time) kubelet.ContainerState {
	return kubelet.ContainerState{
		ID: was.ID, ImageID: was.ImageID, Image: was.Image, Phase: kubelet.Exited, Reason: reasonUnknown, Started: was.Started, Finished: now, ExitCode: 137,
		Message: "The container is gone from the engine: whoever watched over it has ended.",
	}
}

// found takes over what the engine has, before anything else is known.
func (r *Runtime) found(listed []runtime.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range listed {
		l := &listed[i]
		p := &pod{uid: types.UID(l.UID), exists: true, open: true, ip: l.IP, containers: map[string]*container{}}
		r.mu.pods[p.uid] = p
		for name, c := range latest(l.Containers) {
			state := r.stateOf(c)
			if text := r.cfg.Volumes.ReadMessage(l.UID, name, c.Attempt); text != "" && state.Phase == kubelet.Exited {
				state.Message = text
			}
			p.containers[name] = &container{id: c.ID, attempt: c.Attempt, log: c.Log, state: state}
		}
	}
}

// lastWords is what containers that have ended said of that, by ID: in their message,
// or if their pod asks for that and they failed, in their log.
func (r *Runtime) lastWords(listed []runtime.Pod) map[string]string {
	words := map[string]string{}
	for i := range listed {
		uid := types.UID(listed[i].UID)
		for _, c := range latest(listed[i].Containers) {
			if c.Phase != runtime.Exited || !r.runs(uid, c) {
				continue
			}
			text := r.cfg.Volumes.ReadMessage(listed[i].UID, c.Name, c.Attempt)
			if text == "" && c.ExitCode != 0 && saysInLog(r.object(uid), c.Name) {
				text = tailOf(c.Log)
			}
			words[c.ID] = text
		}
	}
	return words
}

// runs reports whether a container is taken to run.
func (r *Runtime) runs(uid types.UID, is *runtime.Container) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pods[uid]
	if p == nil {
		return false
	}
	c := p.containers[is.Name]
	return c != nil && c.id == is.ID && c.state.Phase == kubelet.Running
}

// object is a pod as it was asked for last. Nil: it was not.
func (r *Runtime) object(uid types.UID) *corev1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.mu.pods[uid]; p != nil {
		return p.object
	}
	return nil
}

func saysInLog(o *corev1.Pod, name string) bool {
	if o == nil {
		return false
	}
	spec := specOf(o, name)
	return spec != nil && spec.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError
}

// tailOf is the end of a log.
func tailOf(file string) string {
	var text bytes.Buffer
	err := logfile.Read(context.Background(), logfile.Source{Path: file, Clock: clock.Real()}, logfile.Options{Tail: logLinesMax}, &text)
	if err != nil {
		return ""
	}
	tail := text.Bytes()
	return strings.TrimSuffix(string(tail[max(0, len(tail)-logBytesMax):]), "\n")
}
