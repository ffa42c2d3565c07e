package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/archive"
)

// keyStream gives the keys of some point in the life of a cluster by rising
// key, nil after the last.
type keyStream interface {
	next(ctx context.Context) (*mvccpb.KeyValue, error)
	close() error
}

const (
	livePoint    = "live"
	archivePoint = "at:" // Before a target within the archive.
)

// origin yields a snapshot file of some moment. It may make the file in scratch.
type origin func(ctx context.Context, scratch string) (file string, err error)

// fileOrigin is a file that is there already.
func fileOrigin(path string) origin {
	return func(context.Context, string) (string, error) { return path, nil }
}

// pointOrigin is a point in time out of an archive.
func pointOrigin(f *archiveFlags, at string) origin {
	return func(ctx context.Context, scratch string) (string, error) {
		target, err := archive.ParseTarget(at)
		if err != nil {
			return "", exit(exitArguments, err)
		}
		a, store, err := f.open(ctx)
		if err != nil {
			return "", err
		}
		defer store.Close()
		plan, err := a.Plan(ctx, ident.Timeline(f.timeline), target)
		if err != nil {
			return "", err
		}
		file := filepath.Join(scratch, "point.snap")
		_, err = a.RestoreFile(ctx, vfs.OS(), file, plan)
		return file, err
	}
}

// isLive reports whether a word names running members rather than a file.
func isLive(word string) bool { return word == livePoint || strings.Contains(word, "://") }

// fileKeys are those of a snapshot file.
type fileKeys struct {
	keys    *snapshot.Keys
	prefix  []byte
	scratch string
}

func openFileKeys(ctx context.Context, from origin, prefix string) (*fileKeys, error) {
	scratch, err := os.MkdirTemp("", "holdfastctl-")
	if err != nil {
		return nil, err
	}
	file, err := from(ctx, scratch)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(scratch))
	}
	k, err := snapshot.OpenKeys(ctx, vfs.OS(), file, scratch)
	if errors.Is(err, snapshot.ErrNotSnapshot) {
		err = fmt.Errorf("%w; if it is etcd's, 'snapshot import' makes one of it", err)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(scratch))
	}
	return &fileKeys{keys: k, prefix: []byte(prefix), scratch: scratch}, nil
}

func (f *fileKeys) next(context.Context) (*mvccpb.KeyValue, error) {
	for {
		key, row, err := f.keys.Next()
		if err != nil || key == nil {
			return nil, err
		}
		if !bytes.HasPrefix(key, f.prefix) {
			if bytes.Compare(key, f.prefix) > 0 {
				return nil, nil
			}
			continue
		}
		kv := &mvccpb.KeyValue{}
		return kv, kv.UnmarshalVT(row)
	}
}

func (f *fileKeys) close() error { return errors.Join(f.keys.Close(), os.RemoveAll(f.scratch)) }

// liveKeys are those of a running cluster at one revision, fetched in pages.
type liveKeys struct {
	client   *client.Client
	wanted   client.Range // What is left of it.
	revision int64        // 0: that of the first answer.
	limit    int64
	page     []*mvccpb.KeyValue
	more     bool
}

const (
	pageKeysFirst = 100
	pageKeysMax   = 2000
	pageBytesWant = 4 << 20 // A page of more makes the next one shorter.
)

func (c *ctl) openLiveKeys(word, prefix string, revision int64) (*liveKeys, error) {
	endpoints := c.globals.endpoints
	if word != livePoint {
		endpoints = strings.Split(word, ",")
	}
	cl, err := c.clientTo(endpoints)
	if err != nil {
		return nil, err
	}
	return &liveKeys{client: cl, wanted: client.Prefix(prefix), revision: revision, limit: pageKeysFirst, more: true}, nil
}

func (l *liveKeys) next(ctx context.Context) (*mvccpb.KeyValue, error) {
	if len(l.page) == 0 && l.more {
		if err := l.fetch(ctx); err != nil {
			return nil, err
		}
	}
	if len(l.page) == 0 {
		return nil, nil
	}
	kv := l.page[0]
	l.page = l.page[1:]
	return kv, nil
}

func (l *liveKeys) fetch(ctx context.Context) error {
	r, err := l.client.Get(ctx, client.Get{Range: l.wanted, Limit: l.limit, Revision: l.revision})
	if err != nil {
		return err
	}
	if l.revision == 0 {
		l.revision = r.GetHeader().GetRevision()
	}
	l.page, l.more = r.Kvs, r.More && len(r.Kvs) > 0
	if len(r.Kvs) > 0 {
		l.wanted.Key = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
	if r.SizeVT() > pageBytesWant {
		l.limit = max(1, l.limit/2)
	} else {
		l.limit = min(pageKeysMax, 2*l.limit)
	}
	return nil
}

func (l *liveKeys) close() error { return l.client.Close() }
