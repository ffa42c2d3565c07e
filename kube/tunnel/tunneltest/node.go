// Package tunneltest has a node whose containers exist in memory, for tests of what
// reaches nodes: through a tunnel or without.
package tunneltest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Node implements tunnel.Node. In each container there are a few commands:
//
//	echo WORDS    writes them
//	cat           writes what it reads
//	fail WORDS    writes them to stderr
//	exit CODE     ends so
//	yes           writes until nobody wants more
//	hang          says so, and does nothing until it is ended
//	size N        writes N sizes of its terminal
//
// Attach is to a cat that greets. Each port of a pod echoes, and says so first, but for
// port 1, on which nobody listens.
type Node struct {
	mu struct {
		sync.Mutex
		logs    map[string][]string // By UID/container.
		ended   map[string]bool
		more    chan struct{} // Closed when a log grows or ends.
		images  []*kubepb.Image
		running int
		changed chan struct{} // Closed when running is another.
	}
}

// New returns a node that has no containers.
func New() *Node {
	n := &Node{}
	n.mu.logs, n.mu.ended = map[string][]string{}, map[string]bool{}
	n.mu.more, n.mu.changed = make(chan struct{}), make(chan struct{})
	return n
}

// Write has a container, which is made if need be, write lines.
func (n *Node) Write(uid, container string, lines ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := uid + "/" + container
	n.mu.logs[key] = append(n.mu.logs[key], lines...)
	close(n.mu.more)
	n.mu.more = make(chan struct{})
}

// End ends a container: there are only its logs.
func (n *Node) End(uid, container string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.ended[uid+"/"+container] = true
	close(n.mu.more)
	n.mu.more = make(chan struct{})
}

// Await waits until so many calls are going on.
func (n *Node) Await(ctx context.Context, calls int) error {
	for {
		n.mu.Lock()
		running, changed := n.mu.running, n.mu.changed
		n.mu.Unlock()
		if running == calls {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d calls go on, not %d: %w", running, calls, ctx.Err())
		}
	}
}

func (n *Node) begin() (end func()) {
	n.count(1)
	return func() { n.count(-1) }
}

func (n *Node) count(more int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.running += more
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
}

// find is the key of a container.
func (n *Node) find(of *kubepb.PodContainer, running bool) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := of.GetUid() + "/" + of.GetContainer()
	if _, ok := n.mu.logs[key]; !ok {
		return "", fmt.Errorf("%s of pod %s/%s: %w", of.GetContainer(), of.GetNamespace(), of.GetPod(), runtime.ErrNotFound)
	}
	if running && n.mu.ended[key] {
		return "", fmt.Errorf("%s of pod %s/%s: %w", of.GetContainer(), of.GetNamespace(), of.GetPod(), runtime.ErrNotRunning)
	}
	return key, nil
}

