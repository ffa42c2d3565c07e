package tunnel

import (
	"context"
	"io"
	"net"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Node is what can be asked of a node. Calls come from many goroutines, end with
// their context, and return errors that wrap those of package runtime where one fits:
// ErrNotFound for a pod, container or image that is not there, and so on. What they
// return is read by people.
type Node interface {
	Containers
	ImageStore
}

// Containers are those of a node's pods. Requests name pod, UID and container.
type Containers interface {
	// Logs writes what a container wrote, as asked for: its last attempt, or that
	// before; with follow until the container has ended. Package runtime/logfile reads
	// the files. Whoever follows is told places, if the node can go on after them.
	Logs(ctx context.Context, r *kubepb.LogsRequest, w logfile.Recipient) error
	// Exec runs a command in a container, and returns its exit code.
	Exec(ctx context.Context, r *kubepb.ExecRequest, streams runtime.Streams) (int32, error)
	// Attach joins what a container writes and reads.
	Attach(ctx context.Context, r *kubepb.AttachRequest, streams runtime.Streams) error
	// Dial connects to a port of a pod. The context is for the dial alone; a connection
	// that can close its two directions one by one has CloseWrite.
	Dial(ctx context.Context, r *kubepb.DialRequest) (net.Conn, error)
}

// ImageStore has the images of a node.
type ImageStore interface {
	Images(ctx context.Context) ([]*kubepb.Image, error)
	// ImportImage takes in the images of a tar file, and tells which they were.
	ImportImage(ctx context.Context, tar io.Reader) ([]*kubepb.Image, error)
	// RemoveImage removes the image of a reference or ID, unless it is in use.
	RemoveImage(ctx context.Context, image string) error
}
