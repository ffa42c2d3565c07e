package replica

import (
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/holdfast-db/holdfast/kube/api"
)

type labelSet = labels.Set

// selectorOf reads a selector. One that is absent matches nothing.
func selectorOf(s *metav1.LabelSelector) (labels.Selector, error) {
	return metav1.LabelSelectorAsSelector(s)
}

// within reports whether all labels of a are in b.
func within(a, b map[string]string) bool {
	for k, v := range a {
		if got, ok := b[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func phaseRank(pod *corev1.Pod) int {
	return slices.Index([]corev1.PodPhase{corev1.PodPending, corev1.PodUnknown, corev1.PodRunning}, pod.Status.Phase)
}

func cost(pod *corev1.Pod) int64 {
	n, err := strconv.ParseInt(pod.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return n
}

func restarts(pod *corev1.Pod) (n int32) {
	for _, c := range pod.Status.ContainerStatuses {
		n = max(n, c.RestartCount)
	}
	return n
}

// batchMax pods are made at a time: each is a write under way, and a size that somebody
// mistyped must not take the memory of the control plane.
const batchMax = 512

// Batches cuts n into 1, 2, 4, …, and then batches of the largest size: a set that cannot
// create learns it from one attempt, not from hundreds.
func Batches(n int) []int {
	var sizes []int
	for size := 1; n > 0; size *= 2 {
		size = min(size, n, batchMax)
		sizes = append(sizes, size)
		n -= size
	}
	return sizes
}

// podNameMax bytes of the name of a set are in those of its pods: there is room for a word.
const podNameMax = api.NameBytesMax - 6

// New makes the n-th pod that a set creates at its present resource version, or the first
// after it whose name is free; the one after that is the next. Names follow from the
// version and the number: an attempt whose outcome was not learned meets its own name when
// it is made again, since those that are seen are passed over. taken tells names in use.
func New(set *appsv1.ReplicaSet, n int, taken func(name string) bool) (pod *corev1.Pod, next int) {
	pod = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: set.Namespace, Labels: clone(set.Spec.Template.Labels), Annotations: clone(set.Spec.Template.Annotations),
			Finalizers:      slices.Clone(set.Spec.Template.Finalizers),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))},
		},
		Spec: *set.Spec.Template.Spec.DeepCopy(),
	}
	base := api.ClipName(set.Name, podNameMax)
	for ; ; n++ {
		pod.Name = base + "-" + Word(5, string(set.UID), set.ResourceVersion, strconv.Itoa(n))
		if !taken(pod.Name) {
			return pod, n + 1
		}
	}
}

func clone(m map[string]string) map[string]string {
	c := make(map[string]string, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// alphabet has no vowels, and no digits that look like one: no words by chance.
const alphabet = "bcdfghjklmnpqrstvwxz2456789"

// Word is a short name that follows from its parts.
func Word(length int, parts ...string) string {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
		_, _ = h.Write([]byte{0})
	}
	n := h.Sum64()
	n ^= n >> 32 // The low bits of FNV are its weak ones.
	word := make([]byte, length)
	for i := range word {
		word[i] = alphabet[n%uint64(len(alphabet))]
		n /= uint64(len(alphabet))
	}
	return string(word)
}

// SetReady gives a pod's status a Ready condition, and reports whether it changed.
func SetReady(s *corev1.PodStatus, ready bool, reason string, now time.Time) bool {
	value := corev1.ConditionFalse
	if ready {
		value = corev1.ConditionTrue
	}
	for i := range s.Conditions {
		if c := &s.Conditions[i]; c.Type == corev1.PodReady {
			if c.Status == value {
				return false
			}
			c.Status, c.Reason, c.LastTransitionTime = value, reason, metav1.NewTime(now)
			return true
		}
	}
	s.Conditions = append(s.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: value, Reason: reason, LastTransitionTime: metav1.NewTime(now)})
	return true
}
