//go:build linux

// Package fusefs is a file system for real processes that fails and forgets on
// demand.
//
// It passes everything through to a backing folder, where the current contents
// always are: the kernel's pages of a mapped file stay coherent with what is
// written, which bbolt relies on. Beside it a journal holds what every sector,
// size and name was before the changes that no sync has covered. A power cut
// takes the file system away, puts back some or all of that, and mounts it
// again, so that no cache remembers more than the disk.
//
// Rules make calls fail, wait or write in part. A failed sync is final, as on
// Linux: what it should have written stays visible, is lost in the next power
// cut, and no later sync brings it to the disk.
//
// The process that has mounted it must not map its files: a fault in one of its
// own pages would stop the goroutine that answers it.
package fusefs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	unmountMax   = 10 * time.Second // A killed process lets go of its files soon.
	answerMax    = time.Minute
	unmountPause = 20 * time.Millisecond
	writeBytes   = 1 << 20 // One request of the kernel.
)

// FS is one mounted file system.
type FS struct {
	mountpoint string
	backing    string
	stash      string // What has lost its name, but not yet durably.

	server *fuse.Server
	root   *node

	mu       sync.Mutex // Guards what follows, and the names in the backing folder.
	rules    []*rule
	counters map[string]int64
	journal  journal
	off      bool // No power: nothing changes any more.
}

// Available tells why file systems can not be mounted here.
func Available() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no FUSE here: %w", err)
	}
	return f.Close()
}

// Mount shows the folder backing at mountpoint. Both are made when missing.
// Beside backing a folder with the suffix .stash holds what was removed.
func Mount(mountpoint, backing string) (*FS, error) {
	// A test that was killed leaves a mount nobody answers.
	if _, err := os.Stat(mountpoint); errors.Is(err, syscall.ENOTCONN) {
		syscall.Unmount(mountpoint, syscall.MNT_DETACH)
	}
	f := &FS{mountpoint: mountpoint, backing: backing, stash: backing + ".stash", counters: make(map[string]int64)}
	for _, dir := range []string{mountpoint, backing, f.stash} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	f.journal.reset()
	return f, f.mount()
}

func (f *FS) mount() error {
	made, err := fs.NewLoopbackRoot(f.backing)
	if err != nil {
		return err
	}
	f.root = &node{LoopbackNode: made.(*fs.LoopbackNode), fs: f}
	f.root.RootData.RootNode = f.root
	var none time.Duration // Names and sizes are asked for each time: none is stale.
	f.server, err = fs.Mount(f.mountpoint, f.root, &fs.Options{
		EntryTimeout: &none, AttrTimeout: &none, NegativeTimeout: &none,
		MountOptions: fuse.MountOptions{
			FsName: "fusefs", Name: "fusefs", MaxWrite: writeBytes, DirectMount: true, DisableXAttrs: true,
		},
	})
	return errors.Join(err, keepFromChildren())
}

// keepFromChildren closes the connections to the kernel in programs that are
// started from now on. One that has a connection to the file system that it
// works on keeps it alive when this process dies, and waits for it for ever.
func keepFromChildren() error {
	entries, err := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		to, gone := os.Readlink("/proc/self/fd/" + e.Name())
		if fd, bad := strconv.Atoi(e.Name()); gone == nil && bad == nil && to == "/dev/fuse" {
			syscall.CloseOnExec(fd)
		}
	}
	return err
}

// Unmount takes the file system away. The backing folder holds everything.
func (f *FS) Unmount() error {
	if err := f.detach(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.journal.close()
	return os.RemoveAll(f.stash)
}

func (f *FS) detach() error {
	deadline := time.Now().Add(unmountMax)
	for {
		err := f.server.Unmount()
		if err == nil {
			return f.answered()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("unmount %s: %w", f.mountpoint, err)
		}
		time.Sleep(unmountPause)
	}
}

// answered waits for the calls that were under way.
func (f *FS) answered() error {
	ended := make(chan struct{})
	go func() {
		f.server.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(answerMax):
		return fmt.Errorf("unmount %s: a call was not answered within %v", f.mountpoint, answerMax)
	}
}

// Flip turns over one bit of a file below the page cache, on disk and in all
// that is pending. The name is relative to the mount.
func (f *FS) Flip(name string, offset int64, bit uint) error {
	file, err := os.OpenFile(filepath.Join(f.backing, name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := f.flip(file, offset, bit); err != nil {
		return fmt.Errorf("flip %s: %w", name, err)
	}
	// The kernel may hold the page, perhaps mapped: it has to read it again.
	at := f.root.EmbeddedInode()
	for _, part := range splitPath(name) {
		if at = at.GetChild(part); at == nil {
			return nil // Never looked up: nothing is cached.
		}
	}
	if errno := at.NotifyContent(0, 0); errno != 0 && errno != syscall.ENOENT {
		return fmt.Errorf("drop the cache of %s: %w", name, errno)
	}
	return nil
}

func (f *FS) flip(file *os.File, offset int64, bit uint) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b [1]byte
	if _, err := file.ReadAt(b[:], offset); err != nil {
		return err
	}
	b[0] ^= 1 << (bit % 8)
	if _, err := file.WriteAt(b[:], offset); err != nil {
		return err
	}
	ino, err := inodeOf(file)
	if err != nil {
		return err
	}
	f.journal.flip(ino, offset, bit)
	f.counters["flip"]++
	return nil
}

// Counters tells how often each kind of call came, by itself and with a base
// name behind it, and each fault happened.
func (f *FS) Counters() map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.counters)
}

// Pending is how many changes no sync has covered.
func (f *FS) Pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.journal.serials())
}
