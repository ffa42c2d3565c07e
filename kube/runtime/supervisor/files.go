//go:build linux

package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Names in the engine's folder of a pod.
const (
	podFile      = "pod.json"       // Written by the kubelet.
	LockFile     = "lock"           // Held by the supervisor.
	socketFile   = "socket"         // Where it listens.
	TraceFile    = "supervisor.log" // What it says when it dies of itself.
	RecordFolder = "containers"
)

// Lost is the reason of the end of a container whose supervisor died.
const Lost = "SupervisorLost"

// lostCode is that of a process which was killed: what was left of it was.
const lostCode = 128 + int32(unix.SIGKILL)

func recordPath(dir, name string, attempt int) string {
	return path.Join(dir, RecordFolder, name+"."+strconv.Itoa(attempt)+".json")
}

// writeRecord replaces a record. That a container began need not survive the machine,
// whose end is that of the container too; how it ended shall.
func writeRecord(dir string, r *Record, durable bool) error {
	r.Version = Version
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	name := recordPath(dir, r.Name, r.Attempt)
	if durable {
		return vfs.ReplaceFile(vfs.OS(), name, text)
	}
	if err := os.WriteFile(name+".tmp", text, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

// ReadRecords reads all records of a pod. One that is torn, as only the end of the
// machine leaves it, is removed: it is of a container that has ended with it.
func ReadRecords(dir string) ([]Record, error) {
	names, err := os.ReadDir(path.Join(dir, RecordFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Record
	for _, n := range names {
		name := path.Join(dir, RecordFolder, n.Name())
		if path.Ext(name) != ".json" {
			continue // A scratch folder, or a replacement that was not made.
		}
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // Forgotten meanwhile.
		}
		if err != nil {
			return nil, err
		}
		if !json.Valid(text) {
			_ = os.Remove(name) // Read again next time if it stays.
			continue
		}
		r, err := decodeRecord(text)
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", name, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// MarkLost ends the records of containers that nobody watches any more, and returns
// all of them. Nothing of those may live.
func MarkLost(dir string, now time.Time) ([]Record, error) {
	all, err := ReadRecords(dir)
	if err != nil {
		return nil, err
	}
	for i := range all {
		r := &all[i]
		if r.State == StateExited {
			continue
		}
		r.State, r.Finished, r.ExitCode, r.Reason = StateExited, now, lostCode, Lost
		r.Message = "the supervisor of the pod ended, or the machine was started anew; what was left of the container was killed"
		if err := writeRecord(dir, r, true); err != nil {
			return nil, err
		}
		if r.Scratch != "" {
			if err := os.RemoveAll(r.Scratch); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// sign says in a lock who holds it.
func sign(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return err
}

// Beneath calls fn with a path of the socket that is short enough for an address, which
// the path of a folder may not be.
func Beneath(dir string, fn func(socket string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return fn("/proc/self/fd/" + strconv.Itoa(fd) + "/" + socketFile)
}
