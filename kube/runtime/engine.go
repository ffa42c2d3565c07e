package runtime

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"
)

// Engine runs the containers of one node. Calls wait until what they ask for is done,
// and may be made from many goroutines; those about one pod come one after the other,
// but for Exec, Attach, Dial and Usage, and Stop: that of several containers is asked
// for at once, beside a Start of another, and again with less grace. Close ends all.
// Each may be repeated: what is done already is a success. A call that ends with its
// context leaves nothing half made that a repetition does not mend.
type Engine interface {
	// Info tells what the engine is and can do; it does not change.
	Info() Info
	// List tells all pods that are there, in whatever state, those of an earlier
	// kubelet of this node among them.
	List(ctx context.Context) ([]Pod, error)
	// Open makes what the containers of a pod share: namespaces, network, cgroup.
	Open(ctx context.Context, spec *PodSpec) (*Pod, error)
	// Start starts a container and returns its ID, when its process has begun. The pod
	// is open; where what its containers share has ended meanwhile the error wraps
	// ErrNotFound, and Open makes it anew. Each attempt has another ID; the ended ones
	// before the last are removed, with their logs. Of a start that failed nothing is left
	// but earlier attempts.
	Start(ctx context.Context, spec *ContainerSpec) (string, error)
	// Stop ends a container: the signal of its image, then KILL after grace. It returns
	// when the process has ended.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Close kills what is left of a pod and removes everything of it but its logs. Of
	// one that is not there: nothing.
	Close(ctx context.Context, uid string) error
	// Exec runs a command in a running container and returns its exit code.
	Exec(ctx context.Context, id string, spec *ExecSpec) (int32, error)
	// Attach joins what a running container writes from now on, and, if it was
	// started with Stdin, what it reads. It returns when the container ends.
	Attach(ctx context.Context, id string, streams Streams) error
	// Dial connects to a port of a pod, as from within.
	Dial(ctx context.Context, uid string, port uint16) (net.Conn, error)
	// Usage is what the running containers of a pod use, by name.
	Usage(ctx context.Context, uid string) (map[string]Use, error)
	// Shutdown ends the engine's own work. Pods go on.
	Shutdown() error
}

// Puller is an engine that fetches images itself. What Resolve returns has no Layers.
type Puller interface {
	Pull(ctx context.Context, ref string, login *Login) (*Image, error)
	// Present is the image if it is here, nil if not.
	Present(ctx context.Context, ref string) (*Image, error)

	// Kept are all images that the engine has, whoever fetched them.
	Kept(ctx context.Context) ([]KeptImage, error)
	// RemoveImage removes one with all its names. Of one that is not there: nothing.
	RemoveImage(ctx context.Context, id string) error
	// ImageDir is a folder on the disk that they lie on.
	ImageDir(ctx context.Context) (string, error)
}

// KeptImage is one that an engine has.
type KeptImage struct {
	ID             string
	Names, Digests []string // In full, as package image has them.
	Bytes          int64
	InUse          bool // By a container, of whichever node or program, or by the engine itself; or it is pinned.
}

// Login is for a registry.
type Login struct{ User, Password string }

// Info is what an engine is.
type Info struct {
	Name    string // "native", or that of another program: "containerd".
	Version string // For people: of another program "1.6.20".

	// Isolated is false where containers are plain processes of the node. Then
	// ContainerSpecs that demand what is not there are refused by Start.
	Isolated bool

	// PodNetwork is false where all pods are on the network of the node.
	PodNetwork bool
}

// Changed hears that something became of a pod. It is called from any goroutine, but
// not from within a call of the engine, and does not wait.
type Changed func(uid string)

// Network gives pods their addresses. Engines that have a network namespace for each
// pod call it; calls may be repeated.
type Network interface {
	// Connect gives the network namespace of a pod its interface, and returns its
	// address.
	Connect(ctx context.Context, uid, namespace string) (netip.Addr, error)
	// Disconnect gives the address back. The namespace may be gone.
	Disconnect(ctx context.Context, uid string) error
}

