package kubelet

import (
	"context"
	"hash/fnv"
	"time"

	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// sampleAll tells what is used, if the runtime measures. Nodes do so at times of
// their own.
func (k *Kubelet) sampleAll(ctx context.Context) error {
	meter, ok := k.runtime.(Meter)
	if !ok {
		return nil
	}
	h := fnv.New32a()
	h.Write([]byte(k.cfg.Node))
	next := time.Duration(h.Sum32()) % sampleInterval
	for k.pause(ctx, next) {
		if err := k.sample(ctx, meter); err != nil && ctx.Err() == nil {
			k.log.Debug("a sample was not taken", "error", err)
		}
		next = sampleInterval
	}
	return ctx.Err()
}

func (k *Kubelet) sample(ctx context.Context, meter Meter) error {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	r := &kubepb.SampleRequest{Node: k.cfg.Node, Time: k.clock.Wall().UnixNano(), Use: &kubepb.Use{}}
	for _, pod := range k.pods.list() {
		use := meter.Usage(pod)
		if len(use) == 0 {
			continue
		}
		r.Pods = append(r.Pods, &kubepb.PodUse{Namespace: pod.Namespace, Name: pod.Name, Uid: string(pod.UID), Containers: use})
		for _, u := range use {
			r.Use.CpuMillis += u.CpuMillis
			r.Use.MemoryBytes += u.MemoryBytes
		}
	}
	_, err := k.client.RPC().Sample(ctx, r)
	return err
}
