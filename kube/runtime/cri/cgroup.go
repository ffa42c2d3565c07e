package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/cgroup"
)

const cgroups = "/sys/fs/cgroup"

// unified reports whether this machine has cgroups of version 2 only.
func unified() bool {
	var s unix.Statfs_t
	return unix.Statfs(cgroups, &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC
}

// runtimeConfig is what containerd tells of its configuration to those who ask for all.
type runtimeConfig struct {
	Containerd struct {
		DefaultRuntimeName string `json:"defaultRuntimeName"`
		Runtimes           map[string]struct {
			Options struct {
				SystemdCgroup bool `json:"SystemdCgroup"`
			} `json:"options"`
		} `json:"runtimes"`
	} `json:"containerd"`
	SandboxImage string `json:"sandboxImage"`
}

// configOfRuntime reads it; others say something else, or nothing.
func configOfRuntime(text string) runtimeConfig {
	var c runtimeConfig
	if json.Unmarshal([]byte(text), &c) != nil {
		return runtimeConfig{}
	}
	return c
}

// usesSystemd asks the runtime who makes its cgroups. Old ones tell it in their
// configuration only.
func (e *Engine) usesSystemd(ctx context.Context, config runtimeConfig) bool {
	answer, err := e.runtime.RuntimeConfig(ctx, &api.RuntimeConfigRequest{})
	if err == nil {
		return answer.GetLinux().GetCgroupDriver() == api.CgroupDriver_SYSTEMD
	}
	return config.Containerd.Runtimes[config.Containerd.DefaultRuntimeName].Options.SystemdCgroup
}

// trees are the folders of a cgroup: one, or one in each hierarchy.
func (e *Engine) trees(cgroup string) []string {
	if e.systemd {
		return nil // systemd keeps slices, and removes those that are empty.
	}
	if e.unified {
		return []string{filepath.Join(cgroups, cgroup)}
	}
	entries, err := os.ReadDir(cgroups)
	if err != nil {
		return nil
	}
	var dirs []string
	for _, h := range entries {
		if h.IsDir() { // Beside them are symlinks: cpu,cpuacct has two more names.
			dirs = append(dirs, filepath.Join(cgroups, h.Name(), cgroup))
		}
	}
	return dirs
}

// limitPod sets the limits of a pod on the cgroup that the runtime has made above those
// of its containers.
func (e *Engine) limitPod(cgroup string, r runtime.Resources) error {
	values := map[string]string{}
	set := func(name string, n int64, text string) {
		if n > 0 {
			values[name] = text
		}
	}
	quota := max(r.LimitMilliCPU*periodMicroseconds/1000, 1000)
	if e.unified {
		set("memory.max", r.LimitMemoryBytes, strconv.FormatInt(r.LimitMemoryBytes, 10))
		set("cpu.max", r.LimitMilliCPU, fmt.Sprint(quota, " ", periodMicroseconds))
	} else {
		set("memory.limit_in_bytes", r.LimitMemoryBytes, strconv.FormatInt(r.LimitMemoryBytes, 10))
		set("cpu.cfs_quota_us", r.LimitMilliCPU, strconv.FormatInt(quota, 10))
	}
	set("pids.max", r.LimitPIDs, strconv.FormatInt(r.LimitPIDs, 10))
	for name, value := range values {
		if err := e.setLimit(cgroup, name, value); err != nil {
			return err
		}
	}
	return nil
}

// setLimit writes a file of a cgroup in whichever hierarchy has it.
func (e *Engine) setLimit(cgroup, name, value string) error {
	for _, dir := range e.trees(cgroup) {
		file := filepath.Join(dir, name)
		if _, err := os.Stat(file); err == nil {
			return os.WriteFile(file, []byte(value), 0)
		}
	}
	return nil // The machine lacks the controller, or systemd has it: containers have limits of their own.
}

// limitBefore sets what CRI has no word for with cgroups of version 1: the number of
// processes. The cgroup is made here, under the name that containerd gives it; runc takes
// one that is there and empty as it is.
func (e *Engine) limitBefore(cgroup, id string, r runtime.Resources) error {
	if r.LimitPIDs == 0 || e.unified || e.systemd {
		return nil
	}
	dir := filepath.Join(cgroups, "pids", cgroup, id)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "pids.max"), strconv.AppendInt(nil, r.LimitPIDs, 10), 0)
}

// limitContainer does it again where a container really is, for runtimes that name cgroups
// otherwise. There the container has begun by then, and may have started more.
func (e *Engine) limitContainer(ctx context.Context, id string, r runtime.Resources) error {
	if r.LimitPIDs == 0 || e.unified {
		return nil
	}
	answer, err := e.runtime.ContainerStatus(ctx, &api.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return refine(err)
	}
	var info struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(answer.Info["info"]), &info); err != nil {
		return fmt.Errorf("the runtime does not tell its process: %w", err)
	}
	if answer.Status.State != api.ContainerState_CONTAINER_RUNNING || info.PID == 0 {
		return nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", info.PID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // It has ended.
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 && fields[1] == "pids" {
			err := os.WriteFile(filepath.Join(cgroups, "pids", fields[2], "pids.max"), strconv.AppendInt(nil, r.LimitPIDs, 10), 0)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
	}
	return fmt.Errorf("%w: limit the number of processes without the cgroup controller pids", runtime.ErrUnsupported)
}

// removeCgroup removes that of a pod, which kubelets own.
func (e *Engine) removeCgroup(ctx context.Context, name string) error {
	return cgroup.Remove(e.trees(name), func() bool { return e.pause(ctx, 20*time.Millisecond) == nil })
}
