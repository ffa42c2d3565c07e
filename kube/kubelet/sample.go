package kubelet

import (
	"context"
	"hash/fnv"
	"time"

	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// sampleAll tells what is used, if the runtime measures: at times of its own, so that
// not all nodes speak at once, and soon after pods came or went.
func (k *Kubelet) sampleAll(ctx context.Context) error {
	meter, ok := k.runtime.(Meter)
	if !ok {
		return nil
	}
	h := fnv.New32a()
	h.Write([]byte(k.cfg.Node))
	next := time.Duration(h.Sum32()) % sampleInterval
	for {
		select {
		case <-k.clock.After(next):
		case <-k.pods.moved:
			if !k.pause(ctx, sampleSoon) {
				return ctx.Err()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := k.sample(ctx, meter); err != nil && ctx.Err() == nil {
			k.log.Debug("a sample was not taken", "error", err)
		}
		next = sampleInterval
	}
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
