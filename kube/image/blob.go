package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// scratch is a file in tmp that knows the hash of what was written to it.
type scratch struct {
	file  *os.File // Not embedded: io.Copy would find its ReadFrom, and nothing were hashed.
	sum   hash.Hash
	bytes int64
}

func (s *Store) scratch() (*scratch, error) {
	f, err := os.CreateTemp(s.path(tmpDir), "blob-")
	if err != nil {
		return nil, err
	}
	return &scratch{file: f, sum: sha256.New()}, nil
}

func (f *scratch) Write(b []byte) (int, error) {
	n, err := f.file.Write(b)
	f.sum.Write(b[:n])
	f.bytes += int64(n)
	return n, err
}

func (f *scratch) digest() string { return "sha256:" + hex.EncodeToString(f.sum.Sum(nil)) }

func (f *scratch) name() string { return f.file.Name() }

// drop closes the file and removes it if it did not get a name.
func (f *scratch) drop() {
	f.file.Close()
	os.Remove(f.name())
}

// keep gives a file the name of its hash.
func (s *Store) keep(f *scratch) error {
	s.cfg.step("blob sync")
	if err := syncFile(f.name()); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	s.cfg.step("blob rename")
	path := s.blobPath(f.digest())
	if err := os.Rename(f.file.Name(), path); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	s.cfg.step("blob folder")
	return vfs.OS().SyncDir(filepath.Dir(path))
}

// syncFile makes a file durable that may be closed already.
func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// putBlob keeps what r gives if it has the hash and the size that were promised.
func (s *Store) putBlob(digest string, bytes int64, r io.Reader) error {
	if exists(s.blobPath(digest)) {
		return nil
	}
	f, err := s.scratch()
	if err != nil {
		return err
	}
	defer f.drop()
	_, err = io.Copy(f, io.LimitReader(r, bytes+1))
	if err != nil && f.bytes < bytes {
		return fmt.Errorf("blob %s: after %d of %d bytes: %w", digest, f.bytes, bytes, err)
	}
	if f.bytes != bytes || f.digest() != digest {
		return fmt.Errorf("%w: blob %s: got %d bytes of hash %s, expected %d", ErrContent, digest, f.bytes, f.digest(), bytes)
	}
	return s.keep(f)
}

// putBytes keeps a small blob.
func (s *Store) putBytes(b []byte) (digest string, err error) {
	digest = digestOf(b)
	if exists(s.blobPath(digest)) {
		return digest, nil
	}
	f, err := s.scratch()
	if err != nil {
		return "", err
	}
	defer f.drop()
	if _, err := f.Write(b); err != nil {
		return "", err
	}
	return digest, s.keep(f)
}

// readBlob returns a small blob, compared with its hash.
func (s *Store) readBlob(digest string) ([]byte, error) {
	f, err := os.Open(s.blobPath(digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, documentBytesMax+1))
	if err != nil {
		return nil, err
	}
	if got := digestOf(b); got != digest {
		return nil, fmt.Errorf("%w: blob %s has the hash %s", ErrContent, digest, got)
	}
	return b, nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
