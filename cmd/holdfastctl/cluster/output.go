package cluster

import (
	"context"
	"io"
)

// Output is the standard output of a command, which fails when it takes no more: a
// list that is cut short shall not look like a whole one.
type Output struct {
	io.Writer
	Err    error  // Of the first write that failed.
	Failed func() // Called then: whoever goes on until interrupted need not.
}

func (o *Output) Write(b []byte) (int, error) {
	n, err := o.Writer.Write(b)
	if err != nil && o.Err == nil {
		o.Err = err
		o.Failed()
	}
	return n, err
}

// NewOutput puts an Output in front of a writer. The context ends when it fails.
func NewOutput(ctx context.Context, w io.Writer) (context.Context, *Output) {
	ctx, cancel := context.WithCancel(ctx)
	return ctx, &Output{Writer: w, Failed: cancel}
}

// Terminal is what programs that are started write to: what stands behind an Output
// may be a terminal, which they look for.
func Terminal(w io.Writer) io.Writer {
	if o, ok := w.(*Output); ok {
		return o.Writer
	}
	return w
}
