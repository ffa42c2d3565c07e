package cluster

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// console is this program's end of what a container reads and writes.
type console struct {
	streams runtime.Streams
	tty     bool   // There is a terminal here, and it is in raw mode.
	restore func() // To be called when the container has ended; more than once is harmless.
}

// console prepares the streams. A terminal goes into raw mode: what is typed is for the
// container, Ctrl-C too. What is no terminal cannot be used as one, and is not.
func (s *session) console(stdin, tty, quiet bool) (*console, error) {
	c := &console{streams: runtime.Streams{Stdout: s.Out, Stderr: s.Err}, restore: func() {}}
	if !stdin {
		return c, nil
	}
	c.streams.Stdin = s.In
	if !tty {
		return c, nil
	}
	f, ok := s.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		if !quiet {
			fmt.Fprintln(s.Err, "Unable to use a TTY - input is not a terminal or the right kind of file")
		}
		return c, nil
	}
	before, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	c.tty, c.streams.Stderr = true, nil
	sizes, stop := watchSize(f)
	c.streams.Resize = sizes
	c.restore = sync.OnceFunc(func() {
		stop()
		_ = term.Restore(int(f.Fd()), before) // There is no better terminal to say it on.
	})
	return c, nil
}

// watchSize tells the size of a terminal, now and whenever it is another.
func watchSize(f *os.File) (sizes chan runtime.Size, stop func()) {
	changed := make(chan os.Signal, 1)
	changed <- syscall.SIGWINCH // As it is now.
	signal.Notify(changed, syscall.SIGWINCH)
	sizes = make(chan runtime.Size)
	g := task.New(context.Background())
	g.Go("size of the terminal", func(ctx context.Context) error {
		defer signal.Stop(changed)
		for {
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
			columns, rows, err := term.GetSize(int(f.Fd()))
			if err != nil {
				continue
			}
			select {
			case sizes <- runtime.Size{Columns: uint16(columns), Rows: uint16(rows)}:
			case <-ctx.Done():
				return nil
			}
		}
	})
	return sizes, func() {
		g.Stop()
		_ = g.Wait() // It has no error.
	}
}
