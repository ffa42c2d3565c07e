package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func (s *session) portForwardCommand() *cobra.Command {
	var addresses []string
	cmd := &cobra.Command{
		Use:   "port-forward (POD | TYPE/NAME) [LOCAL:]REMOTE...",
		Short: "Connects ports of this machine to ports of a pod",
		Example: `  port-forward web-1 8080
  port-forward deployment/web 8080:80 :9090
  port-forward service/web 8443:https`,
		RunE: s.connected(func(ctx context.Context, args []string) error {
			if len(args) < 2 {
				return usage("TYPE/NAME and list of ports are required for port-forward")
			}
			return s.portForward(ctx, addresses, args[0], args[1:])
		}),
	}
	cmd.Flags().StringSliceVar(&addresses, "address", []string{"localhost"}, "addresses of this machine to listen on: IP addresses or localhost")
	return cmd
}

// forwarded is a pair of ports.
type forwarded struct{ local, remote uint16 }

func (s *session) portForward(ctx context.Context, addresses []string, word string, words []string) error {
	o, pods, err := s.podsFor(ctx, word)
	if err != nil {
		return err
	}
	p := pods[0]
	if p.Status.Phase != corev1.PodRunning {
		return fmt.Errorf("unable to forward port because pod %s is not running. Current status=%s", p.Name, p.Status.Phase)
	}
	var pairs []forwarded
	for _, w := range words {
		pair, err := pairOf(o, p, w)
		if err != nil {
			return err
		}
		pairs = append(pairs, pair)
	}
	f := &forward{session: s, pod: p, tasks: task.New(ctx)}
	defer f.close()
	for _, pair := range pairs {
		for _, a := range addresses {
			if err := f.listen(a, pair); err != nil {
				f.tasks.Stop()
				return errors.Join(err, f.wait())
			}
		}
	}
	err = f.wait()
	if ctx.Err() != nil {
		return nil // A person has seen enough.
	}
	return err
}

// pairOf reads [LOCAL:]REMOTE. A remote port may be a name; one of a service is that of
// the service, and leads to that of the pod behind it.
func pairOf(o api.Object, p *corev1.Pod, word string) (pair forwarded, err error) {
	local, remote, ok := strings.Cut(word, ":")
	if !ok {
		remote = local
	}
	pair.remote, err = remotePort(o, p, remote)
	if err != nil {
		return pair, err
	}
	switch {
	case !ok && !isNumber(remote): // NAME: the same port here.
		pair.local = pair.remote
	case local == "":
	default:
		n, err := strconv.ParseUint(local, 10, 16)
		if err != nil {
			return pair, usage("%q: the local port must be a number from 0 to 65535: [LOCAL:]REMOTE", word)
		}
		pair.local = uint16(n)
	}
	return pair, nil
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}

func remotePort(o api.Object, p *corev1.Pod, word string) (uint16, error) {
	if svc, ok := o.(*corev1.Service); ok {
		i := slices.IndexFunc(svc.Spec.Ports, func(sp corev1.ServicePort) bool {
			return sp.Name == word && word != "" || strconv.Itoa(int(sp.Port)) == word
		})
		if i < 0 {
			return 0, fmt.Errorf("%s does not have a service port %s", titled(o), word)
		}
		sp := svc.Spec.Ports[i]
		word = sp.TargetPort.String()
		if word == "0" || word == "" {
			word = strconv.Itoa(int(sp.Port))
		}
	}
	if n, err := strconv.ParseUint(word, 10, 16); err == nil && n > 0 {
		return uint16(n), nil
	}
	if isNumber(word) || word == "" {
		return 0, usage("%q: the remote port must be a number from 1 to 65535, or the name of a port: [LOCAL:]REMOTE", word)
	}
	for i := range p.Spec.Containers {
		for _, cp := range p.Spec.Containers[i].Ports {
			if cp.Name == word {
				return uint16(cp.ContainerPort), nil
			}
		}
	}
	return 0, fmt.Errorf("pod %s does not have a named port %q", p.Name, word)
}

