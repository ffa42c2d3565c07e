package snapshot

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// copyTree copies a folder that nobody writes, durably or, where the copy is
// scratch, not.
func copyTree(ctx context.Context, fsys vfs.FS, from, to string, durable bool) error {
	if err := fsys.MkdirAll(to); err != nil {
		return err
	}
	names, err := fsys.List(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		source, target := filepath.Join(from, name), filepath.Join(to, name)
		info, err := fsys.Stat(source)
		if err != nil {
			return err
		}
		if info.IsDir {
			err = copyTree(ctx, fsys, source, target, durable)
		} else {
			err = copyFile(ctx, fsys, source, target, durable)
		}
		if err != nil {
			return err
		}
	}
	if !durable {
		return nil
	}
	return fsys.SyncDir(to)
}

func copyFile(ctx context.Context, fsys vfs.FS, from, to string, durable bool) error {
	source, err := fsys.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	size, err := source.Size()
	if err != nil {
		return err
	}
	target, err := fsys.Create(to)
	if err != nil {
		return err
	}
	buffer := make([]byte, saveBytes)
	for at := int64(0); at < size && err == nil; at += saveBytes {
		part := buffer[:min(saveBytes, size-at)]
		if _, err = source.ReadAt(part, at); err == nil || errors.Is(err, io.EOF) {
			_, err = target.WriteAt(part, at)
		}
		err = errors.Join(err, ctx.Err())
	}
	if err == nil && durable {
		err = target.SyncData()
	}
	return errors.Join(err, target.Close())
}
