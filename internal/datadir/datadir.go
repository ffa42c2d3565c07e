// Package datadir is the layout of a member's data directory, and the one
// place where a generation of state becomes the current one.
//
//	LOCK       held by the living process
//	IDENTITY   which member of which cluster this directory is; and IDENTITY.copy
//	CURRENT    the generation in use
//	UNTRUSTED  a generation that is not to be used any more, and why
//	PEERS      where the other members listen
//	admin.sock only while it runs: by which recover collect asks it
//	gen-000001/base.db, gen-000001/history/
//	wal/
//	STARTING   only during the first start: the folder elsewhere that the log goes to
//	old-…      what was replaced, renamed aside; see clean.go for what becomes of it
//
// Invariant: what CURRENT names was complete and synced before CURRENT was
// renamed into place. A crash leaves the old generation or the new one; a
// generation that CURRENT does not name is renamed aside at the next start.
// Files: docs/format/datadir.md.
package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// FormatVersion of IDENTITY and CURRENT, and so of the directory as a whole.
const FormatVersion = 1

const (
	lockName     = "LOCK"
	identityName = "IDENTITY"
	identityCopy = "IDENTITY.copy"
	currentName  = "CURRENT"
	startingName = "STARTING"
	walName      = "wal"
	genPrefix    = "gen-"
	oldPrefix    = "old-"
)

