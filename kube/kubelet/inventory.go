package kubelet

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// tellInventory tells the control plane what the node has, unless that is what it was
// told last. It returns what it was told now: empty once nothing is left to be told.
func (k *Kubelet) tellInventory(ctx context.Context, last string) (string, error) {
	h := &k.hold
	h.mu.Lock()
	history, level := h.mu.history, h.levelLocked()
	h.mu.Unlock()
	if history == 0 || !k.started.Load() {
		return "", nil
	}
	pods := k.pods.inventory(level)
	is := ""
	if level != kubepb.Hold_HOLD_NONE || len(pods) > 0 {
		is = fmt.Sprintf("%x %d", history, level)
		for _, p := range pods {
			is += fmt.Sprintf("\n%s %t %d", p.pod.UID, p.running, restartsOf(p.pod))
		}
	}
	if is == last {
		return last, nil
	}
	return is, k.upload(ctx, history, pods)
}

// had is a pod that the node has.
type had struct {
	pod     *corev1.Pod
	running bool
}

// inventory is what the node has and the control plane must know: while it holds,
// everything; afterwards what is still there of pods that are recorded nowhere.
func (p *pods) inventory(level kubepb.Hold) []had {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []had
	for _, w := range p.mu.workers {
		wanted := w.freed
		if level >= kubepb.Hold_HOLD_UNLISTED {
			wanted = (w.here || w.exists) && !finished(w.pod)
		}
		if !wanted || w.static != nil {
			continue
		}
		pod := w.pod
		if w.status != nil {
			pod = pod.DeepCopy()
			pod.Status = *w.status
		}
		all = append(all, had{pod, w.exists})
	}
	slices.SortFunc(all, func(a, b had) int { return strings.Compare(string(a.pod.UID), string(b.pod.UID)) })
	return all
}

func restartsOf(pod *corev1.Pod) (n int32) {
	for i := range pod.Status.ContainerStatuses {
		n += pod.Status.ContainerStatuses[i].RestartCount
	}
	return n
}

// upload sends an inventory in parts.
func (k *Kubelet) upload(ctx context.Context, history uint64, pods []had) error {
	var uids []string
	for _, p := range pods {
		uids = append(uids, string(p.pod.UID))
	}
	r := &kubepb.InventoryRequest{Node: k.cfg.Node, History: history}
	size := 0
	for _, p := range pods {
		raw, err := api.Encode(p.pod.DeepCopy())
		if err != nil {
			return err
		}
		if size+len(raw) > inventoryPartBytes && len(r.Pods) > 0 {
			r.More = true
			if err := k.uploadPart(ctx, r); err != nil {
				return err
			}
			r, size = &kubepb.InventoryRequest{Node: k.cfg.Node, History: history}, 0
		}
		r.Pods, size = append(r.Pods, &kubepb.InventoryPod{Pod: raw, Running: p.running}), size+len(raw)
	}
	r.Uids = uids
	return k.uploadPart(ctx, r)
}

func (k *Kubelet) uploadPart(ctx context.Context, r *kubepb.InventoryRequest) error {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	_, err := k.client.RPC().Inventory(ctx, r)
	return err
}