// PodSpec is what the containers of a pod share.
type PodSpec struct {
	UID, Namespace, Name string

	Hostname    string
	HostNetwork bool

	// Dir is a folder of the pod's own, in which the engine may keep what it likes
	// under the name "engine". The logs are in its folder "logs".
	Dir string

	Class     Class
	Resources Resources // Of the pod as a whole.
	DNS       DNS       // Written to /etc/resolv.conf. Empty: the node's.
	Hosts     []Host    // Lines of /etc/hosts beside localhost and the pod's own.
}

// Class is the quality of service, which has its part of the cgroup tree.
type Class string

// Classes, as in the status of pods.
const (
	Guaranteed Class = "Guaranteed"
	Burstable  Class = "Burstable"
	BestEffort Class = "BestEffort"
)

// DNS is how names are found.
type DNS struct {
	Servers, Searches, Options []string
}

// Host is a line of /etc/hosts.
type Host struct {
	IP    string
	Names []string
}

// Resources are zero where nothing is said.
type Resources struct {
	RequestMilliCPU, LimitMilliCPU int64
	LimitMemoryBytes               int64
	LimitPIDs                      int64
}

// ContainerSpec is one start of a container.
type ContainerSpec struct {
	UID     string // Of its pod.
	Name    string
	Attempt int // Counts from 0.

	Image      *Image
	Command    []string // Instead of the image's entry point.
	Args       []string // Instead of the image's command.
	Env        []string // NAME=value, beside the image's; the last of a name counts.
	WorkingDir string   // Empty: the image's.
	Mounts     []Mount
	Resources  Resources
	Security   Security
	Stdin, TTY bool

	// Log is the file that gets what the container writes, each line as
	// "TIME stdout|stderr F|P TEXT"; rotated files beside it have its name and a
	// number. Where ended attempts are kept, each has its own.
	Log string

	OOMScoreAdj int // Set as far as the machine permits.
}

// Image is what a container is made from.
type Image struct {
	Ref string // As asked for.
	ID  string // sha256:…, or the name of one that is built in.

	// Layers are folders, the topmost first. Empty: the engine has the image.
	Layers []string

	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
	User       string // Name or number, with group or without.
	StopSignal string
}

// Mount puts a file or folder of the node into a container.
type Mount struct {
	Source, Target string
	ReadOnly       bool
	Device         bool // It is a device that the pod asks for by name. Any other cannot be opened.
}

// Security is what a container may do. The zero value: the image's user, the usual
// capabilities, and system calls filtered.
type Security struct {
	User, Group        *int64
	Groups             []int64
	NonRoot            bool // A container whose user is 0 is refused.
	ReadOnlyRoot       bool
	MayGainPrivileges  bool     // allowPrivilegeEscalation: without it no_new_privs is set.
	AddCapabilities    []string // As in objects: NET_ADMIN, or ALL.
	DropCapabilities   []string
	UnfilteredSyscalls bool // seccomp Unconfined.
}

// ExecSpec is a command in a container.
type ExecSpec struct {
	Command []string
	TTY     bool
	Streams Streams

	// Whole: nobody reads along. There is no input and no terminal, and what the command
	// writes may come at its end.
	Whole bool
}

// Streams are what a process reads and writes; those that are nil are empty. With a
// TTY there is no Stderr. Resize gives sizes of the terminal until it is closed.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan Size
}

// Size is of a terminal.
type Size struct{ Columns, Rows uint16 }

// Pod is what an engine has of a pod.
type Pod struct {
	UID, Namespace, Name string
	IP                   string // Empty: the node's.
	Containers           []Container
}

// Phase is how far a container is.
type Phase int

// Phases.
const (
	Running Phase = iota + 1
	Exited
)

// Reasons of an end beside the exit code.
const OOMKilled = "OOMKilled"

// Container is one attempt of a container. The last attempt of each name that began
// is told, and of those before as much as is still there.
type Container struct {
	ID, Name string
	Attempt  int
	ImageID  string
	Phase    Phase

	Started, Finished time.Time
	ExitCode          int32 // 128 + the signal, where one ended it.
	Reason            string
	Message           string
	Log               string
}

// Use is the processor used since the start of a container, and its memory now.
type Use struct {
	CPU         time.Duration
	MemoryBytes int64
}
