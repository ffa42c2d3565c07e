package cri

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// List implements runtime.Engine.
func (e *Engine) List(ctx context.Context) ([]runtime.Pod, error) {
	pods, err := e.list(ctx, "")
	return pods, err
}

// pod is one that is there.
func (e *Engine) pod(ctx context.Context, uid string) (*runtime.Pod, error) {
	pods, err := e.list(ctx, uid)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("pod %s: %w", uid, runtime.ErrNotFound)
	}
	return &pods[0], nil
}

// list returns the pods with their containers, those of ended sandboxes too.
func (e *Engine) list(ctx context.Context, uid string) ([]runtime.Pod, error) {
	sandboxes, err := e.sandboxes(ctx, uid)
	if err != nil {
		return nil, err
	}
	selector := map[string]string{labelNode: e.cfg.Node}
	if uid != "" {
		selector = e.ofPod(uid)
	}
	containers, err := e.listContainers(ctx, selector)
	if err != nil {
		return nil, err
	}
	if uid == "" {
		e.forget(sandboxes, containers)
	}
	var pods []runtime.Pod
	at := map[string]int{} // Place of a pod, by UID.
	for _, s := range sandboxes {
		m := s.Metadata
		if _, ok := at[m.GetUid()]; ok {
			continue // The ready or latest one was before.
		}
		at[m.GetUid()] = len(pods)
		ip, err := e.address(ctx, s)
		if err != nil {
			return nil, err
		}
		pods = append(pods, runtime.Pod{UID: m.GetUid(), Namespace: m.GetNamespace(), Name: m.GetName(), IP: ip})
	}
	for _, c := range containers {
		i, ok := at[c.Labels[labelPodUID]]
		if !ok || c.State == api.ContainerState_CONTAINER_CREATED {
			continue // The sandbox came after the list, or it has not begun.
		}
		told, err := e.tell(ctx, c)
		if absent(err) {
			continue // Removed meanwhile.
		}
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", c.Id, refine(err))
		}
		pods[i].Containers = append(pods[i].Containers, told)
	}
	for i := range pods {
		slices.SortFunc(pods[i].Containers, func(a, b runtime.Container) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Attempt, b.Attempt))
		})
	}
	return pods, nil
}

func (e *Engine) listContainers(ctx context.Context, selector map[string]string) ([]*api.Container, error) {
	answer, err := e.runtime.ListContainers(ctx, &api.ListContainersRequest{Filter: &api.ContainerFilter{LabelSelector: selector}})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", refine(err))
	}
	return answer.Containers, nil
}

// address of a sandbox; one that is on the node's network has none.
func (e *Engine) address(ctx context.Context, s *api.PodSandbox) (string, error) {
	e.mu.Lock()
	ip, ok := e.mu.ips[s.Id]
	e.mu.Unlock()
	if ok || !ready(s) {
		return ip, nil
	}
	answer, err := e.runtime.PodSandboxStatus(ctx, &api.PodSandboxStatusRequest{PodSandboxId: s.Id})
	if absent(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("sandbox %s: %w", s.Id, refine(err))
	}
	// Of a sandbox on the node's network some runtimes tell the node's address.
	if answer.Status.GetLinux().GetNamespaces().GetOptions().GetNetwork() != api.NamespaceMode_NODE {
		ip = answer.Status.GetNetwork().GetIp()
	}
	e.mu.Lock()
	e.mu.ips[s.Id] = ip
	e.mu.Unlock()
	return ip, nil
}

// tell is a container in our words. What has ended is asked for once.
func (e *Engine) tell(ctx context.Context, c *api.Container) (runtime.Container, error) {
	e.mu.Lock()
	told, ok := e.mu.ended[c.Id]
	e.mu.Unlock()
	if ok {
		return told, nil
	}
	answer, err := e.runtime.ContainerStatus(ctx, &api.ContainerStatusRequest{ContainerId: c.Id})
	if err != nil {
		return told, err
	}
	told = translate(answer.Status, c.Annotations[annotationImage])
	e.mu.Lock()
	defer e.mu.Unlock()
	if told.Phase == runtime.Exited {
		e.mu.ended[c.Id] = told
		delete(e.mu.logs, c.Id)
	} else {
		e.mu.logs[c.Id] = told.Log
	}
	return told, nil
}

func translate(s *api.ContainerStatus, image string) runtime.Container {
	c := runtime.Container{
		ID: idOf(s.Labels[labelPodUID], s.Id), Name: s.Labels[labelContainer], Attempt: int(s.Metadata.GetAttempt()),
		ImageID: image, Phase: runtime.Running, Started: moment(s.StartedAt), Log: s.LogPath,
	}
	if s.State == api.ContainerState_CONTAINER_RUNNING {
		return c
	}
	c.Phase, c.Finished, c.ExitCode, c.Message = runtime.Exited, moment(s.FinishedAt), s.ExitCode, s.Message
	if c.Started.IsZero() {
		c.Started = moment(s.CreatedAt) // It never began.
	}
	if c.Finished.Before(c.Started) {
		c.Started = c.Finished // It was quicker than the runtime, which takes the time after the start.
	}
	if s.Reason == "OOMKilled" {
		c.Reason = runtime.OOMKilled
	}
	return c
}

func moment(nanoseconds int64) time.Time {
	if nanoseconds <= 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}

// forget drops what was remembered of things that are gone.
func (e *Engine) forget(sandboxes []*api.PodSandbox, containers []*api.Container) {
	here := map[string]bool{}
	for _, s := range sandboxes {
		here[s.Id] = true
	}
	for _, c := range containers {
		here[c.Id] = true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	prune(e.mu.ips, here)
	prune(e.mu.ended, here)
	prune(e.mu.logs, here)
}

func prune[T any](m map[string]T, here map[string]bool) {
	for id := range m {
		if !here[id] {
			delete(m, id)
		}
	}
}
