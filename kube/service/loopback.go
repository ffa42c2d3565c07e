package service

import (
	"errors"
	"slices"

	"github.com/hashicorp/go-hclog"
)

// Beside is a plane in the kernel with one in userspace beside it, which has what is on
// the node's loopback: people expect a port of the node at 127.0.0.1 too. The kernel
// could lead that elsewhere only if all that comes from other machines might claim to
// be from loopback (route_localnet).
//
// What goes through userspace ends with the kubelet. A place that it cannot have is
// told once and makes nothing fail: the port is still reached at the node's address.
type Beside struct {
	kernel   Plane
	loopback *Userspace
	log      hclog.Logger
	told     map[string]struct{} // Errors of loopback.
}

// NewBeside owns both planes.
func NewBeside(kernel Plane, loopback *Userspace, log hclog.Logger) *Beside {
	return &Beside{kernel: kernel, loopback: loopback, log: log.Named("services"), told: map[string]struct{}{}}
}

// Replace implements Plane.
func (b *Beside) Replace(p Plan) error {
	kernel, loopback := split(p)
	b.tell(b.loopback.Replace(loopback))
	return b.kernel.Replace(kernel)
}

// Update implements Plane.
func (b *Beside) Update(changes Plan) error {
	kernel, loopback := split(changes)
	b.tell(b.loopback.Update(loopback))
	return b.kernel.Update(kernel)
}

// Stands implements Plane.
func (b *Beside) Stands() (bool, error) { return b.kernel.Stands() }

// Close implements Plane.
func (b *Beside) Close() error { return errors.Join(b.loopback.Close(), b.kernel.Close()) }

func (b *Beside) tell(err error) {
	if err == nil {
		clear(b.told)
		return
	}
	if _, ok := b.told[err.Error()]; !ok {
		b.told[err.Error()] = struct{}{}
		b.log.Warn("not all ports of the node are reached at 127.0.0.1", "error", err)
	}
}

// split says which fronts of each port are the kernel's, and which are on loopback. A
// port of all addresses of the node is both.
func split(p Plan) (kernel, loopback Plan) {
	kernel, loopback = make(Plan, len(p)), Plan{}
	for name, port := range p { //tidy:ordered maps again
		kernel[name], loopback[name] = port, nil
		if port == nil {
			continue
		}
		only := func(which func(Front) bool) *Port {
			part := *port
			part.Fronts = nil
			for _, f := range port.Fronts {
				if which(f) {
					part.Fronts = append(part.Fronts, f)
				}
			}
			return &part
		}
		if slices.ContainsFunc(port.Fronts, onLoopback) {
			kernel[name] = only(func(f Front) bool { return !onLoopback(f) })
		}
		if slices.ContainsFunc(port.Fronts, alsoOnLoopback) {
			loopback[name] = only(alsoOnLoopback)
		}
	}
	return kernel, loopback
}

func onLoopback(f Front) bool     { return f.Address.IsLoopback() }
func alsoOnLoopback(f Front) bool { return !f.Address.IsValid() || onLoopback(f) }
