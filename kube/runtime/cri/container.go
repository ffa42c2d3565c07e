package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/status"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Start implements runtime.Engine.
func (e *Engine) Start(ctx context.Context, spec *runtime.ContainerSpec) (string, error) {
	sandboxes, err := e.sandboxes(ctx, spec.UID)
	if err != nil {
		return "", err
	}
	if len(sandboxes) == 0 || !ready(sandboxes[0]) {
		return "", fmt.Errorf("pod %s is not open: %w", spec.UID, runtime.ErrNotFound)
	}
	sandbox := sandboxes[0]
	pod, err := configOf(sandbox)
	if err != nil {
		return "", err
	}
	config, err := e.containerConfig(pod, spec)
	if err != nil {
		return "", fmt.Errorf("container %s: %w", spec.Name, err)
	}
	selector := e.ofPod(spec.UID)
	selector[labelContainer] = spec.Name
	attempts, err := e.listContainers(ctx, selector)
	if err != nil {
		return "", err
	}
	id, begun, err := e.thisAttempt(ctx, spec, attempts)
	if err != nil || begun {
		return id, err
	}
	if err := e.removeEnded(ctx, spec, attempts); err != nil {
		return "", err
	}
	if id == "" {
		answer, err := e.runtime.CreateContainer(ctx, &api.CreateContainerRequest{PodSandboxId: sandbox.Id, Config: config, SandboxConfig: pod})
		if err != nil {
			return "", fmt.Errorf("make container %s: %w", spec.Name, refine(err))
		}
		id = answer.ContainerId
	}
	if err := e.limitBefore(pod.Linux.GetCgroupParent(), id, spec.Resources); err != nil {
		return "", fmt.Errorf("limits of container %s: %w", spec.Name, err)
	}
	if err := e.begin(ctx, id); err != nil {
		return "", fmt.Errorf("start container %s: %w", spec.Name, err)
	}
	if err := e.limitContainer(ctx, id, spec.Resources); err != nil {
		return "", fmt.Errorf("limits of container %s: %w", spec.Name, err)
	}
	return idOf(spec.UID, id), nil
}

// thisAttempt finds what an earlier call has made of a start.
func (e *Engine) thisAttempt(ctx context.Context, spec *runtime.ContainerSpec, attempts []*api.Container) (id string, begun bool, err error) {
	for _, c := range attempts {
		if int(c.Metadata.GetAttempt()) != spec.Attempt {
			continue
		}
		if c.State == api.ContainerState_CONTAINER_CREATED {
			// The spec may have changed since; a start that was given up is made anew.
			if _, err := e.runtime.RemoveContainer(ctx, &api.RemoveContainerRequest{ContainerId: c.Id}); err != nil && !absent(err) {
				return "", false, fmt.Errorf("remove container %s: %w", c.Id, refine(err))
			}
			continue
		}
		return idOf(spec.UID, c.Id), true, nil
	}
	return "", false, nil
}

// removeEnded removes the attempts before the last that ended.
func (e *Engine) removeEnded(ctx context.Context, spec *runtime.ContainerSpec, attempts []*api.Container) error {
	last := -1
	for _, c := range attempts {
		if c.State == api.ContainerState_CONTAINER_EXITED {
			last = max(last, int(c.Metadata.GetAttempt()))
		}
	}
	for _, c := range attempts {
		if c.State != api.ContainerState_CONTAINER_EXITED || int(c.Metadata.GetAttempt()) == last {
			continue
		}
		told, err := e.tell(ctx, c)
		if absent(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("container %s: %w", c.Id, refine(err))
		}
		// Those of its name with a number after it, too.
		logs, _ := filepath.Glob(told.Log + ".*")
		for _, name := range append(logs, told.Log) {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if _, err := e.runtime.RemoveContainer(ctx, &api.RemoveContainerRequest{ContainerId: c.Id}); err != nil && !absent(err) {
			return fmt.Errorf("remove attempt %d of %s: %w", c.Metadata.GetAttempt(), spec.Name, refine(err))
		}
	}
	return nil
}

// begin starts a container that was made. Of one that could not begin nothing is left.
func (e *Engine) begin(ctx context.Context, id string) error {
	_, err := e.runtime.StartContainer(ctx, &api.StartContainerRequest{ContainerId: id})
	if err == nil {
		return nil
	}
	// It counts as ended, with the code 128, and would be taken for one that ran.
	_, left := e.runtime.RemoveContainer(ctx, &api.RemoveContainerRequest{ContainerId: id})
	if absent(left) {
		left = nil
	}
	text := status.Convert(err).Message()
	if hasAny(text, unrunnable) {
		return errors.Join(fmt.Errorf("%w: %s", runtime.ErrNoCommand, text), refine(left))
	}
	return errors.Join(refine(err), refine(left))
}

// Stop implements runtime.Engine.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	_, runtimeID, err := split(id)
	if err != nil {
		return nil // No such container: it does not run.
	}
	seconds := int64((grace + time.Second - 1) / time.Second)
	if _, err := e.runtime.StopContainer(ctx, &api.StopContainerRequest{ContainerId: runtimeID, Timeout: seconds}); err != nil && !absent(err) {
		return fmt.Errorf("stop container %s: %w", id, refine(err))
	}
	return nil
}

// running finds a container that a command can run in.
func (e *Engine) running(ctx context.Context, id string) (*api.ContainerStatus, map[string]string, error) {
	_, runtimeID, err := split(id)
	if err != nil {
		return nil, nil, err
	}
	answer, err := e.runtime.ContainerStatus(ctx, &api.ContainerStatusRequest{ContainerId: runtimeID, Verbose: true})
	if err != nil {
		return nil, nil, fmt.Errorf("container %s: %w", id, refine(err))
	}
	if answer.Status.State != api.ContainerState_CONTAINER_RUNNING {
		return nil, nil, fmt.Errorf("container %s: %w", id, runtime.ErrNotRunning)
	}
	return answer.Status, answer.Info, nil
}
