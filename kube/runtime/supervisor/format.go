//go:build linux

package supervisor

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime/stage"
)

// Version of records and protocol. A reader ignores members that it does not know; the
// number grows only when that would be wrong.
const Version = 1

// FrameMax bounds what one frame holds: a start carries an environment.
const FrameMax = 8 << 20

// Kinds of frames:
//
//	0      1            5
//	+------+------------+---------+
//	| kind | length, BE | payload |
//	+------+------------+---------+
const (
	FrameRequest = 'q' // JSON of a Request; the first of a connection.
	FrameAnswer  = 'a' // JSON of an Answer; the last one.
	FrameEvent   = 'v' // Something became of a container; empty.
	FrameJoined  = 'j' // Exec and attach have begun; empty.
	FrameStdin   = '0'
	FrameStdout  = '1'
	FrameStderr  = '2'
	FrameEnd     = 'e' // Nothing more for stdin; empty.
	FrameResize  = 'r' // JSON of a Size.
)

const FrameHeader = 5

// Calls of a supervisor.
const (
	CallHello  = "hello"
	CallState  = "state"
	CallStart  = "start"
	CallStop   = "stop"
	CallExec   = "exec"
	CallAttach = "attach"
	CallDial   = "dial"
	CallUsage  = "usage"
	CallWatch  = "watch"
	CallEnd    = "end"
)

// Request is one call; a connection carries one.
type Request struct {
	Version int    `json:"version"`
	Call    string `json:"call"`

	ID          string   `json:"id,omitempty"`          // Of stop, exec, attach.
	GraceMillis int64    `json:"graceMillis,omitempty"` // Of stop.
	Launch      *Launch  `json:"launch,omitempty"`      // Of start.
	Command     []string `json:"command,omitempty"`     // Of exec.
	TTY         bool     `json:"tty,omitempty"`         // Of exec.
	Stdin       bool     `json:"stdin,omitempty"`       // Of exec: frames of stdin follow.
	Port        uint16   `json:"port,omitempty"`        // Of dial.
}

// Answer ends a call.
type Answer struct {
	Version int      `json:"version"`
	Failure *Failure `json:"failure,omitempty"`

	UID      string           `json:"uid,omitempty"`      // Of hello.
	PID      int              `json:"pid,omitempty"`      // Of hello.
	Records  []Record         `json:"records,omitempty"`  // Of state.
	ExitCode int32            `json:"exitCode,omitempty"` // Of exec.
	Usage    map[string]Usage `json:"usage,omitempty"`    // Of usage, by name of container.
}

// Usage of a container.
type Usage struct {
	CPUNanos    int64 `json:"cpuNanos"`
	MemoryBytes int64 `json:"memoryBytes"`
}

// Size of a terminal.
type Size struct {
	Columns uint16 `json:"columns"`
	Rows    uint16 `json:"rows"`
}

// Failure of a call.
type Failure struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// Kinds of failures beside those of stages.
const (
	FailureNotFound   = "notFound"
	FailureNotRunning = "notRunning"
	FailureCall       = "call" // An earlier version, that does not know the call.
)

// Launch is a start of a container.
type Launch struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Attempt int    `json:"attempt"`
	ImageID string `json:"imageID,omitempty"`
	Log     string `json:"log"`

	Stage stage.Spec `json:"stage"`
	// Isolated: the container is the first process of a PID namespace, and sees its own mounts.
	Isolated bool `json:"isolated,omitempty"`

	Scratch    string   `json:"scratch,omitempty"` // Folder that goes when the container has ended.
	StopSignal int      `json:"stopSignal"`
	Stdin      bool     `json:"stdin,omitempty"`
	Kills      *Counter `json:"kills,omitempty"`
	// MemoryMax is kept by looking, where there is no cgroup.
	MemoryMax int64 `json:"memoryMax,omitempty"`
}

// Counter is a line of a file of a cgroup that counts kills for want of memory.
type Counter struct {
	File string `json:"file"`
	Key  string `json:"key"`
}

// States of a record.
const (
	StateStarting = "starting"
	StateRunning  = "running"
	StateExited   = "exited"
)

// OOMKilled is the reason of an end for want of memory: runtime.OOMKilled, whose package
// imports too much for this one.
const OOMKilled = "OOMKilled"

// Record is what is on disk of an attempt of a container, in containers/NAME.ATTEMPT.json.
// It holds nothing secret: no environment, no arguments.
type Record struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Name    string `json:"name"`
	Attempt int    `json:"attempt"`
	ImageID string `json:"imageID,omitempty"`
	Log     string `json:"log"`
	Scratch string `json:"scratch,omitempty"`

	State    string    `json:"state"`
	PID      int       `json:"pid,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	ExitCode int32     `json:"exitCode,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Message  string    `json:"message,omitempty"`
}

// Boot is what a supervisor is started with.
type Boot struct {
	Version     int      `json:"version"`
	UID         string   `json:"uid"`
	Dir         string   `json:"dir"` // The engine's folder of the pod.
	Cgroups     []string `json:"cgroups,omitempty"`
	Hostname    string   `json:"hostname,omitempty"` // Of a UTS namespace of its own.
	Loopback    bool     `json:"loopback,omitempty"` // Bring lo up: the network namespace is its own.
	OOMScoreAdj *int     `json:"oomScoreAdj,omitempty"`
	Subreaper   bool     `json:"subreaper,omitempty"` // Its containers have no PID namespaces.
}

// Ready is what a supervisor says when it listens, or why it does not.
type Ready struct {
	Version int    `json:"version"`
	PID     int    `json:"pid,omitempty"`
	Error   string `json:"error,omitempty"`
}

func EncodeFrame(kind byte, payload []byte) []byte {
	b := make([]byte, FrameHeader, FrameHeader+len(payload))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	return append(b, payload...)
}

func ReadFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [FrameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > FrameMax {
		return 0, nil, fmt.Errorf("frame %q of %d bytes: more than %d", head[0], n, FrameMax)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return head[0], payload, err
}

func decodeRecord(b []byte) (Record, error) {
	r := Record{}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, err
	}
	if r.Version > Version {
		return r, fmt.Errorf("record of version %d: this program knows %d: use the newer one again, or remove the pod", r.Version, Version)
	}
	return r, nil
}
