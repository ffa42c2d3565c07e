package kubelet

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

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
	// Forget says that the object of a pod is gone, after all else of it was: its
	// logs may go too.
	Forget(uid types.UID)
}

// Fencer is a runtime whose pods have something to lose when they are stopped.
type Fencer interface {
	// Fence is Stop without grace of a pod that may be started again: its volumes stay until
	// it is stopped otherwise, or forgotten.
	Fence(pod *corev1.Pod)
}

// Renewer is a runtime whose containers have images.
type Renewer interface {
	// Renew begins to end a container that runs from another image than its pod names
	// now. It is started again once it has ended.
	Renew(pod *corev1.Pod, container string)
}

// NodeFollower is a runtime that was made with a node as it was last, or with one that
// was never registered, and is told how it is now.
type NodeFollower interface {
	NodeChanged(node *corev1.Node)
}

// Versioner is a runtime that is another program, whose name and version are told:
// "containerd://1.6.20".
type Versioner interface {
	RuntimeVersion() string
}

// Isolator is a runtime that tells whether containers are kept from each other and from
// the machine. Of one that does not tell nothing is said.
type Isolator interface {
	Isolated() bool
}

// ImageCollector is a runtime that can make room by removing images that no pod uses.
// It is asked when the disk runs full, and may take a while.
type ImageCollector interface {
	CollectImages(ctx context.Context) error
}

// ImageLister is a runtime that tells which images the node has.
type ImageLister interface {
	NodeImages(ctx context.Context) ([]corev1.ContainerImage, error)
}

// Meter measures what a pod uses, by container.
type Meter interface {
	Usage(pod *corev1.Pod) map[string]*kubepb.Use
}

// PodState is what a runtime has of a pod.
type PodState struct {
	Exists     bool // Something is left of it.
	IP         string
	Containers map[string]ContainerState // Those that were started, init containers among them; how they ended is told until Forget.

	// Evicted says why the pod cannot stay on this node. Empty: it can.
	Evicted string
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
	ID, ImageID       string
	Image             string // As its pod named it at the start. Empty: not known.
	Phase             Phase
	Reason, Message   string
	Started, Finished time.Time
	ExitCode          int32
	Missing           bool // Refused, for an object that is not there yet.
	Starting          bool // Running, but its startup probe has not passed yet.
	Ready             bool // Running, and ready for work.
}
