package kubelet

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// history is what a worker remembers of a container from one start to the next.
type history struct {
	counted  string // ID of the last end that was counted.
	restarts int32
	delay    time.Duration // Before the next start. 0: it never ended early.
	notUntil time.Duration // Monotonic.
	last     *corev1.ContainerStateTerminated
	refusals int                          // In a row.
	refused  corev1.ContainerStateWaiting // The last of them.
	renewed  string                       // ID of the one that was told to end for another image.
	starting bool
}

// facts are what a plan is made from.
type facts struct {
	Pod     *corev1.Pod
	State   PodState
	History map[string]*history // Changed by the plan: ends are counted once.
	Reject  *rejection          // The pod was not taken in.
	Fenced  bool                // The node's lease may have ended.

	// Verdict is how the pod ends, as a plan before said or, to a kubelet that was started
	// since, what that kept on disk. Nil: it goes on.
	Verdict *corev1.PodStatus

	Hold     kubepb.Hold // What the node refrains from.
	Here     bool        // The pod was started here before.
	Stopping bool        // It was told to end, here.

	Now    time.Time
	Mono   time.Duration
	HostIP string
}

// rejection is why a pod was not taken in.
type rejection struct{ reason, message string }

// plan is what to do with a pod.
type plan struct {
	Start  []string
	Renew  []string // They run from an image that the pod does not name any more.
	Stop   bool
	Grace  time.Duration
	Fence  bool // A stop of a pod that may be started again.
	Remove bool // The object: nothing is left of the pod.
	Status *corev1.PodStatus

	// Verdict is how the pod ends. It is told when none of its containers runs any more:
	// whoever hears of it gives the pod's room, its ports and its name to others.
	Verdict *corev1.PodStatus

	Wake   time.Duration // Look again after this. 0: when something changes.
	Events []note
}

// note is an event about the pod.
type note struct{ kind, reason, message string }

// makePlan decides. It never looks at a clock or a runtime itself.
func makePlan(f *facts) *plan {
	p := &plan{}
	pod := f.Pod
	if p.hold(f) {
		return p
	}
	switch {
	case f.Hold == kubepb.Hold_HOLD_ALL && pod.DeletionTimestamp != nil && f.State.Exists:
		// It is as it was when the store was saved that it shall end. It runs.
	case pod.DeletionTimestamp != nil:
		p.end(f)
		return p
	case f.Verdict != nil || finished(pod):
		p.conclude(f)
		return p
	case f.Reject != nil:
		p.warn(f.Reject.reason, f.Reject.message)
		f.Verdict = &corev1.PodStatus{Phase: corev1.PodFailed, Reason: f.Reject.reason, Message: f.Reject.message}
		p.conclude(f)
		return p
	case f.State.Evicted != "":
		f.Verdict = &corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: f.State.Evicted}
		p.conclude(f)
		return p
	case f.Fenced && singleton(pod):
		p.Stop, p.Fence = f.State.Exists, true
		return p
	}
	p.count(f)
	if phase := endOf(f); phase != "" && pod.DeletionTimestamp == nil { // That may be taken back.
		f.Verdict = &corev1.PodStatus{Phase: phase, Reason: pod.Status.Reason, Message: pod.Status.Message}
		p.conclude(f)
		return p
	}
	p.run(f)
	status := statusOf(f)
	if !sameStatus(status, &pod.Status) {
		p.Status = status
	}
	return p
}

// hold is what comes first after a restore. True: nothing else is to be done.
func (p *plan) hold(f *facts) bool {
	all := f.Hold == kubepb.Hold_HOLD_ALL
	switch {
	case all && f.Fenced && singleton(f.Pod):
		p.Stop, p.Fence = f.State.Exists, true // Whatever else is held.
		return true
	case all && f.Stopping && f.State.Exists:
		return true // It was told to end before that.
	case all && (finished(f.Pod) || f.Verdict != nil):
		return true
	case waits(f):
		if status := held(f); !sameStatus(status, &f.Pod.Status) {
			p.Status = status
		}
		return true
	}
	return false
}

