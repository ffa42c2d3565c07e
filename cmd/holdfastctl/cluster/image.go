package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

func (s *session) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "image ls|import|push|rm", Short: "Shows the images of nodes, brings and removes some",
		Example: `  image ls --node n1
  docker save demo:1 | holdfastctl image import - --node n1
  image push demo.tar
  image rm demo:1`,
		RunE: func(*cobra.Command, []string) error { return usage("image is ls, import, push or rm") },
	}
	nodes := func(c *cobra.Command, of *[]string, text string) *cobra.Command {
		c.Flags().StringSliceVar(of, "node", nil, text)
		return c
	}
	var shown, one, some, cleaned []string
	var noHeaders bool
	ls := nodes(&cobra.Command{Use: "ls [--node NODE]", Aliases: []string{"list"}, Short: "Shows the images that nodes have",
		RunE: s.connected(func(ctx context.Context, args []string) error { return s.listImages(ctx, shown, noHeaders, args) })},
		&shown, "nodes to ask; left out: all")
	ls.Flags().BoolVar(&noHeaders, "no-headers", false, "without the line of column names")
	cmd.AddCommand(ls,
		nodes(&cobra.Command{Use: "import FILE|- --node NODE", Short: "Brings the images of a tar file (docker save, or OCI layout) to one node",
			RunE: s.connected(func(ctx context.Context, args []string) error {
				if len(one) != 1 {
					return usage("name one node with --node; 'image push' is for all")
				}
				return s.sendImage(ctx, one, args)
			})}, &one, "the node"),
		nodes(&cobra.Command{Use: "push FILE|- [--node NODE,...]", Short: "Brings the images of a tar file to all nodes",
			RunE: s.connected(func(ctx context.Context, args []string) error { return s.sendImage(ctx, some, args) })},
			&some, "nodes to bring them to; left out: all"),
		nodes(&cobra.Command{Use: "rm IMAGE... [--node NODE,...]", Aliases: []string{"remove"}, Short: "Removes images that no container uses",
			RunE: s.connected(func(ctx context.Context, args []string) error { return s.removeImages(ctx, cleaned, args) })},
			&cleaned, "nodes to remove them from; left out: all that have them"),
	)
	return cmd
}

