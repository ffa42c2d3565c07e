package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// containerConfig is a container in the words of CRI.
func (e *Engine) containerConfig(pod *api.PodSandboxConfig, spec *runtime.ContainerSpec) (*api.ContainerConfig, error) {
	if err := check(spec); err != nil {
		return nil, err
	}
	log, err := filepath.Rel(pod.LogDirectory, spec.Log)
	if err != nil || !filepath.IsLocal(log) {
		return nil, fmt.Errorf("%w: log %s, want one below %s", runtime.ErrInvalid, spec.Log, pod.LogDirectory)
	}
	if err := os.MkdirAll(filepath.Dir(spec.Log), 0o755); err != nil {
		return nil, err
	}
	c := &api.ContainerConfig{
		Metadata: &api.ContainerMetadata{Name: spec.Name, Attempt: uint32(spec.Attempt)},
		Image:    &api.ImageSpec{Image: spec.Image.ID, UserSpecifiedImage: spec.Image.Ref},
		Command:  spec.Command, Args: spec.Args, WorkingDir: spec.WorkingDir,
		Labels:      e.containerLabels(pod, spec.Name),
		Annotations: map[string]string{annotationImage: spec.Image.ID},
		LogPath:     log, Stdin: spec.Stdin, Tty: spec.TTY,
		Linux: &api.LinuxContainerConfig{Resources: e.resources(spec), SecurityContext: securityOf(pod, &spec.Security, spec.Image.User)},
	}
	if spec.TTY {
		c.Annotations[annotationTTY] = "yes"
	}
	if spec.Stdin {
		c.Annotations[annotationStdin] = "yes"
	}
	for _, env := range spec.Env {
		name, value, _ := strings.Cut(env, "=")
		c.Envs = append(c.Envs, &api.KeyValue{Key: name, Value: []byte(value)})
	}
	if c.Mounts, err = mountsOf(pod, spec); err != nil {
		return nil, err
	}
	return c, nil
}

// check finds what no runtime could start.
func check(spec *runtime.ContainerSpec) error {
	if err := spec.Check(); err != nil {
		return err
	}
	for _, c := range slices.Concat(spec.Security.AddCapabilities, spec.Security.DropCapabilities) {
		// runc leaves out unknown ones without a word.
		if !slices.Contains(capabilities, strings.TrimPrefix(c, "CAP_")) {
			return fmt.Errorf("%w: there is no capability %q", runtime.ErrInvalid, c)
		}
	}
	return checkUser(spec)
}

// checkUser refuses root where it is not wanted.
func checkUser(spec *runtime.ContainerSpec) error {
	s := spec.Security
	if !s.NonRoot {
		return nil
	}
	if s.User != nil {
		if *s.User == 0 {
			return fmt.Errorf("%w: it must not run as root, and its user is 0", runtime.ErrInvalid)
		}
		return nil
	}
	user, _, _ := strings.Cut(spec.Image.User, ":")
	if user == "" || user == "root" {
		return fmt.Errorf("%w: it must not run as root, which is the user of image %s: give it another with runAsUser", runtime.ErrInvalid, spec.Image.Ref)
	}
	if n, err := strconv.ParseInt(user, 10, 64); err != nil || n == 0 {
		return fmt.Errorf("%w: it must not run as root, and image %s has the user %q, who may be: give it one with runAsUser", runtime.ErrInvalid, spec.Image.Ref, user)
	}
	return nil
}

// mountsOf are those of a container, and the file of names that all containers of a pod share.
func mountsOf(pod *api.PodSandboxConfig, spec *runtime.ContainerSpec) ([]*api.Mount, error) {
	var mounts []*api.Mount
	hosts := "/etc/hosts"
	if !slices.ContainsFunc(spec.Mounts, func(m runtime.Mount) bool { return filepath.Clean(m.Target) == hosts }) {
		mounts = append(mounts, &api.Mount{ContainerPath: hosts, HostPath: hostsFile(filepath.Dir(pod.LogDirectory))})
	}
	for _, m := range spec.Mounts {
		// containerd 1.6 would make a folder where there is nothing.
		if _, err := os.Stat(m.Source); err != nil {
			return nil, fmt.Errorf("mount at %s: %w", m.Target, err)
		}
		mounts = append(mounts, &api.Mount{ContainerPath: m.Target, HostPath: m.Source, Readonly: m.ReadOnly})
	}
	return mounts, nil
}

const periodMicroseconds = 100_000 // Of the processor quota, as kubelets have it.

func (e *Engine) resources(spec *runtime.ContainerSpec) *api.LinuxContainerResources {
	r := spec.Resources
	out := &api.LinuxContainerResources{
		CpuShares: max(r.RequestMilliCPU*1024/1000, 2), MemoryLimitInBytes: r.LimitMemoryBytes, OomScoreAdj: int64(spec.OOMScoreAdj),
	}
	if r.LimitMilliCPU > 0 {
		out.CpuPeriod = periodMicroseconds
		out.CpuQuota = max(r.LimitMilliCPU*periodMicroseconds/1000, 1000) // The kernel takes no less.
	}
	if r.LimitPIDs > 0 && e.unified {
		out.Unified = map[string]string{"pids.max": strconv.FormatInt(r.LimitPIDs, 10)}
	}
	return out
}

func securityOf(pod *api.PodSandboxConfig, s *runtime.Security, imageUser string) *api.LinuxContainerSecurityContext {
	c := &api.LinuxContainerSecurityContext{
		NamespaceOptions:   pod.Linux.GetSecurityContext().GetNamespaceOptions(),
		SupplementalGroups: s.Groups,
		ReadonlyRootfs:     s.ReadOnlyRoot,
		NoNewPrivs:         !s.MayGainPrivileges,
		Capabilities:       &api.Capability{AddCapabilities: bare(s.AddCapabilities), DropCapabilities: bare(s.DropCapabilities)},
		// Runtimes mask what they are told, and nothing else.
		MaskedPaths: []string{
			"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
			"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
		},
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		Seccomp:       &api.SecurityProfile{ProfileType: api.SecurityProfile_RuntimeDefault},
	}
	if s.User != nil {
		c.RunAsUser = &api.Int64Value{Value: *s.User}
	}
	if s.Group != nil {
		c.RunAsGroup = &api.Int64Value{Value: *s.Group}
		if user, _, _ := strings.Cut(imageUser, ":"); s.User == nil { // A group alone is refused by runtimes.
			if n, err := strconv.ParseInt(user, 10, 64); err == nil || user == "" {
				c.RunAsUser = &api.Int64Value{Value: n}
			} else {
				c.RunAsUsername = user
			}
		}
	}
	if s.UnfilteredSyscalls {
		c.Seccomp.ProfileType = api.SecurityProfile_Unconfined
	}
	return c
}

func bare(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.TrimPrefix(n, "CAP_")
	}
	return out
}

// capabilities are those of Linux 6, and ALL.
var capabilities = strings.Fields(`ALL CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
	SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
	MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)