var (
	// ErrLocked means that another process lives in the directory.
	ErrLocked = errors.New("data directory is in use by another process; stop it, or choose another --data-dir")
	// ErrEmpty means that no member was ever started here.
	ErrEmpty = errors.New("data directory holds no member")
	// ErrDamaged means that a file of the directory does not hold what was written.
	ErrDamaged = errors.New("file is damaged")
	// ErrVersion means that a newer holdfast wrote the directory.
	ErrVersion = errors.New("written by another version of holdfast")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Identity says who lives in a directory.
type Identity struct {
	Cluster     ident.ClusterID
	Member      ident.MemberID
	Timeline    ident.Timeline
	Incarnation uint64 // Random, drawn when the directory was made: a wiped member has another.
}

// Dir is a locked data directory.
type Dir struct {
	fs   vfs.FS
	path string
	lock io.Closer

	mu       sync.Mutex
	made     map[int]bool // Generations that are being made, or wait to be put into force.
	cleaning sync.Mutex   // Held by Clean.
}

// Open makes the directory if it is missing and takes its lock.
func Open(fsys vfs.FS, path string) (*Dir, error) {
	if err := vfs.MakeFolder(fsys, path); err != nil {
		return nil, fmt.Errorf("data directory %s: %w; choose a --data-dir that can be written", path, err)
	}
	lock, err := fsys.Lock(filepath.Join(path, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("%s: %w", path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s: %w; choose a --data-dir that can be written", path, err)
	}
	return &Dir{fs: fsys, path: path, lock: lock, made: map[int]bool{}}, nil
}

// Holds reports whether a folder has what only a member's has. It makes nothing, not even
// the lock: for commands that may be given any folder.
func Holds(fsys vfs.FS, path string) (bool, error) {
	names, err := fsys.List(path)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(names, func(name string) bool {
		return name == identityName || name == identityCopy || name == frozenName
	}), nil
}

// Close gives the lock back.
func (d *Dir) Close() error { return d.lock.Close() }

// Path of the directory.
func (d *Dir) Path() string { return d.path }

// WAL is the folder of the Raft log.
func (d *Dir) WAL() string { return filepath.Join(d.path, walName) }

// Generation is the folder of the n-th generation of state.
func (d *Dir) Generation(n int) string {
	return filepath.Join(d.path, fmt.Sprintf("%s%06d", genPrefix, n))
}

// Identity reads who lives here; ErrEmpty when nobody does. Nothing else knows
// what it says, so there is a copy, for when it is damaged.
func (d *Dir) Identity() (Identity, error) {
	var id Identity
	err := d.read(identityName, &id)
	if !errors.Is(err, ErrDamaged) {
		return id, err
	}
	if d.read(identityCopy, &id) != nil {
		return Identity{}, err
	}
	return id, nil
}

// MendIdentity writes again what of the identity and its copy can not be read.
func (d *Dir) MendIdentity(id Identity) error {
	for _, name := range []string{identityCopy, identityName} {
		var there Identity
		if d.read(name, &there) == nil {
			continue
		}
		if err := d.write(name, id); err != nil {
			return err
		}
	}
	return nil
}

// SetIdentity says who lives here. The copy comes first: a directory whose
// IDENTITY is missing counts as empty.
func (d *Dir) SetIdentity(id Identity) error {
	fail.Here("datadir/identity/before")
	if err := d.write(identityCopy, id); err != nil {
		return err
	}
	if err := d.write(identityName, id); err != nil {
		return err
	}
	err := d.fs.Remove(filepath.Join(d.path, startingName)) // Without meaning from here on.
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

type starting struct{ Log string }

// ClaimLog notes, before the first start touches it, that a folder elsewhere
// holds no log but the one that this start makes: should it be cut short, the
// next one knows whose leftover lies there.
func (d *Dir) ClaimLog(folder string) error { return d.write(startingName, starting{folder}) }

// ClaimedLog is the folder of ClaimLog, "" when there was no such start.
func (d *Dir) ClaimedLog() (string, error) {
	var s starting
	err := d.read(startingName, &s)
	if errors.Is(err, ErrEmpty) {
		return "", nil
	}
	return s.Log, err
}

type current struct {
	Generation int
	Began      *Began `json:",omitempty"`
}

// Began is the entry after which a generation was put into force. A log that
// does not reach a state that stands there has yet to begin behind it; one that
// does not reach a state which went on since has lost entries.
type Began struct {
	Index ident.Index
	Term  ident.Term
}

func (d *Dir) current() (c current, err error) {
	err = d.read(currentName, &c)
	return c, err
}

// Current reads which generation is in use; ErrEmpty when none ever was.
func (d *Dir) Current() (int, error) {
	c, err := d.current()
	return c.Generation, err
}

// Began reads where the generation in use began; nil when CURRENT is of a
// version that did not note it.
func (d *Dir) Began() (*Began, error) {
	c, err := d.current()
	return c.Began, err
}

// Next is the number for a generation that does not exist yet. It is left alone
// until it is put into force or abandoned.
func (d *Dir) Next() (int, error) { return d.NextAfter(0) }

// NextAfter is Next, above a number that is known to have been used, whatever
// is left of it.
func (d *Dir) NextAfter(used int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	names, err := d.fs.List(d.path)
	if err != nil {
		return 0, err
	}
	last := used
	for _, name := range names {
		for _, prefix := range []string{doomedPrefix, unusedPrefix, oldPrefix} {
			name = strings.TrimPrefix(name, prefix)
		}
		if n, ok := number(name); ok {
			last = max(last, n)
		}
	}
	for n := range d.made { //tidy:ordered the greatest
		last = max(last, n)
	}
	d.made[last+1] = true
	return last + 1, nil
}

// Abandon gives a generation up that was not put into force: it is renamed aside.
func (d *Dir) Abandon(n int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.made, n)
	err := d.fs.Rename(d.Generation(n), filepath.Join(d.path, unusedPrefix+filepath.Base(d.Generation(n))))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rename generation %d aside: %w", n, err)
	}
	return d.fs.SyncDir(d.path)
}

// SetCurrent is the commit point of a new generation, which must be complete
// and synced. The generations before it are renamed aside.
func (d *Dir) SetCurrent(n int, began Began) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fs.SyncDir(d.Generation(n)); err != nil {
		return err
	}
	if err := d.fs.SyncDir(d.path); err != nil {
		return err
	}
	fail.Here("datadir/current/before")
	if err := d.write(currentName, current{n, &began}); err != nil {
		return err
	}
	fail.Here("datadir/current/after")
	delete(d.made, n)
	return d.tidy()
}

// Tidy renames aside every generation that is not the current one: what a
// crash left half made, and what was replaced. It spares what is being made.
//
// First it writes CURRENT again: after a sync that failed only the cache may
// hold it, and no later sync would notice. Without room for that nothing is
// renamed, so that the generation before stands as well.
func (d *Dir) Tidy() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.current()
	if err != nil {
		return err
	}
	if err := d.write(currentName, c); errors.Is(err, syscall.ENOSPC) {
		return nil
	} else if err != nil {
		return err
	}
	return d.tidy()
}

