package cri

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Open implements runtime.Engine.
func (e *Engine) Open(ctx context.Context, spec *runtime.PodSpec) (*runtime.Pod, error) {
	if spec.UID == "" || spec.Name == "" || spec.Namespace == "" || !filepath.IsAbs(spec.Dir) {
		return nil, fmt.Errorf("pod %q with folder %q: %w", spec.UID, spec.Dir, runtime.ErrInvalid)
	}
	sandboxes, err := e.sandboxes(ctx, spec.UID)
	if err != nil {
		return nil, err
	}
	if len(sandboxes) == 0 || !ready(sandboxes[0]) {
		if err := e.renew(ctx, spec, sandboxes); err != nil {
			return nil, err
		}
	}
	pod, err := e.pod(ctx, spec.UID)
	if err != nil {
		return nil, err
	}
	if err := e.limitPod(e.parent(spec), spec.Resources); err != nil {
		return nil, fmt.Errorf("limits of pod %s: %w", spec.UID, err)
	}
	if err := writeHosts(spec, pod.IP); err != nil {
		return nil, fmt.Errorf("names of pod %s: %w", spec.UID, err)
	}
	return pod, nil
}

func ready(s *api.PodSandbox) bool { return s.State == api.PodSandboxState_SANDBOX_READY }

