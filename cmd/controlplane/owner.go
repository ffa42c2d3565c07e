package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/contexts"
)

// owner is the user who called, though sudo may stand between.
type owner struct {
	home     string
	uid, gid int // -1: this process' own.
}

var errLink = errors.New("it is a symbolic link, and this process may write where its owner may not: remove it, or give --context-file")

func ownerOf(environ []string) (owner, error) {
	get := func(name string) string {
		for _, kv := range environ {
			if v, ok := strings.CutPrefix(kv, name+"="); ok {
				return v
			}
		}
		return ""
	}
	id := get("SUDO_UID")
	if id == "" || os.Geteuid() != 0 {
		if home := get("HOME"); home != "" {
			return owner{home, -1, -1}, nil
		}
		return owner{}, errors.New("HOME is not set: give --context-file")
	}
	u, err := user.LookupId(id)
	if err != nil {
		return owner{}, fmt.Errorf("SUDO_UID: %w", err)
	}
	uid, errU := strconv.Atoi(u.Uid)
	gid, errG := strconv.Atoi(u.Gid)
	return owner{u.HomeDir, uid, gid}, errors.Join(errU, errG)
}

// write puts a context into a file that belongs to the owner.
func (o owner) write(path string, c contexts.Context) error {
	dir := filepath.Dir(path)
	if o.uid >= 0 {
		for _, p := range []string{dir, path} {
			if info, err := os.Lstat(p); err == nil && info.Mode()&os.ModeSymlink != 0 {
				return fmt.Errorf("%s: %w", p, errLink)
			}
		}
	}
	made, err := vfs.Exists(vfs.OS(), dir)
	if err != nil {
		return err
	}
	f, err := contexts.Read(vfs.OS(), path)
	if err != nil {
		return err
	}
	f.Set(c)
	if err := f.Write(vfs.OS(), path); err != nil {
		return err
	}
	if o.uid < 0 {
		return nil
	}
	if !made {
		if err := os.Lchown(dir, o.uid, o.gid); err != nil {
			return err
		}
	}
	return os.Lchown(path, o.uid, o.gid)
}