// waits reports whether a pod that does not run is not started now, because another
// node may run what it is.
func waits(f *facts) bool {
	if f.State.Exists || finished(f.Pod) || f.Verdict != nil || f.Pod.DeletionTimestamp != nil && f.Hold != kubepb.Hold_HOLD_ALL {
		return false
	}
	return f.Hold == kubepb.Hold_HOLD_ALL && !f.Here || f.Hold >= kubepb.Hold_HOLD_SINGLETONS && singleton(f.Pod)
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func singleton(pod *corev1.Pod) bool { return api.IsSingleton(pod) }

func graceOf(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return api.Seconds(*s)
	}
	return 0
}

func (p *plan) warn(reason, message string) {
	p.Events = append(p.Events, note{corev1.EventTypeWarning, reason, message})
}

// conclude stops what is left of a pod that has ended: sidecars, or all of one that cannot
// stay.
func (p *plan) conclude(f *facts) {
	p.Stop = f.State.Exists && f.Hold != kubepb.Hold_HOLD_ALL
	if !f.Fenced || !singleton(f.Pod) { // Another may be started soon.
		p.Grace = graceOf(f.Pod)
	}
	switch {
	case finished(f.Pod):
		p.tellEnds(f)
		return
	case f.Reject != nil && len(f.State.Containers) == 0:
		p.Verdict = rejected(f)
	default:
		p.Verdict = statusOf(f)
	}
	p.tell(f, p.Verdict)
}

// tell has a status written, if it is another. That a pod has ended is left out while any of
// it runs.
func (p *plan) tell(f *facts, s *corev1.PodStatus) {
	if !finished(f.Pod) && runs(&f.State) {
		s = s.DeepCopy()
		s.Phase, s.Reason, s.Message = phaseSoFar(f), f.Pod.Status.Reason, f.Pod.Status.Message
	}
	if !sameStatus(s, &f.Pod.Status) {
		p.Status = s
	}
}

// end is how a pod goes: stopped first, its object last.
func (p *plan) end(f *facts) {
	p.tellEnds(f)
	if !f.State.Exists {
		p.Remove = true
		return
	}
	p.Stop = true
	if s := f.Pod.DeletionGracePeriodSeconds; s != nil && !(f.Fenced && singleton(f.Pod)) {
		p.Grace = api.Seconds(*s) // From when it is seen: by another clock it may be over.
	}
}

// tellEnds says how the containers of a pod that ends did, before nobody can ask any more.
func (p *plan) tellEnds(f *facts) {
	if len(f.State.Containers) == 0 {
		return
	}
	p.tell(f, statusOf(f))
}

// SameContainer reports whether two IDs of statuses mean the same container. Kubelets
// before this one wrote cri://UID_ID for what is containerd://ID.
func SameContainer(a, b string) bool { return bareID(a) == bareID(b) }

func bareID(id string) string {
	_, after, ok := strings.Cut(id, "://")
	if !ok {
		return id
	}
	return after[strings.LastIndexByte(after, '_')+1:]
}

// count takes note of each end of a container once.
func (p *plan) count(f *facts) {
	for _, c := range containersOf(f.Pod) {
		s, h := f.State.Containers[c.Name], f.History[c.Name]
		switch {
		case s.Phase == Running && h.starting:
			h.starting, h.refusals = false, 0
			p.Events = append(p.Events, note{corev1.EventTypeNormal, "Started", "Started container " + c.Name})
		case s.Phase == Exited && !SameContainer(h.counted, s.ID):
			h.counted, h.starting, h.refusals = s.ID, false, 0
			h.last = terminated(&s)
			if !again(f, &c, &s) {
				continue
			}
			if s.Finished.Sub(s.Started) >= steadyRun {
				h.delay = 0
			}
			h.wait(f.Mono)
			if h.delay > restartDelayMin {
				p.warn("BackOff", "Back-off "+(h.notUntil-f.Mono).String()+" restarting failed container "+c.Name)
			}
		case s.Phase == Refused && h.counted != s.ID:
			if h.refuse(&s, f.Mono) {
				p.warn("Failed", s.Reason+": container "+c.Name+": "+s.Message)
			}
		}
	}
}

