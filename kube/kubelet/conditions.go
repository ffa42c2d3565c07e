package kubelet

import (
	"context"
	"fmt"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
)

// Isolated is the condition of a node that says whether its containers are kept from
// each other and from the machine.
const Isolated corev1.NodeConditionType = "Isolated"

// disk is whether the node's disk runs full.
type disk struct {
	pressed atomic.Bool
	known   atomic.Bool
}

// conditions are those beside Ready.
func (k *Kubelet) conditions() []corev1.NodeCondition {
	var all []corev1.NodeCondition
	add := func(t corev1.NodeConditionType, is bool, yes, no [2]string) {
		c := corev1.NodeCondition{Type: t, Status: corev1.ConditionTrue, Reason: yes[0], Message: yes[1]}
		if !is {
			c.Status, c.Reason, c.Message = corev1.ConditionFalse, no[0], no[1]
		}
		all = append(all, c)
	}
	if k.disk.known.Load() {
		add(corev1.NodeDiskPressure, k.disk.pressed.Load(),
			[2]string{"KubeletHasDiskPressure", "the disk of the node runs full: it takes no pods in"},
			[2]string{"KubeletHasNoDiskPressure", "the disk of the node has room"})
	}
	if r, ok := k.runtime.(Isolator); ok {
		add(Isolated, r.Isolated(),
			[2]string{"RuntimeIsolates", "containers are kept from each other and from the machine"},
			[2]string{"RuntimeDoesNotIsolate", "containers are processes of the machine, and reach what its user does"})
	}
	return all
}

// watchDisk measures the disk now and then.
func (k *Kubelet) watchDisk(ctx context.Context) error {
	for k.cfg.Disk != nil {
		k.lookAtDisk(ctx)
		if !k.pause(ctx, diskLook) {
			return ctx.Err()
		}
	}
	return nil
}

func (k *Kubelet) lookAtDisk(ctx context.Context) {
	free, total, err := k.cfg.Disk()
	if err != nil || total <= 0 {
		k.log.Warn("the disk is not measured", "error", err)
		return
	}
	was, first := k.disk.pressed.Load(), !k.disk.known.Load()
	is := free < total/diskFreeLow || was && free < total/diskFreeHigh
	k.disk.pressed.Store(is)
	k.disk.known.Store(true)
	if is != was {
		k.log.Warn("disk pressure has changed", "pressure", is, "free", free, "total", total)
		if is {
			k.noteNode(note{corev1.EventTypeWarning, "NodeHasDiskPressure", fmt.Sprintf("%d of %d bytes are free", free, total)})
		}
	}
	if is != was || first {
		rouse(k.changed)
	}
	if !is || !k.started.Load() {
		return
	}
	if c, ok := k.runtime.(ImageCollector); ok {
		if err := c.CollectImages(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("images are not collected", "error", err)
		}
	}
}
