package kubelet

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Runtime runs the containers of one node's pods. Its calls do not wait: what has
// become of them is told by Status, and that something has by the function that the
// runtime was made with.
type Runtime interface {
	// Adopt is called once, before anything else, with the pods of the node. What
	// is found of them goes on; what is found of others is removed.
	Adopt(pods []*corev1.Pod)
	// Start begins to start a container, and what its pod needs before that.
	Start(pod *corev1.Pod, container string)
	// Stop begins to end a pod: its containers may take as long as grace, then what is
	// left of it is removed. Asked again with less, it hurries.
	Stop(pod *corev1.Pod, grace time.Duration)
	// Status is what there is of a pod.
	Status(pod *corev1.Pod) PodState
}

// Meter measures what a pod uses, by container.
type Meter interface {
	Usage(pod *corev1.Pod) map[string]*kubepb.Use
}

// PodState is what a runtime has of a pod.
type PodState struct {
	Exists     bool // Something is left: the pod holds its resources.
	IP         string
	Containers map[string]ContainerState // Those that were started, init containers among them.
}

// Phase is how far a container is.
type Phase int

// Phases. A container that was never started is Absent.
const (
	Absent   Phase = iota
	Creating       // Its image or its surroundings are being made.
	Refused        // It could not be started; Reason and Message say why.
	Running
	Exited
)

// ContainerState is one container. Each start makes another ID.
type ContainerState struct {
	ID                string
	Phase             Phase
	Reason, Message   string
	Started, Finished time.Time
	ExitCode          int32
	Ready             bool // Running, and ready for work.
}