// nodesFor are the names of the nodes that are meant.
func (s *session) nodesFor(ctx context.Context, named []string) ([]string, error) {
	if len(named) > 0 {
		return named, nil
	}
	list, err := s.find(ctx, []target{{kind: api.Node}}, selection{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, o := range list {
		names = append(names, o.(*corev1.Node).Name)
	}
	if len(names) == 0 {
		return nil, errors.New("there are no nodes")
	}
	return names, nil
}

// onNodes does something on each of the nodes that are meant. That one of several fails
// is told, and the others go on.
func (s *session) onNodes(ctx context.Context, nodes []string, do func(node string) error) error {
	failed := false
	for _, n := range nodes {
		err := reached(do(n), nil, "")
		if err == nil {
			continue
		}
		if len(nodes) == 1 || ctx.Err() != nil {
			return err
		}
		failed = true
		fmt.Fprintln(s.Err, s.explain(nil, fmt.Errorf("%s: %w", n, err)))
	}
	if failed {
		return errSaid
	}
	return nil
}

func (s *session) imagesOf(ctx context.Context, node string) ([]*kubepb.Image, error) {
	return ask(ctx, s, func(ctx context.Context) ([]*kubepb.Image, error) { return tunnel.Images(ctx, s.client.RPC(), node) })
}

func (s *session) listImages(ctx context.Context, named []string, noHeaders bool, args []string) error {
	if len(args) > 0 {
		return usage("image ls takes no arguments; nodes are named with --node")
	}
	nodes, err := s.nodesFor(ctx, named)
	if err != nil {
		return err
	}
	g := &grid{out: s.Out}
	if !noHeaders {
		g.add("NODE", "IMAGE", "ID", "SIZE", "USED")
	}
	err = s.onNodes(ctx, nodes, func(node string) error {
		list, err := s.imagesOf(ctx, node)
		for _, m := range list {
			refs := m.Refs
			if len(refs) == 0 {
				refs = []string{"<none>"}
			}
			used := "no"
			if m.Used {
				used = "yes"
			}
			for _, ref := range refs {
				g.add(node, printable(ref), printable(shortID(m.Id)), size(m.Bytes), used)
			}
		}
		return err
	})
	g.flush()
	return err
}

// shortID is as much of a digest as tells images apart.
func shortID(id string) string {
	if hex, ok := strings.CutPrefix(id, "sha256:"); ok && len(hex) > 12 {
		return hex[:12]
	}
	return id
}

// size is in words, as of docker.
func size(bytes int64) string {
	v, units := float64(bytes), []string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for ; v >= 1000 && i < len(units)-1; i++ {
		v /= 1000
	}
	if i == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

func (s *session) removeImages(ctx context.Context, named, images []string) error {
	if len(images) == 0 {
		return usage("name the images to be removed")
	}
	nodes, err := s.nodesFor(ctx, named)
	if err != nil {
		return err
	}
	for _, m := range images {
		removed := 0
		err := s.onNodes(ctx, nodes, func(node string) error {
			_, err := ask(ctx, s, func(ctx context.Context) (struct{}, error) {
				return struct{}{}, tunnel.RemoveImage(ctx, s.client.RPC(), node, m)
			})
			if isAbsent(err) && len(named) == 0 && len(nodes) > 1 {
				return nil
			}
			if err == nil {
				removed++
				s.printf("image/%s removed from node/%s\n", printable(m), node)
			}
			return err
		})
		if err != nil {
			return err
		}
		if removed == 0 {
			return fmt.Errorf("image %s: no node has it", m)
		}
	}
	return nil
}

// sendImage brings the images of a file to nodes, one after the other.
func (s *session) sendImage(ctx context.Context, named, args []string) error {
	if len(args) != 1 {
		return usage("name one tar file, or - for what comes on standard input")
	}
	nodes, err := s.nodesFor(ctx, named)
	if err != nil {
		return err
	}
	file, total, err := s.imageFile(args[0], len(nodes) > 1)
	if err != nil {
		return err
	}
	defer file.close()
	return s.onNodes(ctx, nodes, func(node string) error {
		in, err := file.again()
		if err != nil {
			return err
		}
		p := &progress{Reader: in, session: s, node: node, total: total}
		made, err := tunnel.ImportImage(ctx, s.client.RPC(), node, p)
		p.clear()
		for _, m := range made {
			what := m.Refs
			if len(what) == 0 {
				what = []string{shortID(m.Id)}
			}
			s.printf("image/%s imported to node/%s (%s)\n", printable(strings.Join(what, ",")), node, size(m.Bytes))
		}
		if err == nil && len(made) == 0 {
			err = errors.New("the node says nothing of an image in the file")
		}
		return err
	})
}

// source is a file that can be read more than once.
type source struct {
	again func() (io.Reader, error)
	close func()
}

// imageFile opens a file. Standard input is kept in one while several nodes want it.
func (s *session) imageFile(name string, several bool) (*source, int64, error) {
	if name == "-" && !several {
		return &source{func() (io.Reader, error) { return s.In, nil }, func() {}}, 0, nil
	}
	var f *os.File
	var err error
	drop := func() { f.Close() }
	if name == "-" {
		if f, err = os.CreateTemp("", "holdfastctl-image-*.tar"); err != nil {
			return nil, 0, err
		}
		drop = func() { f.Close(); os.Remove(f.Name()) }
		if _, err := io.Copy(f, s.In); err != nil {
			drop()
			return nil, 0, fmt.Errorf("standard input: %w", err)
		}
	} else if f, err = os.Open(name); err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a folder: pack it with tar first", name)
	}
	if err != nil {
		drop()
		return nil, 0, err
	}
	again := func() (io.Reader, error) {
		_, err := f.Seek(0, io.SeekStart)
		return f, err
	}
	if !info.Mode().IsRegular() { // A pipe, which is read once.
		if several {
			drop()
			return nil, 0, fmt.Errorf("%s can be read only once: give it on standard input, with - as its name", name)
		}
		again = func() (io.Reader, error) { return f, nil }
	}
	return &source{again, drop}, info.Size(), nil
}

// progress shows on a terminal how much of a file was sent. What was read was taken, or
// waits in a few frames.
type progress struct {
	io.Reader
	session *session
	node    string
	total   int64 // 0: nobody knows.

	done  int64
	shown time.Duration
	width int
}

// progressInterval is between two looks at it.
const progressInterval = 200 * time.Millisecond

// Read implements io.Reader.
func (p *progress) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.done += int64(n)
	if now := p.session.Clock.Mono(); now-p.shown >= progressInterval && p.terminal() {
		p.shown = now
		text := fmt.Sprintf("%s: %s", p.node, size(p.done))
		if p.total > 0 {
			text += fmt.Sprintf(" of %s (%d%%)", size(p.total), p.done*100/p.total)
		}
		fmt.Fprintf(p.session.Err, "\r%-*s", p.width, text)
		p.width = max(p.width, len(text))
	}
	return n, err
}

func (p *progress) terminal() bool {
	f, ok := p.session.Err.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (p *progress) clear() {
	if p.width > 0 {
		fmt.Fprintf(p.session.Err, "\r%s\r", strings.Repeat(" ", p.width))
	}
}
