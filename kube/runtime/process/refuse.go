//go:build linux

package process

import (
	"fmt"
	"strings"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{runtime.ErrInvalid}, args...)...)
}

// refuse says which field of a container asks for what a plain process cannot have.
func (e *Engine) refuse(spec *runtime.ContainerSpec) error {
	if err := spec.Check(); err != nil {
		return err
	}
	x := &spec.Security
	if demand := e.demand(x); demand != "" {
		return fmt.Errorf("%w: %s; runtimes native and cri can", runtime.ErrUnsupported, demand)
	}
	if e.uid != 0 {
		return nil
	}
	if x.NonRoot {
		return invalid("runAsNonRoot, but the kubelet and with it all containers are root")
	}
	if x.User == nil && !rootOrNone(spec.Image.User) {
		return fmt.Errorf("%w: user %s of image %s: the kubelet is root, and so are its containers", runtime.ErrUnsupported, spec.Image.User, spec.Image.Ref)
	}
	return nil
}

// demand is what asks for isolation.
func (e *Engine) demand(x *runtime.Security) string {
	switch {
	case x.User != nil && *x.User != int64(e.uid):
		return "runAsUser " + itoa(*x.User) + ": all containers are of user " + itoa(int64(e.uid))
	case x.Group != nil && *x.Group != int64(e.gid):
		return "runAsGroup " + itoa(*x.Group) + ": all containers are of group " + itoa(int64(e.gid))
	case len(x.Groups) > 0:
		return "supplementalGroups or fsGroup: all containers have the groups of the kubelet"
	case x.ReadOnlyRoot:
		return "readOnlyRootFilesystem"
	case len(x.AddCapabilities) > 0:
		return "capabilities.add " + strings.Join(x.AddCapabilities, ",")
	case e.uid == 0 && len(x.DropCapabilities) > 0:
		return "capabilities.drop " + strings.Join(x.DropCapabilities, ",") + ": the kubelet is root, and so are its containers"
	}
	return ""
}

// rootOrNone tells whether an image asks for no other user than root.
func rootOrNone(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	return name == "" || name == "root" || name == "0"
}
