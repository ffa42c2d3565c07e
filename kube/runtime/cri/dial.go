package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	stdruntime "runtime"
	"strconv"

	"golang.org/x/sys/unix"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Dial implements runtime.Engine. It enters the network namespace of the sandbox, since
// the runtime's own forwarding does not say whether anybody listens, which probes ask.
func (e *Engine) Dial(ctx context.Context, uid string, port uint16) (net.Conn, error) {
	sandboxes, err := e.sandboxes(ctx, uid)
	if err != nil {
		return nil, err
	}
	if len(sandboxes) == 0 || !ready(sandboxes[0]) {
		return nil, fmt.Errorf("pod %s: %w", uid, runtime.ErrNotFound)
	}
	answer, err := e.runtime.PodSandboxStatus(ctx, &api.PodSandboxStatusRequest{PodSandboxId: sandboxes[0].Id, Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("sandbox %s: %w", sandboxes[0].Id, refine(err))
	}
	if answer.Status.GetLinux().GetNamespaces().GetOptions().GetNetwork() == api.NamespaceMode_NODE {
		return dial(ctx, port, "")
	}
	var info struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(answer.Info["info"]), &info); err != nil || info.PID == 0 {
		return nil, fmt.Errorf("the runtime does not tell the process of sandbox %s: %w", sandboxes[0].Id, runtime.ErrUnsupported)
	}
	return within(ctx, fmt.Sprintf("/proc/%d/ns/net", info.PID), func() (net.Conn, error) {
		return dial(ctx, port, answer.Status.GetNetwork().GetIp())
	})
}

// dial connects to a port at localhost, or at an address if nobody listens there.
func dial(ctx context.Context, port uint16, ip string) (net.Conn, error) {
	var failures []error
	for _, host := range []string{"127.0.0.1", "::1", ip} {
		if host == "" {
			continue
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// within makes a connection on a thread that is in another network namespace. The thread
// stays locked, and so ends with the goroutine.
func within(ctx context.Context, namespace string, make func() (net.Conn, error)) (conn net.Conn, err error) {
	g := task.New(ctx)
	g.Go("cri-dial", func(context.Context) error {
		stdruntime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread does not end, and is what /proc/self shows: take another
			// one while this one is held.
			defer stdruntime.UnlockOSThread()
			conn, err = within(ctx, namespace, make)
			return nil
		}
		if err = enter(namespace); err == nil {
			conn, err = make() // Addresses are numbers: this thread itself makes the socket.
		}
		return nil
	})
	_ = g.Wait() // Its error is err.
	return conn, err
}

// enter brings this thread into a network namespace.
func enter(namespace string) error {
	file, err := os.Open(namespace)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", namespace, err)
	}
	return nil
}