// sandboxes of a pod: a ready one first, then the latest.
func (e *Engine) sandboxes(ctx context.Context, uid string) ([]*api.PodSandbox, error) {
	filter := &api.PodSandboxFilter{LabelSelector: map[string]string{labelNode: e.cfg.Node}}
	if uid != "" {
		filter.LabelSelector = e.ofPod(uid)
	}
	answer, err := e.runtime.ListPodSandbox(ctx, &api.ListPodSandboxRequest{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", refine(err))
	}
	slices.SortFunc(answer.Items, func(a, b *api.PodSandbox) int {
		return cmp.Or(cmp.Compare(a.State, b.State), cmp.Compare(b.CreatedAt, a.CreatedAt))
	})
	return answer.Items, nil
}

// renew makes a sandbox, after that of a pod has ended or where there is none.
func (e *Engine) renew(ctx context.Context, spec *runtime.PodSpec, before []*api.PodSandbox) error {
	attempt, err := e.retire(ctx, before)
	if err != nil {
		return err
	}
	for _, dir := range []string{"logs", "engine"} {
		if err := os.MkdirAll(filepath.Join(spec.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	config, err := e.sandboxConfig(spec, attempt)
	if err != nil {
		return err
	}
	for {
		_, err := e.runtime.RunPodSandbox(ctx, &api.RunPodSandboxRequest{Config: config})
		if err == nil {
			return nil
		}
		// An opening that was given up is still being undone.
		if !strings.Contains(err.Error(), "reserved") || e.pause(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("sandbox of pod %s: %w", spec.UID, refine(err))
		}
		if found, err := e.sandboxes(ctx, spec.UID); err == nil && len(found) > 0 && ready(found[0]) {
			return nil
		}
	}
}

// retire ends the sandboxes that a pod had, and returns the number of the next. The last
// one is kept until the pod is closed: it knows how its containers ended.
func (e *Engine) retire(ctx context.Context, before []*api.PodSandbox) (next uint32, err error) {
	for i, s := range before {
		next = max(next, s.Metadata.GetAttempt()+1)
		// What has ended holds its address until it is stopped.
		if _, err := e.runtime.StopPodSandbox(ctx, &api.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil && !absent(err) {
			return 0, fmt.Errorf("end sandbox %s: %w", s.Id, refine(err))
		}
		if i == 0 {
			continue
		}
		if _, err := e.runtime.RemovePodSandbox(ctx, &api.RemovePodSandboxRequest{PodSandboxId: s.Id}); err != nil && !absent(err) {
			return 0, fmt.Errorf("remove sandbox %s: %w", s.Id, refine(err))
		}
	}
	return next, nil
}

// sandboxConfig is a pod in the words of CRI.
func (e *Engine) sandboxConfig(spec *runtime.PodSpec, attempt uint32) (*api.PodSandboxConfig, error) {
	namespaces := &api.NamespaceOption{Pid: api.NamespaceMode_CONTAINER}
	if spec.HostNetwork {
		namespaces.Network = api.NamespaceMode_NODE
	}
	c := &api.PodSandboxConfig{
		Metadata:     &api.PodSandboxMetadata{Name: spec.Name, Namespace: spec.Namespace, Uid: spec.UID, Attempt: attempt},
		LogDirectory: filepath.Join(spec.Dir, "logs"),
		Labels:       e.podLabels(spec),
		Linux: &api.LinuxPodSandboxConfig{
			CgroupParent: e.parent(spec),
			SecurityContext: &api.LinuxSandboxSecurityContext{
				NamespaceOptions: namespaces, Seccomp: &api.SecurityProfile{ProfileType: api.SecurityProfile_RuntimeDefault},
			},
		},
	}
	if !spec.HostNetwork {
		c.Hostname = spec.Hostname // On the node's network a pod has the node's name.
	}
	if d := spec.DNS; len(d.Servers)+len(d.Searches)+len(d.Options) > 0 {
		c.DnsConfig = &api.DNSConfig{Servers: d.Servers, Searches: d.Searches, Options: d.Options}
	}
	text, err := protojson.Marshal(c)
	if err != nil {
		return nil, err
	}
	c.Annotations = map[string]string{annotationConfig: string(text)}
	return c, nil
}

// configOf is the configuration of a sandbox that is there.
func configOf(s *api.PodSandbox) (*api.PodSandboxConfig, error) {
	c := &api.PodSandboxConfig{}
	text := s.Annotations[annotationConfig]
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(text), c); err != nil {
		return nil, fmt.Errorf("sandbox %s: annotation %s: %w", s.Id, annotationConfig, err)
	}
	c.Annotations = s.Annotations
	return c, nil
}

// hostsFile is the file of names of a pod.
func hostsFile(dir string) string { return filepath.Join(dir, "engine", "hosts") }

// writeHosts writes it: the runtime knows neither the added names nor the pod's own.
func writeHosts(spec *runtime.PodSpec, ip string) error {
	var b strings.Builder
	if ip == "" {
		own, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		b.Write(own)
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
		fmt.Fprintf(&b, "%s\t%s\n", ip, spec.Hostname)
	}
	for _, h := range spec.Hosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, strings.Join(h.Names, "\t"))
	}
	// Written in place: containers that run have the file itself mounted.
	return os.WriteFile(hostsFile(spec.Dir), []byte(b.String()), 0o644)
}

// Close implements runtime.Engine.
func (e *Engine) Close(ctx context.Context, uid string) error {
	sandboxes, err := e.sandboxes(ctx, uid)
	if err != nil {
		return err
	}
	for _, s := range sandboxes {
		if err := e.remove(ctx, uid, s); err != nil {
			return err
		}
	}
	return nil
}

// remove ends and removes a sandbox. It goes last, since it says where the rest is.
func (e *Engine) remove(ctx context.Context, uid string, s *api.PodSandbox) error {
	config, err := configOf(s)
	if err != nil {
		return err
	}
	if err := e.killAll(ctx, uid); err != nil {
		return err
	}
	if _, err := e.runtime.StopPodSandbox(ctx, &api.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil && !absent(err) {
		return fmt.Errorf("end sandbox %s: %w", s.Id, refine(err))
	}
	if err := os.RemoveAll(filepath.Join(filepath.Dir(config.LogDirectory), "engine")); err != nil {
		return err
	}
	if _, err := e.runtime.RemovePodSandbox(ctx, &api.RemovePodSandboxRequest{PodSandboxId: s.Id}); err != nil && !absent(err) {
		return fmt.Errorf("remove sandbox %s: %w", s.Id, refine(err))
	}
	return e.removeCgroup(ctx, config.Linux.GetCgroupParent())
}

// killAll kills what runs in a pod, at once: some runtimes grant a grace when the sandbox
// is stopped.
func (e *Engine) killAll(ctx context.Context, uid string) error {
	containers, err := e.listContainers(ctx, e.ofPod(uid))
	if err != nil {
		return err
	}
	for _, c := range containers {
		if c.State != api.ContainerState_CONTAINER_RUNNING {
			continue
		}
		if _, err := e.runtime.StopContainer(ctx, &api.StopContainerRequest{ContainerId: c.Id}); err != nil && !absent(err) {
			return fmt.Errorf("kill container %s: %w", c.Id, refine(err))
		}
	}
	return nil
}
