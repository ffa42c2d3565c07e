//go:build linux

package stage

import (
	"fmt"
)

// Argv0 is the name under which this binary is a stage.
const Argv0 = "holdfast-stage"

// Descriptors of a stage beside the first three.
const (
	ControlFD = 3 // The Spec comes from here, and the Failure goes there.
	JoinFD    = 4 // First of the namespaces of Spec.Join, in their order.
)

// Spec is what a process shall be.
type Spec struct {
	Cgroups []string `json:"cgroups,omitempty"` // Files cgroup.procs to enter.

	Argv []string `json:"argv"`
	// Prefix is a folder in which the program is looked for before the node's own folders.
	Prefix string   `json:"prefix,omitempty"`
	Env    []string `json:"env,omitempty"`
	Dir    string   `json:"dir,omitempty"`

	TTY             bool `json:"tty,omitempty"`
	NoNewPrivileges bool `json:"noNewPrivileges,omitempty"`
	OOMScoreAdj     *int `json:"oomScoreAdj,omitempty"`

	// Root is the view of a container with namespaces of its own; nil: the node's.
	Root *Root `json:"root,omitempty"`
	// Join are kinds of namespaces ("mnt", "cgroup") to enter, instead of Root.
	Join []string `json:"join,omitempty"`
	// Rights are what the program may do; nil: what the supervisor may.
	Rights *Rights `json:"rights,omitempty"`
}

// Root is the file system of a container.
type Root struct {
	Layers []string `json:"layers"` // Topmost first.
	// Work is a folder of this attempt's own, for what the container writes.
	Work     string  `json:"work"`
	ReadOnly bool    `json:"readOnly,omitempty"`
	Mounts   []Mount `json:"mounts,omitempty"`
}

// Mount puts a file or folder of the node into the root.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Device   bool   `json:"device,omitempty"` // It may be opened if it is one.
}

// Rights are what a program may do.
type Rights struct {
	ImageUser string   `json:"imageUser,omitempty"` // As the image says: NAME or UID, :GROUP.
	User      *int64   `json:"user,omitempty"`      // Instead of it.
	Group     *int64   `json:"group,omitempty"`
	Groups    []int64  `json:"groups,omitempty"`
	NonRoot   bool     `json:"nonRoot,omitempty"`
	Caps      []string `json:"caps"` // Without CAP_.
	// Unfiltered leaves all system calls open.
	Unfiltered bool `json:"unfiltered,omitempty"`
}

// Kinds of failures.
const (
	Failed  = "failed"
	Invalid = "invalid"
	Command = "command" // Not found, or not executable.
)

// Failure is why a stage did not become its program.
type Failure struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

func (f *Failure) Error() string { return f.Text }

func failed(format string, args ...any) error {
	return &Failure{Failed, fmt.Errorf(format, args...).Error()}
}

func invalid(format string, args ...any) error {
	return &Failure{Invalid, fmt.Errorf(format, args...).Error()}
}
