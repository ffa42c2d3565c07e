//go:build linux

package supervised

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

// What engines make of a runtime.ContainerSpec in the same way.

// Command is the whole command of a container: its own parts go before its image's,
// and a command of its own goes without the image's arguments.
func Command(spec *runtime.ContainerSpec) []string {
	if spec.Image == nil {
		return nil
	}
	command, args := spec.Command, spec.Args
	if len(command) == 0 {
		command = spec.Image.Entrypoint
		if len(args) == 0 {
			args = spec.Image.Cmd
		}
	}
	return slices.Concat(command, args)
}

// WorkingDir is an absolute path within the container.
func WorkingDir(spec *runtime.ContainerSpec) string {
	dir := spec.WorkingDir
	if dir == "" {
		dir = spec.Image.WorkingDir
	}
	return path.Clean("/" + dir)
}

// Scratch is a folder of one attempt.
func Scratch(p *Pod, spec *runtime.ContainerSpec) string {
	return filepath.Join(p.Dir(), supervisor.RecordFolder, spec.Name+"."+strconv.Itoa(spec.Attempt))
}

// LastOfEach leaves of variables with the same name the last, in its first place.
func LastOfEach(env []string) []string {
	at := map[string]int{}
	var out []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}

// ContainerID names an attempt for ever. Neither UIDs nor names of containers hold dots.
func ContainerID(uid, name string, attempt int) string {
	return uid + "." + name + "." + strconv.Itoa(attempt)
}

// UIDOf is the pod of a container.
func UIDOf(id string) string {
	uid, _, _ := strings.Cut(id, ".")
	return uid
}

var signals = map[string]unix.Signal{"RTMIN": 34, "RTMAX": 64}

// Signal reads the name or number of a signal; empty is TERM.
func Signal(name string) (int, error) {
	if name == "" {
		return int(unix.SIGTERM), nil
	}
	plain := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if n, err := strconv.ParseUint(plain, 10, 31); err == nil && n > 0 && n <= 64 {
		return int(n), nil
	}
	if n := unix.SignalNum("SIG" + plain); n != 0 {
		return int(n), nil
	}
	base, offset := plain, 0
	if i := strings.IndexAny(plain, "+-"); i > 0 {
		var err error
		if offset, err = strconv.Atoi(plain[i:]); err != nil {
			base = ""
		}
		base = plain[:min(i, len(base))]
	}
	n, ok := signals[base]
	if n += unix.Signal(offset); !ok || n < signals["RTMIN"] || n > signals["RTMAX"] {
		return 0, fmt.Errorf("%q is no signal", name)
	}
	return int(n), nil
}