// forward is one run of port-forward.
type forward struct {
	*session
	pod   *corev1.Pod
	tasks *task.Group

	mu struct { // Also held while something is printed.
		sync.Mutex
		open []net.Listener
	}
}

// listen on an address; on both of localhost, as far as the machine has them.
func (f *forward) listen(address string, pair forwarded) error {
	if address != "localhost" {
		return f.listenOn(address, pair)
	}
	if err := f.listenOn("127.0.0.1", pair); err != nil {
		return err
	}
	if pair.local == 0 {
		pair.local = f.last()
	}
	_ = f.listenOn("::1", pair) // The machine may have none, or the port may be another's there.
	return nil
}

func (f *forward) last() uint16 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return portOf(f.mu.open[len(f.mu.open)-1].Addr())
}

func portOf(a net.Addr) uint16 {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return uint16(tcp.Port)
	}
	return 0
}

func (f *forward) listenOn(address string, pair forwarded) error {
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(int(pair.local))))
	if err != nil {
		return fmt.Errorf("unable to listen on port %d: %w", pair.local, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.open = append(f.mu.open, l)
	f.printf("Forwarding from %s -> %d\n", l.Addr(), pair.remote)
	pair.local = portOf(l.Addr())
	f.tasks.Go("forwarded port", func(ctx context.Context) error {
		for {
			conn, err := l.Accept()
			if err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return fmt.Errorf("port %d: %w", pair.local, err)
			}
			if !f.tasks.Go("forwarded connection", func(ctx context.Context) error { return f.serve(ctx, conn, pair) }) {
				conn.Close()
			}
		}
	})
	return nil
}

// wait until the run ends: it is interrupted, or the pod is no more.
func (f *forward) wait() error {
	stop := context.AfterFunc(f.tasks.Context(), f.close)
	defer stop()
	return f.tasks.Wait()
}

func (f *forward) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.mu.open {
		l.Close()
	}
}

// serve carries one connection. Its failure is told, and ends the run only where the
// pod is gone.
func (f *forward) serve(ctx context.Context, conn net.Conn, pair forwarded) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	f.mu.Lock()
	f.printf("Handling connection for %d\n", pair.local)
	f.mu.Unlock()
	err := f.carry(ctx, conn, pair.remote)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	if status.Code(unwrapped(err)) == codes.NotFound {
		return fmt.Errorf("lost connection to pod: %s", reached(err, f.pod, ""))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(f.Err, "an error occurred forwarding %d -> %d: %s\n", pair.local, pair.remote, f.explain(nil, reached(err, f.pod, "")))
	return nil
}

func (f *forward) carry(ctx context.Context, conn net.Conn, port uint16) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	far, err := tunnel.Dial(ctx, f.client.RPC(), &kubepb.DialRequest{Of: in(f.pod, ""), Port: uint32(port)})
	if err != nil {
		return err
	}
	// Without the methods of conn by which io.Copy would have it read or write the other
	// side: it takes the errors of that for its own.
	near := struct{ io.ReadWriter }{conn}
	g := task.New(ctx)
	g.Go("to the pod", func(context.Context) error {
		var local *net.OpError
		switch _, err := io.Copy(far, near); {
		case errors.As(err, &local):
			cancel() // Whoever connected has gone.
		case err == nil:
			_ = far.CloseWrite()
		}
		return nil // What became of the far side, the read tells.
	})
	if _, err = io.Copy(near, far); err != nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // A reset: what was cut off must not look like the end.
		}
	}
	cancel()
	conn.Close()
	_ = g.Wait() // It has no error.
	if errors.Is(err, net.ErrClosed) || status.Code(err) == codes.Canceled {
		return nil
	}
	var local *net.OpError
	if errors.As(err, &local) {
		return nil // Of this side.
	}
	return err
}
