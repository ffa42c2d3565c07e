package cri

import (
	"context"
	"fmt"
	"time"

	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Usage implements runtime.Engine.
func (e *Engine) Usage(ctx context.Context, uid string) (map[string]runtime.Use, error) {
	answer, err := e.runtime.ListContainerStats(ctx, &api.ListContainerStatsRequest{Filter: &api.ContainerStatsFilter{LabelSelector: e.ofPod(uid)}})
	if err != nil {
		return nil, fmt.Errorf("use of pod %s: %w", uid, refine(err))
	}
	use := map[string]runtime.Use{}
	for _, s := range answer.Stats {
		if s.GetCpu() == nil {
			continue // It does not run.
		}
		memory := s.GetMemory().GetWorkingSetBytes().GetValue()
		if memory == 0 {
			memory = s.GetMemory().GetUsageBytes().GetValue()
		}
		use[s.GetAttributes().GetLabels()[labelContainer]] = runtime.Use{
			CPU: time.Duration(s.Cpu.GetUsageCoreNanoSeconds().GetValue()), MemoryBytes: int64(memory),
		}
	}
	return use, nil
}
