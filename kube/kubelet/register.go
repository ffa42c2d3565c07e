package kubelet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// register makes the node's object, or says in the one that is there what this
// machine is. It tries until it is done or refused.
func (k *Kubelet) register(ctx context.Context) (*corev1.Node, error) {
	delay := retryDelayMin
	told := ""
	for {
		node, err := k.registerOnce(ctx)
		if err == nil {
			return node, nil
		}
		if final(err) {
			return nil, fmt.Errorf("register node %s: %w", k.cfg.Node, err)
		}
		if text := err.Error(); text != told && ctx.Err() == nil {
			k.log.Warn("node is not registered yet, trying on", "error", err)
			told = text
		}
		if !k.pause(ctx, delay) {
			return nil, ctx.Err()
		}
		delay = min(2*delay, retryDelayMax)
	}
}

func (k *Kubelet) registerOnce(ctx context.Context) (*corev1.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	node, err := objects.Get[*corev1.Node](ctx, k.client, "", k.cfg.Node)
	if errors.Is(err, objects.ErrNotFound) {
		n := &corev1.Node{}
		n.Name, n.Labels = k.cfg.Node, k.labels()
		k.describe(&n.Status, false)
		node, err = objects.Create(ctx, k.client, n)
		if err == nil {
			k.log.Info("registered")
			return node, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if labels := k.labels(); !contains(node.Labels, labels) {
		n := node.DeepCopy()
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		maps.Copy(n.Labels, labels)
		if node, err = objects.Update(ctx, k.client, n); err != nil {
			return nil, err
		}
	}
	return k.report(ctx, node, false)
}

func contains(have, want map[string]string) bool {
	for name, value := range want {
		if is, ok := have[name]; !ok || is != value {
			return false
		}
	}
	return true
}

// report writes the status of the node if it is not what it should be.
func (k *Kubelet) report(ctx context.Context, node *corev1.Node, ready bool) (*corev1.Node, error) {
	n := node.DeepCopy()
	k.describe(&n.Status, ready)
	if l, ok := k.runtime.(ImageLister); ok && ready {
		images, err := l.NodeImages(ctx)
		if err == nil {
			n.Status.Images = largest(images)
		} else if ctx.Err() == nil {
			k.log.Debug("the images of the node are not told", "error", err)
		}
	}
	if equality.Semantic.DeepEqual(n.Status, node.Status) {
		return node, nil
	}
	return objects.UpdateStatus(ctx, k.client, n)
}

// largest are the images that are told: what is large is what the scheduler looks for.
func largest(images []corev1.ContainerImage) []corev1.ContainerImage {
	for i := range images {
		images[i].Names = images[i].Names[:min(len(images[i].Names), imageNamesMax)]
	}
	slices.SortFunc(images, func(a, b corev1.ContainerImage) int {
		return cmp.Or(cmp.Compare(b.SizeBytes, a.SizeBytes), slices.Compare(a.Names, b.Names))
	})
	return images[:min(len(images), imagesToldMax)]
}

// hostnameLabel is the name of a node, as far as a label can hold it: of a longer one the
// end is a hash, so that no two nodes are taken for one.
func hostnameLabel(node string) string {
	const most, hash = 63, 10
	if len(node) <= most {
		return node
	}
	sum := sha256.Sum256([]byte(node))
	return api.ClipName(node, most-hash-1) + "-" + hex.EncodeToString(sum[:hash/2])
}

func (k *Kubelet) labels() map[string]string {
	labels := map[string]string{corev1.LabelHostname: hostnameLabel(k.cfg.Node), corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH}
	maps.Copy(labels, k.cfg.Labels)
	return labels
}

// describe fills in what this kubelet knows of its node. That it is ready is said only
// with a lease: without one it counts as dead.
func (k *Kubelet) describe(s *corev1.NodeStatus, ready bool) {
	s.Capacity, s.Allocatable = k.cfg.Capacity, k.allocatable()
	s.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: k.cfg.Node}}
	if k.cfg.Address != "" {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: k.cfg.Address})
	}
	s.NodeInfo = k.cfg.System
	s.NodeInfo.OperatingSystem, s.NodeInfo.Architecture = runtime.GOOS, runtime.GOARCH
	s.NodeInfo.ContainerRuntimeVersion = k.cfg.Runtime
	if !ready {
		return
	}
	if v, ok := k.runtime.(Versioner); ok {
		s.NodeInfo.ContainerRuntimeVersion = v.RuntimeVersion()
	}
	k.setNodeCondition(s, corev1.NodeReady, true, "KubeletReady", "the kubelet is ready for pods")
	for _, c := range k.conditions() {
		k.setNodeCondition(s, c.Type, c.Status == corev1.ConditionTrue, c.Reason, c.Message)
	}
}

// setNodeCondition changes a condition if it is another.
func (k *Kubelet) setNodeCondition(s *corev1.NodeStatus, t corev1.NodeConditionType, is bool, reason, message string) {
	want := corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: stamp(k.clock.Wall())}
	if is {
		want.Status = corev1.ConditionTrue
	}
	want.LastHeartbeatTime = want.LastTransitionTime // Of the change: that the node lives is told by its lease.
	i := slices.IndexFunc(s.Conditions, func(c corev1.NodeCondition) bool { return c.Type == t })
	switch {
	case i < 0:
		s.Conditions = append(s.Conditions, want)
	case s.Conditions[i].Status != want.Status || s.Conditions[i].Reason != want.Reason:
		s.Conditions[i] = want
	}
}

func (k *Kubelet) allocatable() corev1.ResourceList {
	all := k.cfg.Capacity.DeepCopy()
	for name, reserved := range k.cfg.Reserved {
		if q, ok := all[name]; ok {
			q.Sub(reserved)
			all[name] = q
		}
	}
	return all
}

// keepStatus looks at the node's status now and then: somebody may have written, for
// good reasons that are over, that it is not ready.
func (k *Kubelet) keepStatus(ctx context.Context) error {
	next := statusInterval
	for {
		select {
		case <-k.clock.After(next):
			next = statusInterval
		case <-k.claimed:
			next = statusSoon
		case <-k.changed:
			next = statusInterval
		case <-ctx.Done():
			return ctx.Err()
		}
		if k.mayHaveEnded() {
			continue // It will be claimed anew.
		}
		if err := k.reportNow(ctx); err != nil && ctx.Err() == nil {
			k.log.Debug("status of the node is not written, trying again", "error", err)
			next = time.Second
		}
	}
}

func (k *Kubelet) reportNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	node, err := objects.Get[*corev1.Node](ctx, k.client, "", k.cfg.Node)
	if err != nil {
		return err
	}
	_, err = k.report(ctx, node, true)
	return err
}
