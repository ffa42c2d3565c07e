package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Images that need neither a registry nor an archive.
const (
	// Demo is this program itself, as a server that shows who it is (package demo).
	Demo = "builtin/demo"
	// HostRoot is the root of the node, which containers see with their own changes
	// laid over it: all programs of the node, and all files that root can read.
	HostRoot = api.HostRoot
)

const (
	demoProgram = "/bin/holdfast" // Within builtin/demo.
	hostLinks   = "host-links"    // Of hostRoot.
)

func isBuiltin(text string) bool { return text == Demo || text == HostRoot }

// programs are the folders of built-in images, made when they are first asked for.
type programs struct {
	sync.Mutex
	demo   string // Base name.
	packed string // Manifest of what Handler gives away.
}

func (s *Store) builtin(text string) (*runtime.Image, error) {
	s.programs.Lock()
	defer s.programs.Unlock()
	if text == HostRoot {
		root, err := s.hostRoot()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", runtime.ErrImage, text, err)
		}
		return &runtime.Image{Ref: text, ID: text, Layers: []string{root}, Cmd: []string{"/bin/sh"}}, nil
	}
	if s.programs.demo == "" {
		name, err := s.makeDemo()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", runtime.ErrImage, text, err)
		}
		s.programs.demo = name
	}
	_, hash, _ := strings.Cut(s.programs.demo, "-")
	return &runtime.Image{
		Ref: text, ID: text + "@" + hash, // Containers of an earlier version of the program have another.
		Layers: []string{s.path(builtinsDir, s.programs.demo)}, Entrypoint: []string{demoProgram, "demo"},
		Env: []string{"PATH=/bin"}, User: "0", StopSignal: "SIGTERM",
	}, nil
}

// hostDirs are the folders of the node in which its programs are, with what they need.
var hostDirs = []string{"bin", "etc", "lib", "lib32", "lib64", "libx32", "opt", "sbin", "usr"}

// hostRoot is the root of the node, or, where there are no overlays and whoever makes a
// root of it would copy the node, a folder of links to what programs need. They go up
// more often than any folder is deep, and so work from wherever they are copied to.
func (s *Store) hostRoot() (string, error) {
	if !s.cfg.Rootless {
		return "/", nil
	}
	dir := s.path(builtinsDir, hostLinks)
	if exists(dir) {
		return dir, nil
	}
	tmp, err := os.MkdirTemp(s.path(tmpDir), "host-")
	if err != nil {
		return "", err
	}
	defer removeTree(tmp)
	for _, name := range hostDirs {
		if exists("/" + name) {
			if err := os.Symlink(strings.Repeat("../", 64)+name, filepath.Join(tmp, name)); err != nil {
				return "", err
			}
		}
	}
	if err := os.Mkdir(filepath.Join(tmp, "tmp"), 0o755); err != nil {
		return "", err
	}
	if err := syncTree(tmp); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	return dir, vfs.OS().SyncDir(filepath.Dir(dir))
}

// makeDemo makes the folder for the program as it is now. It is a copy: a second name
// of the file would let whoever writes to the one change the other.
func (s *Store) makeDemo() (string, error) {
	program, err := os.Open(s.cfg.Executable)
	if err != nil {
		return "", err
	}
	defer program.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, program); err != nil {
		return "", err
	}
	name := "demo-" + hex.EncodeToString(sum.Sum(nil))[:16]
	dir := s.path(builtinsDir, name)
	if exists(dir) {
		return name, nil
	}
	tmp, err := os.MkdirTemp(s.path(tmpDir), "demo-")
	if err != nil {
		return "", err
	}
	defer removeTree(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil { // It becomes a root, for users of all kinds.
		return "", err
	}
	if err := fillDemo(tmp, s.cfg.Executable); err != nil {
		return "", err
	}
	s.cfg.step("builtin sync")
	if err := syncTree(tmp); err != nil {
		return "", err
	}
	s.cfg.step("builtin rename")
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	return name, vfs.OS().SyncDir(filepath.Dir(dir))
}

func fillDemo(root, program string) error {
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/:\nnobody:x:65534:65534:nobody:/:\n",
		"etc/group":  "root:x:0:\nnogroup:x:65534:\n",
	} {
		if err := writeFile(filepath.Join(root, name), strings.NewReader(text), 0o644); err != nil {
			return err
		}
	}
	if err := copyFile(program, filepath.Join(root, demoProgram)); err != nil {
		return err
	}
	libraries, err := librariesOf(program)
	if err != nil {
		return err
	}
	for _, path := range libraries {
		to := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := copyFile(path, to); err != nil {
			return fmt.Errorf("the program is linked dynamically (build it with CGO_ENABLED=0): %w", err)
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return writeFile(to, in, 0o755)
}

// writeFile does not leave the mode to the umask.
func writeFile(name string, content io.Reader, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

// dropPrograms removes what earlier versions of the program left, where no container
// uses it.
func (s *Store) dropPrograms(used map[string]bool) error {
	s.programs.Lock()
	defer s.programs.Unlock()
	entries, err := os.ReadDir(s.path(builtinsDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		_, hash, _ := strings.Cut(e.Name(), "-")
		// Before the first use of this start nobody knows which one is ours.
		if s.programs.demo == "" || e.Name() == hostLinks || e.Name() == s.programs.demo || used[Demo+"@"+hash] {
			continue
		}
		if err := removeTree(s.path(builtinsDir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
