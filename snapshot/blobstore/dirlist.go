package blobstore

import (
	"context"
	"errors"
	iofs "io/fs"
	"slices"
	"strings"
)

// List implements Store. It holds the names of one folder at a time, of each
// level, and looks only at files that may be meant.
func (d *dir) List(ctx context.Context, prefix, after string, fn func(Object) error) error {
	folder := prefix[:strings.LastIndexByte(prefix, '/')+1]
	if folder != "" && CheckName(strings.TrimSuffix(folder, "/")) != nil {
		return nil // No object can have such a name.
	}
	w := walk{dir: d, ctx: ctx, prefix: prefix, after: after, fn: fn}
	return w.folder(folder)
}

// walk is one call of List.
type walk struct {
	dir           *dir
	ctx           context.Context
	prefix, after string
	fn            func(Object) error
}

// folder goes through a folder, which is "" or ends in a slash.
func (w *walk) folder(folder string) error {
	names, err := w.dir.fs.List(w.dir.path(folder))
	if missing(err) {
		err = w.dir.present() // Else it went since its name was read.
		names = nil
	}
	if err != nil {
		return w.dir.failed("list", folder, err)
	}
	// The objects of a folder x come as x/…, after files x-… and x.…, whose names
	// follow x among those of the folder. So folders wait until a name is beyond.
	var waiting []string
	for _, name := range slices.Compact(names) {
		if err := w.ctx.Err(); err != nil {
			return w.dir.failed("list", folder, err)
		}
		if !validPart(name) || !w.wanted(folder+name) && !w.mayHold(folder+name+"/") {
			continue
		}
		for len(waiting) > 0 && waiting[len(waiting)-1]+"/" < name {
			next := waiting[len(waiting)-1]
			waiting = waiting[:len(waiting)-1]
			if err := w.folder(folder + next + "/"); err != nil {
				return err
			}
		}
		isFolder, err := w.file(folder + name)
		if err != nil {
			return err
		}
		if isFolder {
			waiting = append(waiting, name)
		}
	}
	for _, next := range slices.Backward(waiting) {
		if err := w.folder(folder + next + "/"); err != nil {
			return err
		}
	}
	return nil
}

// file hands out an object, unless the name is a folder's.
func (w *walk) file(name string) (isFolder bool, err error) {
	info, err := w.dir.fs.Stat(w.dir.path(name))
	if errors.Is(err, iofs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, w.dir.failed("list", name, err)
	}
	if info.IsDir {
		return w.mayHold(name + "/"), nil
	}
	if !w.wanted(name) {
		return false, nil
	}
	return false, w.fn(Object{Name: name, Size: info.Size, Modified: info.Modified})
}

func (w *walk) wanted(name string) bool {
	return name > w.after && strings.HasPrefix(name, w.prefix)
}

// mayHold reports whether objects of a folder, which ends in a slash, may be wanted.
func (w *walk) mayHold(folder string) bool {
	return (strings.HasPrefix(folder, w.prefix) || strings.HasPrefix(w.prefix, folder)) &&
		(folder > w.after || strings.HasPrefix(w.after, folder))
}
