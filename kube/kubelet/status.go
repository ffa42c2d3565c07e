package kubelet

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-db/holdfast/kube/api"
)

// stamp is a time as objects carry it: whole seconds.
func stamp(t time.Time) metav1.Time { return metav1.NewTime(t.UTC().Truncate(time.Second)) }

func sameStatus(a, b *corev1.PodStatus) bool { return equality.Semantic.DeepEqual(a, b) }

// rejected is the status of a pod that was not taken in, and of which there is nothing.
func rejected(f *facts) *corev1.PodStatus {
	s := f.Pod.Status.DeepCopy()
	now := stamp(f.Now)
	s.Phase, s.Reason, s.Message = f.Verdict.Phase, f.Verdict.Reason, f.Verdict.Message
	if s.StartTime == nil {
		s.StartTime = &now
	}
	for _, t := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
		setCondition(s, t, false, "PodFailed", f)
	}
	return s
}

// held is the status of a pod that is not started before a recovery is settled.
func held(f *facts) *corev1.PodStatus {
	s := f.Pod.Status.DeepCopy()
	s.Phase = corev1.PodPending
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses} {
		for i := range list {
			list[i].Ready, list[i].Started, list[i].ContainerID = false, nil, ""
			list[i].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
				Reason: "Held", Message: "the store was restored, and it is not settled yet whether this is to run here: holdfastctl recover pods",
			}}
		}
	}
	for _, t := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
		setCondition(s, t, false, "Held", f)
	}
	return s
}

// statusOf is what the status of a pod shall say. What others wrote stays.
func statusOf(f *facts) *corev1.PodStatus {
	s := f.Pod.Status.DeepCopy()
	if s.StartTime == nil {
		now := stamp(f.Now)
		s.StartTime = &now
	}
	s.HostIP, s.HostIPs = f.HostIP, hostIPs(f.HostIP)
	if f.State.IP != "" {
		s.PodIP, s.PodIPs = f.State.IP, []corev1.PodIP{{IP: f.State.IP}}
	}
	past := mainStarted(f)
	s.InitContainerStatuses, s.ContainerStatuses = nil, nil
	initialized, ready := true, true
	for _, c := range containersOf(f.Pod) {
		is := f.State.Containers[c.Name]
		one := containerStatus(&c, &is, f, past)
		if told := toldForGood(f, &c); told != nil {
			one = *told
		}
		if c.init {
			s.InitContainerStatuses = append(s.InitContainerStatuses, one)
			initialized = initialized && (past || initDone(&c, &is))
			if c.sidecar {
				ready = ready && is.Ready
			}
			continue
		}
		s.ContainerStatuses = append(s.ContainerStatuses, one)
		ready = ready && is.Ready
	}
	s.Phase = phaseOf(f)
	if f.Verdict != nil {
		s.Reason, s.Message = f.Verdict.Reason, f.Verdict.Message
	}
	reason := ""
	if !ready {
		reason = "ContainersNotReady"
	}
	switch s.Phase {
	case corev1.PodSucceeded:
		ready, reason = false, "PodCompleted"
	case corev1.PodFailed:
		ready, reason = false, "PodFailed"
	}
	setCondition(s, corev1.PodInitialized, initialized, "", f)
	setCondition(s, corev1.ContainersReady, ready, reason, f)
	setCondition(s, corev1.PodReady, ready, reason, f)
	return s
}

// toldOf is what the status of a pod says of a container. Nil: nothing.
func toldOf(s *corev1.PodStatus, c *container) *corev1.ContainerStatus {
	list := s.ContainerStatuses
	if c.init {
		list = s.InitContainerStatuses
	}
	for i := range list {
		if list[i].Name == c.Name {
			return &list[i]
		}
	}
	return nil
}

// toldForGood is what is known already of a container of a pod that has ended, for good or
// since the runtime does not know it any more. Nil: nothing.
func toldForGood(f *facts, c *container) *corev1.ContainerStatus {
	if !finished(f.Pod) && f.Verdict == nil {
		return nil
	}
	told := toldOf(&f.Pod.Status, c)
	if f.Verdict != nil && (told == nil || told.State.Terminated == nil) {
		told = cmp.Or(toldOf(f.Verdict, c), told)
	}
	if told == nil || told.State.Terminated == nil && f.State.Containers[c.Name].Phase != Absent {
		return nil
	}
	return told
}

func hostIPs(ip string) []corev1.HostIP {
	if ip == "" {
		return nil
	}
	return []corev1.HostIP{{IP: ip}}
}

// phaseOf is the pod as a whole.
func phaseOf(f *facts) corev1.PodPhase {
	if finished(f.Pod) {
		return f.Pod.Status.Phase // For good: another is refused, and with it the status.
	}
	if f.Verdict != nil {
		return f.Verdict.Phase
	}
	return cmp.Or(endOf(f), phaseSoFar(f))
}