// Logs implements tunnel.Node. Places are told at the start and after every second line.
func (n *Node) Logs(ctx context.Context, r *kubepb.LogsRequest, w logfile.Recipient) error {
	defer n.begin()()
	key, err := n.find(r.Of, false)
	if err != nil {
		return err
	}
	if r.Previous {
		return fmt.Errorf("no attempt before: %w", runtime.ErrNotFound)
	}
	n.mu.Lock()
	from := 0
	if r.TailLines != nil {
		from = max(0, len(n.mu.logs[key])-int(r.GetTailLines()))
	}
	if r.After != nil {
		from = int(r.After.Offset)
	}
	n.mu.Unlock()
	tell := func() error {
		if !r.Follow {
			return nil
		}
		return w.Place(0, logfile.Place{File: "only", Offset: int64(from)})
	}
	left := r.LimitBytes
	for err = tell(); err == nil; {
		n.mu.Lock()
		lines, more, ended := slices.Clone(n.mu.logs[key][from:]), n.mu.more, n.mu.ended[key]
		n.mu.Unlock()
		for _, line := range lines {
			if line += "\n"; r.LimitBytes > 0 && int64(len(line)) >= left {
				_, err := io.WriteString(w, line[:left])
				return err
			}
			left -= int64(len(line))
			if _, err := io.WriteString(w, line); err != nil {
				return err
			}
			if from++; from%2 == 0 {
				if err := tell(); err != nil {
					return err
				}
			}
		}
		if !r.Follow || ended {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// Exec implements tunnel.Node.
func (n *Node) Exec(ctx context.Context, r *kubepb.ExecRequest, s runtime.Streams) (int32, error) {
	defer n.begin()()
	if _, err := n.find(r.Of, true); err != nil {
		return 0, err
	}
	words := strings.Join(r.Command[1:], " ")
	switch r.Command[0] {
	case "echo":
		_, err := io.WriteString(s.Stdout, words+"\n")
		return 0, err
	case "fail":
		_, err := io.WriteString(s.Stderr, words+"\n")
		return 1, err
	case "cat":
		if s.Stdin == nil {
			return 0, nil
		}
		_, err := io.Copy(s.Stdout, s.Stdin)
		return 0, err
	case "exit":
		code, err := strconv.ParseInt(words, 10, 32)
		return int32(code), err
	case "yes":
		for {
			if _, err := s.Stdout.Write(bytes.Repeat([]byte("y\n"), 1<<14)); err != nil {
				return 0, err
			}
		}
	case "hang":
		if _, err := io.WriteString(s.Stdout, "hanging\n"); err != nil {
			return 0, err
		}
		<-ctx.Done()
		return 0, ctx.Err()
	case "size":
		n, err := strconv.Atoi(words)
		for ; n > 0 && err == nil; n-- {
			size := <-s.Resize
			_, err = fmt.Fprintf(s.Stdout, "%dx%d\n", size.Columns, size.Rows)
		}
		return 0, err
	}
	return 0, fmt.Errorf("%s: %w", r.Command[0], runtime.ErrNoCommand)
}

// Attach implements tunnel.Node.
func (n *Node) Attach(ctx context.Context, r *kubepb.AttachRequest, s runtime.Streams) error {
	defer n.begin()()
	if _, err := n.find(r.Of, true); err != nil {
		return err
	}
	if _, err := io.WriteString(s.Stdout, "hello\n"); err != nil {
		return err
	}
	if s.Stdin == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	if _, err := io.Copy(s.Stdout, s.Stdin); err != nil {
		return err
	}
	<-ctx.Done() // The end of what it reads is not its own.
	return ctx.Err()
}

// Dial implements tunnel.Node.
func (n *Node) Dial(_ context.Context, r *kubepb.DialRequest) (net.Conn, error) {
	n.mu.Lock()
	there := false
	for key := range n.mu.logs {
		there = there || strings.HasPrefix(key, r.GetOf().GetUid()+"/")
	}
	n.mu.Unlock()
	if !there {
		return nil, fmt.Errorf("pod %s/%s: %w", r.GetOf().GetNamespace(), r.GetOf().GetPod(), runtime.ErrNotFound)
	}
	if r.GetPort() == 1 {
		return nil, errors.New("connection refused")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	far, err := l.Accept()
	if err != nil {
		return nil, errors.Join(err, near.Close())
	}
	end := n.begin()
	go func() {
		defer end()
		defer far.Close()
		fmt.Fprintf(far, "port %d\n", r.GetPort())
		io.Copy(far, bufio.NewReader(far))
	}()
	return near, nil
}

// Images implements tunnel.Node.
func (n *Node) Images(context.Context) ([]*kubepb.Image, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.mu.images), nil
}

// ImportImage implements tunnel.Node. Whatever it reads is an image, whose reference is
// its first line.
func (n *Node) ImportImage(_ context.Context, tar io.Reader) ([]*kubepb.Image, error) {
	defer n.begin()()
	text, err := io.ReadAll(tar)
	if err != nil {
		return nil, err
	}
	ref, _, _ := strings.Cut(string(text), "\n")
	if ref == "" {
		return nil, fmt.Errorf("an empty file: %w", runtime.ErrImage)
	}
	m := &kubepb.Image{Id: fmt.Sprintf("sha256:%x", sha256.Sum256(text)), Refs: []string{ref}, Bytes: int64(len(text))}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.images = append(n.mu.images, m)
	return []*kubepb.Image{m}, nil
}

// RemoveImage implements tunnel.Node.
func (n *Node) RemoveImage(_ context.Context, image string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.IndexFunc(n.mu.images, func(m *kubepb.Image) bool { return m.Id == image || slices.Contains(m.Refs, image) })
	if i < 0 {
		return fmt.Errorf("%s: %w", image, runtime.ErrNotFound)
	}
	n.mu.images = slices.Delete(n.mu.images, i, i+1)
	return nil
}
