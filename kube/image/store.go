package image

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Config is what a Store needs. Dir and Logger are required.
type Config struct {
	// Dir is the store's folder, for one process at a time. It must be on a file
	// system that overlayfs can use, unless Rootless.
	Dir    string
	Logger hclog.Logger
	Clock  clock.Clock // Default: the machine's.

	// Rootless makes one folder of each image, with the layers laid one over the
	// other and all files owned by whoever runs this. Without it layers are for
	// overlayfs, which takes root to make.
	Rootless bool

	// KeepBlobs keeps the packed layers of images, so that Handler can give them away;
	// what is imported is unpacked only if Resolve asks for it. Without it packed layers
	// go when they are unpacked, to save the space.
	KeepBlobs bool

	// Executable is what builtin/demo runs, with the argument demo. Default: this
	// program.
	Executable string

	// Roots are the authorities of registries. Default: the machine's.
	Roots *x509.CertPool

	// Used tells how full the disk of Dir is, in percent. Default: asks the system.
	Used func() (float64, error)

	step func(name string) // For tests: called before each thing that a crash can come before.
}

// Validate reports all that is wrong.
func (c *Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no Dir"))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("no Logger"))
	}
	if !c.Rootless && os.Geteuid() != 0 {
		errs = append(errs, errors.New("layers for overlayfs are made by root alone: set Rootless"))
	}
	return errors.Join(errs...)
}

func (c *Config) defaults() {
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Executable == "" {
		c.Executable = "/proc/self/exe" // Still this program when its file was replaced.
	}
	if c.step == nil {
		c.step = func(string) {}
	}
}

// Store keeps images.
type Store struct {
	cfg   Config
	clock clock.Clock
	log   hclog.Logger
	lock  io.Closer
	group *task.Group

	downloads chan struct{} // A place for each blob that is coming.
	flights   flights       // Pulls and unpackings that are under way, by what they make.
	programs  programs

	// writing is held while the index is written and while names in the folder are
	// taken away, so that nothing goes that was about to be relied on.
	writing sync.Mutex

	mu struct {
		sync.Mutex
		images  map[string]*record       // By manifest. Replaced as a whole, with writing held.
		pinned  map[string]int           // Hashes that something under way needs. Changed with writing held.
		touched map[string]time.Duration // When somebody asked for an image last, by Mono.
	}
	opened time.Duration
}

// Open opens a store, makes it where there is none, and mends what a crash left.
func Open(cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	cfg.defaults()
	s := &Store{cfg: cfg, clock: cfg.Clock, log: cfg.Logger, downloads: make(chan struct{}, downloadsMax)}
	s.flights.under = map[string]*flight{}
	s.mu.pinned, s.mu.touched = map[string]int{}, map[string]time.Duration{}
	s.opened = s.clock.Mono()
	for _, dir := range []string{"", blobsDir, layersDir, rootsDir, builtinsDir, tmpDir} {
		if err := vfs.MakeFolder(vfs.OS(), s.path(dir)); err != nil {
			return nil, fmt.Errorf("images: %w", err)
		}
	}
	var err error
	if s.lock, err = vfs.OS().Lock(s.path(lockFile)); err != nil {
		return nil, fmt.Errorf("images: folder %s: %w", cfg.Dir, err)
	}
	if err := s.mend(); err != nil {
		return nil, errors.Join(fmt.Errorf("images: %w", err), s.lock.Close())
	}
	s.group = task.New(context.Background())
	return s, nil
}

// Close ends what is under way and waits for it.
func (s *Store) Close() error {
	s.group.Stop()
	return errors.Join(s.group.Wait(), s.lock.Close())
}

// mend reads the index, and removes what is half made or not needed.
func (s *Store) mend() error {
	if err := emptyFolder(s.path(tmpDir)); err != nil {
		return err
	}
	b, err := vfs.ReadFile(vfs.OS(), s.path(indexFile))
	images := map[string]*record{}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		images, err = decodeIndex(b)
		if errors.Is(err, ErrFormat) {
			return err
		}
		if err != nil {
			// Images can be had again; a node that does not start helps nobody.
			s.log.Warn("index of images is damaged, beginning with none", "error", err, "kept", indexFile+".damaged")
			if err := os.Rename(s.path(indexFile), s.path(indexFile+".damaged")); err != nil {
				return err
			}
			images = map[string]*record{}
		}
	}
	for id, r := range images {
		if err := s.complete(r); err != nil {
			s.log.Warn("an image misses something and is forgotten", "image", id, "names", r.Names, "error", err)
			delete(images, id)
		}
	}
	s.mu.images = images
	return s.sweep()
}

// complete tells whether everything of an image is there. Small blobs are compared
// with their hashes; layers have been when they got their names.
func (s *Store) complete(r *record) error {
	for _, digest := range []string{r.Manifest, r.Config} {
		if _, err := s.readBlob(digest); err != nil {
			return err
		}
	}
	if s.cfg.Rootless && exists(s.rootPath(r.Manifest)) {
		return nil
	}
	for _, l := range r.Layers {
		if exists(s.blobPath(l.Blob)) || !s.cfg.Rootless && exists(s.layerPath(l.Diff)) {
			continue
		}
		return fmt.Errorf("layer %s: %w", l.Diff, fs.ErrNotExist)
	}
	return nil
}