func (d *Dir) tidy() error {
	keep, err := d.Current()
	if err != nil {
		return err
	}
	names, err := d.fs.List(d.path)
	if err != nil {
		return err
	}
	for _, name := range names {
		n, ok := number(name)
		if !ok || n == keep || d.made[n] {
			continue
		}
		prefix := oldPrefix
		if n > keep { // They are put into force in rising order.
			prefix = unusedPrefix
		}
		if err := d.fs.Rename(filepath.Join(d.path, name), filepath.Join(d.path, prefix+name)); err != nil {
			return fmt.Errorf("rename %s aside: %w", name, err)
		}
	}
	return d.fs.SyncDir(d.path)
}

// SetAside renames what a start that was cut short has left, in a directory
// that holds no member.
func (d *Dir) SetAside() error {
	names, err := d.fs.List(d.path)
	if err != nil {
		return err
	}
	for _, name := range names {
		_, isGeneration := number(name)
		if !isGeneration && name != walName && name != currentName {
			continue
		}
		aside := filepath.Join(d.path, oldPrefix+name)
		for i := 2; ; i++ {
			taken, err := vfs.Exists(d.fs, aside)
			if err != nil {
				return err
			}
			if !taken {
				break
			}
			aside = filepath.Join(d.path, fmt.Sprintf("%s%s-%d", oldPrefix, name, i))
		}
		if err := d.fs.Rename(filepath.Join(d.path, name), aside); err != nil {
			return fmt.Errorf("rename %s aside: %w", name, err)
		}
	}
	return d.fs.SyncDir(d.path)
}

func number(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, genPrefix)
	if !ok {
		return 0, false
	}
	var n int
	if _, err := fmt.Sscanf(digits, "%d", &n); err != nil {
		return 0, false
	}
	return n, true
}

// Each file is one line of JSON and one line with its checksum, so that people
// can read it and a flipped bit is noticed.
type envelope struct {
	Format int
	Body   json.RawMessage
}

func (d *Dir) write(name string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	line, err := json.Marshal(envelope{FormatVersion, body})
	if err != nil {
		return err
	}
	data := fmt.Appendf(line, "\n%08x\n", checksum(line))
	if err := vfs.ReplaceFile(d.fs, filepath.Join(d.path, name), data); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Join(d.path, name), err)
	}
	return nil
}

func checksum(line []byte) uint32 { return crc32.Checksum(line, castagnoli) }

func (d *Dir) read(name string, v any) error {
	path := filepath.Join(d.path, name)
	data, err := vfs.ReadFile(d.fs, path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: %w", path, ErrEmpty)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return decode(path, data, v)
}

func decode(path string, data []byte, v any) error {
	line, sum, _ := strings.Cut(string(data), "\n")
	var e envelope
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		return fmt.Errorf("%s: %w: %v", path, ErrDamaged, err)
	}
	if want := fmt.Sprintf("%08x\n", checksum([]byte(line))); sum != want {
		return fmt.Errorf("%s: %w: checksum is %q, want %q", path, ErrDamaged, sum, want)
	}
	if e.Format > FormatVersion {
		return fmt.Errorf("%s has format %d, this one knows up to %d: %w", path, e.Format, FormatVersion, ErrVersion)
	}
	if err := json.Unmarshal(e.Body, v); err != nil {
		return fmt.Errorf("%s: %w: %v", path, ErrDamaged, err)
	}
	return nil
}
