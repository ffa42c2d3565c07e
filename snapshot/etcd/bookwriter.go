package etcd

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"go.etcd.io/bbolt"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// bookWriter fills a bbolt file in transactions of bounded size. Nothing is
// synced: the file is scratch until it was read back.
type bookWriter struct {
	db    *bbolt.DB
	tx    *bbolt.Tx
	rows  int
	bytes int
}

// fillOfKeys is how full pages of rising keys are made; etcd does the same.
const fillOfKeys = 0.9

func newBookWriter(path string) (*bookWriter, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoGrowSync: true, PageSize: pageBytes, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	w := &bookWriter{db: db}
	if err := w.begin(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	for _, name := range []string{
		bucketKey, bucketMeta, bucketLease, bucketAlarm, bucketCluster, bucketMembers, bucketMembersRemoved, bucketAuth, bucketUsers, bucketRoles,
	} { // All of them: old versions do not look whether a bucket is there.
		if _, err := w.tx.CreateBucket([]byte(name)); err != nil {
			return nil, errors.Join(fmt.Errorf("create bucket %s: %w", name, err), w.close())
		}
	}
	return w, nil
}

func (w *bookWriter) begin() (err error) {
	w.rows, w.bytes = 0, 0
	if w.tx, err = w.db.Begin(true); err != nil {
		return fmt.Errorf("write database: %w", err)
	}
	return nil
}

// put adds a row. Key and value must stay as they are until the next.
func (w *bookWriter) put(bucket string, key, value []byte) error {
	if w.rows >= exportRows || w.bytes > exportBytes {
		err := w.tx.Commit()
		w.tx = nil
		if err == nil {
			err = w.begin()
		}
		if err != nil {
			return fmt.Errorf("write database: %w", err)
		}
	}
	b := w.tx.Bucket([]byte(bucket))
	b.FillPercent = fillOfKeys
	w.rows++
	w.bytes += len(key) + len(value)
	if err := b.Put(key, value); err != nil {
		return fmt.Errorf("write bucket %s: %w", bucket, err)
	}
	return nil
}

func (w *bookWriter) close() error {
	var err error
	if w.tx != nil {
		err = w.tx.Commit()
		w.tx = nil
	}
	return errors.Join(err, w.db.Close())
}

// sealInto copies the pages of a database that are in use to a file of ours,
// with their SHA-256 behind them, and syncs it.
func sealInto(fsys vfs.FS, database, to string) (size int64, err error) {
	from, err := fsys.Open(database)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	length, err := from.Size()
	if err != nil {
		return 0, err
	}
	b, err := openBook(from, database, length)
	if err != nil {
		return 0, err
	}
	out, err := fsys.Create(to)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	sha := sha256.New()
	block := make([]byte, hashBlockBytes)
	end := int64(b.pages) * b.pageSize
	for at := int64(0); at < end; at += hashBlockBytes {
		part := block[:min(hashBlockBytes, end-at)]
		if _, err := from.ReadAt(part, at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		sha.Write(part)
		if _, err := out.WriteAt(part, at); err != nil {
			return 0, err
		}
	}
	if _, err := out.WriteAt(sha.Sum(nil), end); err != nil {
		return 0, err
	}
	return end + hashBytes, out.SyncData()
}