// snapshot is the index as it is now. Nobody changes its records.
func (s *Store) snapshot() map[string]*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.images
}

// change writes a new index.
func (s *Store) change(f func(images map[string]*record) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	next := map[string]*record{}
	for id, r := range s.snapshot() {
		next[id] = r.clone()
		next[id].Used = s.lastUse(r)
	}
	if err := f(next); err != nil {
		return err
	}
	b, err := encodeIndex(next)
	if err != nil {
		return err
	}
	s.cfg.step("index")
	if err := vfs.ReplaceFile(vfs.OS(), s.path(indexFile), b); err != nil {
		return fmt.Errorf("index of images: %w", err)
	}
	s.mu.Lock()
	s.mu.images = next
	s.mu.Unlock()
	return nil
}

// add puts an image into the index; a name that another had becomes its own.
func (s *Store) add(r *record) error {
	now := s.clock.Wall().UTC().Truncate(time.Second)
	err := s.change(func(images map[string]*record) error {
		for _, other := range images {
			other.Names = slices.DeleteFunc(other.Names, func(n string) bool { return slices.Contains(r.Names, n) })
		}
		old := images[r.Manifest]
		if old == nil {
			r.Added, r.Used = now, now
			images[r.Manifest] = r
			return nil
		}
		names := union(old.Names, r.Names)
		if len(names) > imageNamesMax {
			return manyNames(r.Config, len(names))
		}
		old.Names = names
		old.Pins = union(old.Pins, r.Pins)
		old.Imported = old.Imported && r.Imported
		return nil
	})
	if err == nil {
		s.touch(r.Manifest)
	}
	return err
}

func union(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *Store) touch(manifest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.touched[manifest] = s.clock.Mono()
}

// lastUse is for order among images, and for people.
func (s *Store) lastUse(r *record) time.Time {
	s.mu.Lock()
	at, ok := s.mu.touched[r.Manifest]
	s.mu.Unlock()
	if !ok {
		return r.Used
	}
	return s.clock.Wall().Add(at - s.clock.Mono()).UTC().Truncate(time.Second)
}

// find looks an image up, and keeps it from being collected for a while.
func (s *Store) find(ref Reference) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.mu.images {
		if slices.Contains(r.Names, ref.String()) || slices.Contains(r.Pins, ref.String()) {
			s.mu.touched[r.Manifest] = s.clock.Mono()
			return r
		}
	}
	return nil
}

// pin keeps hashes from being swept until the function that it returns is called.
func (s *Store) pin(digests ...string) (unpin func()) {
	count := func(by int) {
		s.writing.Lock() // Not in the middle of a sweep, which has looked already.
		defer s.writing.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, d := range digests {
			if s.mu.pinned[d] += by; s.mu.pinned[d] == 0 {
				delete(s.mu.pinned, d)
			}
		}
	}
	count(1)
	return func() { count(-1) }
}

// sweep removes what no image of the index needs and nobody has pinned.
func (s *Store) sweep() error {
	trash, err := s.sweepNames()
	for _, path := range trash {
		err = errors.Join(err, removeTree(path))
	}
	return err
}

// sweepNames takes the names away, which is quick, and returns what to remove.
func (s *Store) sweepNames() (trash []string, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	needed := s.needed()
	for _, dir := range []string{blobsDir, layersDir, rootsDir} {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil {
			return trash, err
		}
		for _, e := range entries {
			if needed[filepath.Join(dir, e.Name())] {
				continue
			}
			scratch, err := os.MkdirTemp(s.path(tmpDir), "gone-")
			if err != nil {
				return trash, err
			}
			trash = append(trash, scratch)
			s.cfg.step("sweep")
			if err := os.Rename(s.path(dir, e.Name()), filepath.Join(scratch, "it")); err != nil {
				return trash, err
			}
		}
	}
	return trash, nil
}

// needed lists paths in the folder.
func (s *Store) needed() map[string]bool {
	s.mu.Lock()
	images, pinned := s.mu.images, maps.Clone(s.mu.pinned)
	s.mu.Unlock()
	needed := map[string]bool{}
	for digest := range pinned {
		for _, dir := range []string{blobsDir, layersDir, rootsDir} {
			needed[filepath.Join(dir, digits(digest))] = true
		}
	}
	for _, r := range images {
		needed[filepath.Join(blobsDir, digits(r.Manifest))] = true
		needed[filepath.Join(blobsDir, digits(r.Config))] = true
		needed[filepath.Join(rootsDir, digits(r.Manifest))] = s.cfg.Rootless
		whole := s.cfg.Rootless && exists(s.rootPath(r.Manifest))
		for _, l := range r.Layers {
			if !s.cfg.Rootless {
				needed[filepath.Join(layersDir, digits(l.Diff))] = true
			}
			if s.cfg.KeepBlobs || !whole && !(!s.cfg.Rootless && exists(s.layerPath(l.Diff))) {
				needed[filepath.Join(blobsDir, digits(l.Blob))] = true
			}
		}
	}
	return needed
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func emptyFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
	}
	return err
}

// removeTree removes also what images made without the right to be removed.
func removeTree(path string) error {
	err := os.RemoveAll(path)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(at, 0o700)
		}
		return err
	})
	return os.RemoveAll(path)
}
