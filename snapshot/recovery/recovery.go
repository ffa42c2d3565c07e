// Package recovery brings a cluster back that has lost its quorum, out of what
// the survivors' own disks hold.
//
// Four steps. Collect reads a stopped member's data directory and says what is
// there, damage included. NewPlan is a pure function of such facts: whose log is
// the best, what of it is proven to be committed, what is uncertain, what may be
// lost, and what the new cluster will be. Apply carries a plan out in steps that
// may be cut off anywhere and run again. Salvage looks into the directory of a
// member that was given up and turns up later.
//
// Invariants:
//   - No plan claims that nothing is lost unless that follows from the facts.
//   - An entry that a survivor's log holds and that was committed is in the log
//     that a plan chooses.
//   - Apply only reads the old data directories, but for the marker that keeps
//     their members from starting, until the new ones are complete and verified.
//     Then it renames the old aside.
//   - The new cluster has another ID, other member IDs and another timeline, and
//     its log goes on above every index and term that was seen.
//
// A crash in Apply leaves the old directory, or the new one; the journal beside
// it says how far it came. Files: docs/format/recovery.md.
package recovery

import (
	"errors"
	"strconv"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Config is what all steps stand on.
type Config struct {
	FS     vfs.FS
	Clock  clock.Clock
	Logger hclog.Logger
}

// Source names a stopped member's directories.
type Source struct {
	DataDir string `json:"data_dir"`
	WALDir  string `json:"wal_dir,omitempty"` // Empty: within DataDir.
}

// ID is a member, cluster or incarnation: hexadecimal in files, as in what the
// other tools print.
type ID uint64

func (id ID) String() string { return strconv.FormatUint(uint64(id), 16) }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 16, 64)
	*id = ID(n)
	return err
}

// Mark names one entry of a log.
type Mark struct {
	Index ident.Index `json:"index"`
	Term  ident.Term  `json:"term"`
}

// Less reports whether a log that ends with m is behind one that ends with n, as
// voters see it.
func (m Mark) Less(n Mark) bool { return m.Term < n.Term || m.Term == n.Term && m.Index < n.Index }

var (
	// ErrRefused is matched by every reason not to recover.
	ErrRefused = errors.New("recovery refused")
	// ErrLoss means that a plan may lose acknowledged writes and nobody has
	// accepted that.
	ErrLoss = errors.New("acknowledged writes may be lost")
	// ErrStale means that what a plan was made from is not what is there now.
	ErrStale = errors.New("the facts have changed, collect and plan again")
	// ErrStaged means that another plan is under way.
	ErrStaged = errors.New("another recovery is under way")
	// ErrDocument means that a file is not what it should be, or damaged.
	ErrDocument = errors.New("not a file of a recovery")
	// ErrNewerFormat means that a later version wrote a file.
	ErrNewerFormat = errors.New("written by a later version of holdfast")
	// ErrForeign means that a directory belongs to another cluster.
	ErrForeign = errors.New("of another cluster")
)
