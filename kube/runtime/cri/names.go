package cri

import (
	"fmt"
	"strings"

	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Labels, as kubelets set them, so that crictl and monitoring find names.
const (
	labelPodName      = "io.kubernetes.pod.name"
	labelPodNamespace = "io.kubernetes.pod.namespace"
	labelPodUID       = "io.kubernetes.pod.uid"
	labelContainer    = "io.kubernetes.container.name"
	labelNode         = "holdfast.dev/node" // Ours: what has another one is not touched.
)

// Annotations are what List and Start need after a restart of the kubelet.
const (
	annotationConfig = "holdfast.dev/config" // Of a sandbox: its configuration as JSON.
	annotationImage  = "holdfast.dev/image"  // Of a container: the ID that the node knows.
	annotationTTY    = "holdfast.dev/tty"    // Of a container: there if it has a terminal,
	annotationStdin  = "holdfast.dev/stdin"  // and if it reads.
)

// idOf is the ID of a container in our words.
func idOf(uid, id string) string { return uid + "_" + id }

// split is the other way.
func split(id string) (uid, runtimeID string, err error) {
	i := strings.LastIndexByte(id, '_')
	if i <= 0 || i == len(id)-1 {
		return "", "", fmt.Errorf("%q: %w", id, runtime.ErrNotFound)
	}
	return id[:i], id[i+1:], nil
}

// ofPod selects what belongs to a pod of this node.
func (e *Engine) ofPod(uid string) map[string]string {
	return map[string]string{labelNode: e.cfg.Node, labelPodUID: uid}
}

func (e *Engine) podLabels(spec *runtime.PodSpec) map[string]string {
	return map[string]string{labelNode: e.cfg.Node, labelPodUID: spec.UID, labelPodName: spec.Name, labelPodNamespace: spec.Namespace}
}

func (e *Engine) containerLabels(sandbox *api.PodSandboxConfig, name string) map[string]string {
	m := sandbox.Metadata
	return map[string]string{labelNode: e.cfg.Node, labelPodUID: m.Uid, labelPodName: m.Name, labelPodNamespace: m.Namespace, labelContainer: name}
}