// phaseSoFar is that of a pod that has not ended.
func phaseSoFar(f *facts) corev1.PodPhase {
	started, _, _ := progress(f)
	if started || f.Pod.Status.Phase == corev1.PodRunning { // It never goes back.
		return corev1.PodRunning
	}
	return corev1.PodPending
}

// endOf is the phase in which a pod has ended by itself. Empty: it goes on.
func endOf(f *facts) corev1.PodPhase {
	started, going, failed := progress(f)
	switch {
	case failed && (!going || !started):
		return corev1.PodFailed
	case started && !going:
		return corev1.PodSucceeded
	}
	return ""
}

// runs reports whether any container does, or is about to.
func runs(s *PodState) bool {
	for _, c := range s.Containers { //tidy:ordered any of them
		if s.Exists && (c.Phase == Running || c.Phase == Creating) {
			return true
		}
	}
	return false
}

// progress is whether any container has run that is not an init container, whether any goes
// on, and whether any has failed.
func progress(f *facts) (started, going, failed bool) {
	for _, c := range containersOf(f.Pod) {
		s := f.State.Containers[c.Name]
		ends := s.Phase == Exited && !again(f, &c, &s)
		failed = failed || ends && s.ExitCode != 0 && !c.sidecar // Those are ended, whatever they say to it.
		started = started || !c.init && hasRun(f, c.Name)
		if !c.init || c.sidecar && f.Pod.DeletionTimestamp != nil {
			going = going || !ends
		}
	}
	return started, going, failed
}

func hasRun(f *facts, name string) bool {
	p := f.State.Containers[name].Phase
	return p == Running || p == Exited || f.History[name].last != nil
}

func containerStatus(c *container, s *ContainerState, f *facts, past bool) corev1.ContainerStatus {
	h := f.History[c.Name]
	started := s.Phase == Running && !s.Starting
	one := corev1.ContainerStatus{
		Name: c.Name, Image: cmp.Or(s.Image, c.Image), ImageID: cmp.Or(s.ImageID, c.Image), ContainerID: s.ID, Ready: s.Ready, Started: &started, RestartCount: h.restarts,
	}
	waiting := func(reason, message string) {
		one.State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: api.Clip(message, statusBytesMax)}
	}
	switch s.Phase {
	case Running:
		at := stamp(s.Started)
		one.State.Running = &corev1.ContainerStateRunning{StartedAt: at}
		one.LastTerminationState.Terminated = h.last
	case Exited:
		if !again(f, c, s) {
			one.Ready = c.init && s.ExitCode == 0
			one.State.Terminated = terminated(s)
			break
		}
		one.LastTerminationState.Terminated = h.last
		waiting("CrashLoopBackOff", "it ended and is started again after a while")
	case Refused:
		one.ContainerID = ""
		one.LastTerminationState.Terminated = h.last
		waiting(refusedFor(s.Reason, h), s.Message)
	case Creating, Absent:
		one.ContainerID = ""
		one.LastTerminationState.Terminated = h.last
		if c.init && past && !c.sidecar {
			one.Ready = true
			one.State.Terminated = &corev1.ContainerStateTerminated{Reason: "Completed"}
			break
		}
		switch {
		case h.refusals > 0 && s.Message == "": // Until this attempt is known to be better.
			waiting(refusedFor(h.refused.Reason, h), h.refused.Message)
		case s.Phase == Absent && !h.starting:
			waiting("PodInitializing", s.Message)
		default:
			waiting("ContainerCreating", s.Message)
		}
	}
	return one
}

// refusedFor is the word for it.
func refusedFor(reason string, h *history) string {
	if reason == "ErrImagePull" && h.refusals > 1 {
		return "ImagePullBackOff"
	}
	return reason
}

func terminated(s *ContainerState) *corev1.ContainerStateTerminated {
	reason := s.Reason
	if reason == "" {
		reason = "Completed"
		if s.ExitCode != 0 {
			reason = "Error"
		}
	}
	return &corev1.ContainerStateTerminated{
		ExitCode: s.ExitCode, Reason: reason, Message: api.Clip(s.Message, statusBytesMax), StartedAt: stamp(s.Started), FinishedAt: stamp(s.Finished), ContainerID: s.ID,
	}
}

// setCondition changes a condition; its time only when its status changes.
func setCondition(s *corev1.PodStatus, t corev1.PodConditionType, is bool, reason string, f *facts) {
	want := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, LastTransitionTime: stamp(f.Now)}
	if is {
		want.Status = corev1.ConditionTrue
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if c.Type != t {
			continue
		}
		if c.Status == want.Status {
			want.LastTransitionTime = c.LastTransitionTime
		}
		want.ObservedGeneration, want.LastProbeTime = c.ObservedGeneration, c.LastProbeTime
		*c = want
		return
	}
	s.Conditions = append(s.Conditions, want)
}
