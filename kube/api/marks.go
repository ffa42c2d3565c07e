package api

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Singleton marks pods, and templates of pods, of which at most one copy may run:
// "true".
const Singleton = "holdfast.dev/singleton"

// IsSingleton reports whether there may be only one running copy of a pod.
func IsSingleton(p *corev1.Pod) bool { return p.Annotations[Singleton] == "true" }

// IsMirror reports whether a pod is the image of one that its node runs from a file of
// its own. It is made, and ended, by the node alone.
func IsMirror(p *corev1.Pod) bool { return p.Annotations[corev1.MirrorPodAnnotationKey] != "" }

// IsReady reports whether the node says that a pod may serve.
func IsReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// NodeReady is what is said of whether a node is ready. Nil: nothing yet.
func NodeReady(n *corev1.Node) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if c := &n.Status.Conditions[i]; c.Type == corev1.NodeReady {
			return c
		}
	}
	return nil
}

// Unreadable marks, in what a node tells after a restore, a pod that it has and of which
// its disk has lost all but the uid; the value says what was lost. Nobody can record it:
// it is pruned, or stays.
const Unreadable = "holdfast.dev/unreadable"

// IsUnreadable reports whether nobody knows what a pod is.
func IsUnreadable(p *corev1.Pod) bool { return p.Annotations[Unreadable] != "" }
