package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
)

const (
	partSuffix     = ".part"
	saveBytes      = 1 << 20 // Of one write.
	smallestBytes  = padBytes + hashBytes
	hashBlockBytes = 1 << 20
)

// Save keeps a stream in a file, which gets its name only when all of it is
// there, verified and synced. next returns the pieces, then io.EOF. It takes
// the snapshots of any server that ends them with a SHA-256, and verifies ours
// to the last byte. A file of that name is replaced.
func Save(ctx context.Context, fsys vfs.FS, path string, next func() ([]byte, error), progress func(bytes int64)) (int64, error) {
	return SaveFunc(ctx, fsys, path, func(w io.Writer) error {
		size := int64(0)
		for {
			piece, err := next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				_, err = w.Write(piece)
			}
			if err = errors.Join(err, ctx.Err()); err != nil {
				return err
			}
			if size += int64(len(piece)); progress != nil {
				progress(size)
			}
		}
	})
}

// WriteFile keeps a frozen state in a file, which gets its name as in Save.
func WriteFile(ctx context.Context, fsys vfs.FS, path string, f *mvcc.Frozen, o WriteOptions) (totals Totals, err error) {
	_, err = SaveFunc(ctx, fsys, path, func(w io.Writer) (err error) {
		totals, err = Write(ctx, w, f, o)
		return err
	})
	return totals, err
}

// SaveFunc is Save for a snapshot that write writes.
func SaveFunc(ctx context.Context, fsys vfs.FS, path string, write func(io.Writer) error) (int64, error) {
	part := path + partSuffix
	size, err := savePart(fsys, part, write)
	if err == nil {
		fail.Here("snapshot/save/written")
		err = verifyPart(ctx, fsys, part, size)
	}
	if err == nil {
		fail.Here("snapshot/save/verified")
		err = fsys.Rename(part, path)
	}
	if err == nil {
		fail.Here("snapshot/save/renamed")
		return size, fsys.SyncDir(filepath.Dir(path))
	}
	return size, errors.Join(fmt.Errorf("save snapshot as %s: %w", path, err), removeIfThere(fsys, part))
}

func removeIfThere(fsys vfs.FS, path string) error {
	there, err := vfs.Exists(fsys, path)
	if err != nil || !there {
		return err
	}
	return fsys.Remove(path)
}

func savePart(fsys vfs.FS, part string, write func(io.Writer) error) (int64, error) {
	if err := removeIfThere(fsys, part); err != nil { // Of a save that was cut short.
		return 0, err
	}
	f, err := fsys.Create(part)
	if err != nil {
		return 0, err
	}
	w := &fileWriter{file: f}
	if err = write(w); err == nil {
		err = w.flush()
	}
	if err == nil {
		err = f.SyncData()
	}
	return w.offset, errors.Join(err, f.Close())
}

// fileWriter appends to a file.
type fileWriter struct {
	file   vfs.File
	offset int64
	buffer []byte
}

func (w *fileWriter) Write(b []byte) (int, error) {
	if w.buffer == nil {
		w.buffer = make([]byte, 0, saveBytes)
	}
	if len(w.buffer)+len(b) > saveBytes {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	w.buffer = append(w.buffer, b...)
	return len(b), nil
}

func (w *fileWriter) flush() error {
	_, err := w.file.WriteAt(w.buffer, w.offset)
	w.offset += int64(len(w.buffer))
	w.buffer = w.buffer[:0]
	return err
}

// verifyPart checks the hash at the end, and everything if the file is ours.
func verifyPart(ctx context.Context, fsys vfs.FS, part string, size int64) error {
	if size < smallestBytes || size%padBytes != hashBytes {
		return fmt.Errorf("%d bytes arrived, and no snapshot is that long: %w", size, ErrDamaged)
	}
	f, err := fsys.Open(part)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, len(magic))
	if _, err := f.ReadAt(head, 0); err != nil {
		return err
	}
	if string(head) == magic {
		_, err := StatusOf(ctx, fsys, part, StatusOptions{})
		return err
	}
	sha := sha256.New()
	if _, err := io.CopyBuffer(sha, io.NewSectionReader(f, 0, size-hashBytes), make([]byte, hashBlockBytes)); err != nil {
		return err
	}
	got := make([]byte, hashBytes)
	if _, err := f.ReadAt(got, size-hashBytes); err != nil {
		return err
	}
	if want := sha.Sum(nil); string(got) != string(want) {
		return &DamageError{size - hashBytes, fmt.Sprintf("SHA-256 is %x, says %x", want, got)}
	}
	return nil
}
