package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// unpack returns the folders of an image, the topmost first, and makes those that are
// not there.
func (s *Store) unpack(ctx context.Context, r *record) ([]string, error) {
	if s.cfg.Rootless {
		dir := s.rootPath(r.Manifest)
		if err := s.made(ctx, dir, func(ctx context.Context) error { return s.makeFolder(ctx, dir, r.Layers) }); err != nil {
			return nil, err
		}
		return []string{filepath.Join(dir, filesDir)}, nil
	}
	folders := make([]string, len(r.Layers))
	for i, l := range r.Layers {
		dir := s.layerPath(l.Diff)
		if err := s.made(ctx, dir, func(ctx context.Context) error { return s.makeFolder(ctx, dir, []layer{l}) }); err != nil {
			return nil, err
		}
		folders[len(folders)-1-i] = filepath.Join(dir, filesDir)
	}
	if len(folders) == 0 { // An image from scratch; engines take no layers for theirs.
		dir := s.rootPath(r.Manifest)
		err := s.made(ctx, dir, func(ctx context.Context) error { return s.makeFolder(ctx, dir, nil) })
		return []string{filepath.Join(dir, filesDir)}, err
	}
	return folders, nil
}

// made has a folder made unless it is there.
func (s *Store) made(ctx context.Context, dir string, f func(ctx context.Context) error) error {
	if exists(dir) {
		return nil
	}
	return s.join(ctx, "unpack "+dir, func(ctx context.Context) error {
		if exists(dir) {
			return nil
		}
		return f(ctx)
	})
}

// makeFolder unpacks layers into one folder, the lowest first, and gives it its name
// when all of it is durable.
func (s *Store) makeFolder(ctx context.Context, dir string, layers []layer) error {
	tmp, err := os.MkdirTemp(s.path(tmpDir), "layer-")
	if err != nil {
		return err
	}
	defer removeTree(tmp) // By then it has its name, or is waste.
	files := filepath.Join(tmp, filesDir)
	if err := os.Mkdir(files, 0o755); err != nil {
		return err
	}
	total := int64(0)
	for _, l := range layers {
		bytes, err := s.unpackLayer(ctx, l, files)
		if err != nil {
			return fmt.Errorf("layer %s: %w", l.Diff, err)
		}
		total += bytes
	}
	if err := os.WriteFile(filepath.Join(tmp, bytesFile), strconv.AppendInt(nil, total, 10), 0o600); err != nil {
		return err
	}
	s.cfg.step("layer sync")
	if err := syncTree(tmp); err != nil {
		return fmt.Errorf("sync %s: %w", tmp, err)
	}
	s.cfg.step("layer rename")
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	s.cfg.step("layer folder")
	return vfs.OS().SyncDir(filepath.Dir(dir))
}

// syncTree makes all of the file system durable: one call, where a layer has thousands
// of files.
func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

func (s *Store) unpackLayer(ctx context.Context, l layer, dir string) (int64, error) {
	f, err := os.Open(s.blobPath(l.Blob))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w: blob %s", errMissing, l.Blob)
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	budget, err := s.budget(layerBytesMax)
	if err != nil {
		return 0, err
	}
	plain, err := decompress(&patient{ctx: ctx, from: f})
	if err != nil {
		return 0, err
	}
	defer plain.Close()
	sum := sha256.New()
	in := &bounded{from: io.TeeReader(plain, sum), left: budget}
	x, err := newExtractor(dir, !s.cfg.Rootless, budget)
	if err != nil {
		return 0, err
	}
	defer x.close()
	bytes, err := x.extract(in)
	if err == nil {
		_, err = io.Copy(io.Discard, in) // What follows the end of the tar is hashed too.
	}
	if err != nil {
		return 0, err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != l.Diff {
		return 0, fmt.Errorf("%w: the tar has the hash %s", ErrContent, got)
	}
	return bytes, nil
}

// budget is how much may be written: most, or what the disk has beyond its reserve.
func (s *Store) budget(most int64) (int64, error) {
	free, err := vfs.OS().Free(s.cfg.Dir)
	if err != nil {
		return 0, err
	}
	return max(min(most, free-freeBytesMin), 0), nil
}

// bounded is a reader that fails beyond its bound, instead of ending.
type bounded struct {
	from io.Reader
	left int64
}

func (r *bounded) Read(b []byte) (int, error) {
	n, err := r.from.Read(b)
	if r.left -= int64(n); r.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

var errTooLarge = fmt.Errorf("%w: it is larger than the limit, or than what the disk can take", ErrContent)

// patient ends with a context.
type patient struct {
	ctx  context.Context
	from io.Reader
}

func (r *patient) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.from.Read(b)
}

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// decompress tells by the first bytes how something is packed; media types lie.
func decompress(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	first, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(first, gzipMagic):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrContent, err)
		}
		return z, nil
	case bytes.HasPrefix(first, zstdMagic):
		// Concurrency 1 needs no goroutines; the window is what a hostile blob could
		// have us allocate.
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrContent, err)
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(first, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(in)), nil
	}
	return io.NopCloser(in), nil
}
