package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/environ"
)

// Target is how a container is reached.
type Target struct {
	Pod       *corev1.Pod
	Container *corev1.Container

	// Host is the address of the pod: what Host headers name.
	Host string
	// Exec runs a command in the container. Its error means that the command could not
	// be run; a command that failed has a code. It ends with its context.
	Exec func(ctx context.Context, command []string) (code int32, output string, err error)
	// Dial connects to a port of the pod, as from within.
	Dial func(ctx context.Context, port uint16) (net.Conn, error)
	// Outside connects to another address than the pod's, from the node: probes and
	// hooks may name a host, and 127.0.0.1 is the node then. Nil: package net does.
	Outside func(ctx context.Context, network, address string) (net.Conn, error)
}

// result is what one probe said.
type result struct {
	healthy bool
	warning bool // Healthy, but worth a word.
	message string
	err     error // Not nil: nobody knows how the container is.
}

func failed(format string, args ...any) result { return result{message: fmt.Sprintf(format, args...)} }

var errTimeout = errors.New("no answer in time")

// within is context.WithTimeout over our clock. The cause of a context that ended
// by it is errTimeout.
func within(ctx context.Context, c clock.Clock, d time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := c.AfterFunc(d, func() { cancel(errTimeout) })
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}

func late(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errTimeout) }

// probe asks once.
func (t *Target) probe(ctx context.Context, c clock.Clock, p *corev1.Probe) result {
	timeout := max(time.Duration(p.TimeoutSeconds)*time.Second, periodMin)
	ctx, done := within(ctx, c, timeout)
	defer done()
	switch {
	case p.Exec != nil:
		return t.askExec(ctx, p.Exec, timeout)
	case p.HTTPGet != nil:
		return t.askHTTP(ctx, p.HTTPGet, timeout)
	case p.TCPSocket != nil:
		return t.askTCP(ctx, p.TCPSocket, timeout)
	case p.GRPC != nil:
		return t.askGRPC(ctx, p.GRPC, timeout)
	}
	return result{err: errors.New("the probe says neither exec, httpGet, tcpSocket nor grpc")}
}

func (t *Target) askExec(ctx context.Context, e *corev1.ExecAction, timeout time.Duration) result {
	command := environ.ExpandStatic(t.Container, e.Command)
	code, output, err := t.Exec(ctx, command)
	switch {
	case late(ctx):
		return failed("command %q timed out after %s", strings.Join(command, " "), timeout)
	case err != nil:
		return result{err: err}
	case code != 0 && output == "":
		return failed("command %q exited with code %d", strings.Join(command, " "), code)
	case code != 0:
		return failed("%s", output)
	}
	return result{healthy: true}
}

func (t *Target) askTCP(ctx context.Context, a *corev1.TCPSocketAction, timeout time.Duration) result {
	port, err := t.port(a.Port)
	if err != nil {
		return result{err: err}
	}
	address := t.address(a.Host, port)
	conn, err := t.connect(ctx, "tcp", address)
	switch {
	case late(ctx):
		return failed("dial tcp %s: no connection within %s", address, timeout)
	case err != nil:
		return failed("%s", err)
	}
	_ = conn.Close() // It was made: that is all that was asked.
	return result{healthy: true}
}

// port finds a port of the container by its number or name.
func (t *Target) port(p intstr.IntOrString) (uint16, error) {
	number := p.IntValue()
	if p.Type == intstr.String {
		for i := range t.Container.Ports {
			if t.Container.Ports[i].Name == p.StrVal {
				number = int(t.Container.Ports[i].ContainerPort)
			}
		}
	}
	if number < 1 || number > 65535 {
		return 0, fmt.Errorf("container %s has no port %s", t.Container.Name, p.String())
	}
	return uint16(number), nil
}

func (t *Target) address(host string, port uint16) string {
	if host == "" {
		host = t.Host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// connect goes into the pod if the address is the pod's.
func (t *Target) connect(ctx context.Context, network, address string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if host == t.Host {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("port %s: %w", text, err)
		}
		return t.Dial(ctx, uint16(port))
	}
	if t.Outside != nil {
		return t.Outside(ctx, network, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// clip makes a text fit into an event. What containers say need not be text.
func clip(text string) string { return api.Clip(text, messageBytesMax) }