// refuse takes note of a start that was refused, and reports whether people are to be
// told. What is not there yet they are told once.
func (h *history) refuse(s *ContainerState, now time.Duration) (tell bool) {
	tell = !s.Missing || h.refusals == 0 || h.refused.Message != s.Message
	h.counted, h.starting = s.ID, false
	h.refusals++
	h.refused = corev1.ContainerStateWaiting{Reason: s.Reason, Message: s.Message}
	if h.refusals == 1 {
		h.delay = restartDelayMin
	}
	if s.Missing {
		h.notUntil = now + missingRetry
		return tell
	}
	h.wait(now)
	return tell
}

// wait sets when the container may start again, and doubles the wait for the next.
func (h *history) wait(now time.Duration) {
	h.notUntil = now + h.delay
	h.delay = min(max(2*h.delay, restartDelayMin), restartDelayMax)
}

// container is one, with how it is treated.
type container struct {
	*corev1.Container
	init, sidecar bool
}

// containersOf lists init containers first.
func containersOf(pod *corev1.Pod) []container {
	var all []container
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		all = append(all, container{c, true, api.Sidecar(c)})
	}
	for i := range pod.Spec.Containers {
		all = append(all, container{&pod.Spec.Containers[i], false, false})
	}
	return all
}

// again reports whether a container that ended is started again.
func again(f *facts, c *container, s *ContainerState) bool {
	pod := f.Pod
	switch {
	case pod.DeletionTimestamp != nil, finished(pod), f.Verdict != nil:
		return false
	case c.sidecar:
		return true
	case c.init:
		return s.ExitCode != 0 && pod.Spec.RestartPolicy != corev1.RestartPolicyNever
	case pod.Spec.RestartPolicy == corev1.RestartPolicyNever:
		return false
	case pod.Spec.RestartPolicy == corev1.RestartPolicyOnFailure:
		return s.ExitCode != 0
	}
	return true
}

// run starts what shall run and does not: init containers one after the other, then
// the others all at once.
func (p *plan) run(f *facts) {
	past := mainStarted(f) // Then init containers have done their work, whatever is left of them.
	for _, c := range containersOf(f.Pod) {
		s := f.State.Containers[c.Name]
		if c.init && !c.sidecar && past {
			continue
		}
		switch s.Phase {
		case Absent:
			p.start(f, c.Name)
		case Refused:
			p.start(f, c.Name)
		case Exited:
			if again(f, &c, &s) {
				p.start(f, c.Name)
			}
		case Running:
			p.renew(f, &c, &s)
		}
		if c.init && !past && !initDone(&c, &s) {
			return
		}
	}
}

// renew ends a container whose pod names another image now, if it is started again however
// it ends.
func (p *plan) renew(f *facts, c *container, s *ContainerState) {
	h := f.History[c.Name]
	if s.Image == "" || s.Image == c.Image || h.renewed == s.ID || !again(f, c, &ContainerState{}) {
		return
	}
	h.renewed = s.ID
	p.Renew = append(p.Renew, c.Name)
	p.Events = append(p.Events, note{corev1.EventTypeNormal, "Killing", "Container " + c.Name + " is started again, with image " + c.Image})
}

func mainStarted(f *facts) bool {
	for i := range f.Pod.Spec.Containers {
		if f.State.Containers[f.Pod.Spec.Containers[i].Name].Phase != Absent {
			return true
		}
	}
	return false
}

func initDone(c *container, s *ContainerState) bool {
	return c.sidecar && s.Phase == Running && !s.Starting || !c.sidecar && s.Phase == Exited && s.ExitCode == 0
}

// start starts a container, or waits until its back-off is over.
func (p *plan) start(f *facts, name string) {
	h := f.History[name]
	if left := h.notUntil - f.Mono; left > 0 {
		if p.Wake == 0 || left < p.Wake {
			p.Wake = left
		}
		return
	}
	if h.last != nil && h.refusals == 0 {
		h.restarts++
	}
	h.starting = true
	p.Start = append(p.Start, name)
}
