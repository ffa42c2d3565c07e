package history

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// WriteIndex puts the key index of a sealed segment beside it, durably. One
// that is there already is replaced.
func (l *Log) WriteIndex(id uint64, t *KeyTable) error {
	l.dropping.Lock()
	defer l.dropping.Unlock()
	s, end, err := l.sealedSegment(id)
	if err != nil {
		return fmt.Errorf("write key index: %w", err)
	}
	if t.segment != id {
		return fmt.Errorf("write key index of segment %d: the table is that of %d: %w", id, t.segment, ErrInvalid)
	}
	header := indexHeader{segment: id, end: end.Offset, digest: end.Digest, length: uint64(len(t.data))}
	name := filepath.Join(l.cfg.Dir, IndexName(id))
	if err := writeIndexFile(l.cfg.FS, name, header.append(nil), t.data); err != nil {
		return fmt.Errorf("write key index of segment %d: %w", id, err)
	}
	bytes := int64(indexHeaderBytes + len(t.data))
	l.bytes.Add(bytes - s.indexBytes.Swap(bytes))
	return nil
}

func writeIndexFile(fsys vfs.FS, name string, header, table []byte) error {
	scratch := name + scratchSuffix
	if err := removeFile(fsys, scratch); err != nil {
		return err
	}
	f, err := fsys.Create(scratch)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(header, 0)
	if err == nil {
		_, err = f.WriteAt(table, int64(len(header)))
	}
	if err == nil {
		err = f.SyncData()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(scratch, name); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// ReadIndex reads the key index of a sealed segment. Whatever is wrong with it,
// RebuildIndex makes another.
func (l *Log) ReadIndex(id uint64) (*KeyTable, error) {
	_, end, err := l.sealedSegment(id)
	if err != nil {
		return nil, fmt.Errorf("read key index: %w", err)
	}
	name := filepath.Join(l.cfg.Dir, IndexName(id))
	data, err := vfs.ReadFile(l.cfg.FS, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("segment %d: %w", id, ErrNoIndex)
	}
	if err != nil {
		return nil, fmt.Errorf("read key index of segment %d: %w", id, err)
	}
	return decodeIndex(name, data, end)
}

// decodeIndex reads a key index file, which must be that of the segment that
// has this end.
func decodeIndex(name string, data []byte, end Mark) (*KeyTable, error) {
	h, err := decodeIndexHeader(data)
	if errors.Is(err, ErrVersion) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err != nil {
		return nil, damagef(name, 0, "%v", err)
	}
	want := indexHeader{segment: end.Segment, end: end.Offset, digest: end.Digest, length: uint64(len(data) - indexHeaderBytes)}
	if h != want {
		return nil, damagef(name, 0, "made for segment %d that ends at %d, digest %v, with %d bytes; here ends %v, %d bytes",
			h.segment, h.end, h.digest, h.length, end, want.length)
	}
	t, err := decodeKeyTable(data[indexHeaderBytes:])
	if err != nil {
		return nil, damagef(name, indexHeaderBytes, "%v", err)
	}
	if t.segment != h.segment {
		return nil, damagef(name, indexHeaderBytes, "the table is that of segment %d", t.segment)
	}
	return t, nil
}

// RebuildIndex makes the key table of a segment from its records. It does not
// write it.
func (l *Log) RebuildIndex(id uint64) (*KeyTable, error) {
	r, err := l.ScanSegment(id)
	if err != nil {
		return nil, fmt.Errorf("rebuild key index: %w", err)
	}
	defer r.Close()
	changes, err := collectChanges(r)
	if err != nil {
		return nil, fmt.Errorf("rebuild key index of segment %d: %w", id, err)
	}
	// Stable: versions stay in the order in which they were made.
	slices.SortStableFunc(changes, func(a, b keyChange) int {
		return cmp.Or(bytes.Compare(a.key, b.key), cmp.Compare(a.version.Mod, b.version.Mod))
	})
	b := NewKeyTableBuilder(id)
	var versions []Version
	for i, c := range changes {
		versions = append(versions, c.version)
		if i+1 < len(changes) && bytes.Equal(changes[i+1].key, c.key) {
			continue
		}
		if err := b.Add(c.key, versions); err != nil {
			return nil, fmt.Errorf("rebuild key index of segment %d: %w", id, err)
		}
		versions = versions[:0]
	}
	return b.Finish(), nil
}

type keyChange struct {
	key     []byte
	version Version
}

func collectChanges(r *Reader) ([]keyChange, error) {
	var changes []keyChange
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return changes, nil
		}
		if err != nil {
			return nil, err
		}
		for _, g := range rec.Groups {
			for i := range g.Mutations {
				m := &g.Mutations[i]
				switch m.Kind {
				case KeyPut:
					v, err := rowVersion(m.Value)
					if err != nil {
						return nil, fmt.Errorf("entry %d, group %d: %w", rec.Index, g.Ordinal, err)
					}
					v.Loc = m.Loc
					changes = append(changes, keyChange{m.Key, v})
				case KeyDelete:
					changes = append(changes, keyChange{m.Key, Version{Mod: g.Revision, Tombstone: true}})
				}
			}
		}
	}
}

// rowVersion reads the numbers of a row in wire form.
func rowVersion(value []byte) (Version, error) {
	const (
		createRevision protowire.Number = 2
		modRevision    protowire.Number = 3
		version        protowire.Number = 4
		lease          protowire.Number = 6
	)
	var v Version
	for len(value) > 0 {
		field, kind, n := protowire.ConsumeTag(value)
		if n < 0 {
			return v, malformed("row: %v", protowire.ParseError(n))
		}
		value = value[n:]
		var number uint64
		if kind == protowire.VarintType {
			number, n = protowire.ConsumeVarint(value)
		} else {
			n = protowire.ConsumeFieldValue(field, kind, value)
		}
		if n < 0 {
			return v, malformed("row: %v", protowire.ParseError(n))
		}
		value = value[n:]
		switch field {
		case createRevision:
			v.Create = ident.Revision(number)
		case modRevision:
			v.Mod = ident.Revision(number)
		case version:
			v.Version = int64(number)
		case lease:
			v.Lease = ident.LeaseID(number)
		}
	}
	return v, nil
}
