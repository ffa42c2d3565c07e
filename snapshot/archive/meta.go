package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// Meta is META.json: that there is an archive, and how to read it.
type Meta struct {
	Format  int  `json:"format"`
	Cluster UUID `json:"cluster"`
}

// History is HISTORY.json of a timeline: where it comes from.
type History struct {
	Format   int            `json:"format"`
	Cluster  UUID           `json:"cluster"`
	Timeline ident.Timeline `json:"timeline"`
	Parent   ident.Timeline `json:"parent,omitempty"`
	Fork     *Fork          `json:"fork,omitempty"` // The last position that it has of its parent.
	Reason   string         `json:"reason"`
}

// Fork is a position on a timeline.
type Fork struct {
	Index ident.Index `json:"index"`
	Group uint32      `json:"group"`
}

// Manifest is MANIFEST.json of a base: its pieces, and what they add up to.
type Manifest struct {
	Format   int            `json:"format"`
	Cluster  UUID           `json:"cluster"`
	Timeline ident.Timeline `json:"timeline"`
	// ClusterID is what peers and clients know the cluster by.
	ClusterID ident.ClusterID `json:"cluster_id,string"`
	At        Point           `json:"at"`   // The state.
	Last      ident.Index     `json:"last"` // Of its last record: At, or before it when entries changed nothing.
	Rows      uint64          `json:"rows"`
	Records   uint64          `json:"records"`
	Bytes     int64           `json:"bytes"` // Of the stream.
	SHA256    string          `json:"sha256"`
	Made      string          `json:"made"` // When, for people.
	Member    string          `json:"member"`
	Parts     []Part          `json:"parts"`
}

// Part is a piece of a base.
type Part struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset"` // In the stream.
	Bytes  int64  `json:"bytes"`  // Of the stream.
	Stored int64  `json:"stored"` // Of the object.
}

// encodeText makes a JSON object.
func encodeText(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	if b = append(b, '\n'); len(b) > textBytesMax {
		return nil, fmt.Errorf("%T of %d bytes, at most %d: %w", v, len(b), textBytesMax, ErrTooLarge)
	}
	return b, nil
}

// decodeText reads a JSON object. Its version is looked at first, so that a
// newer one is refused by number and not by a field.
func decodeText(name string, data []byte, v any) error {
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return damagef(name, 0, "it is not JSON: %v", err)
	}
	if version.Format > FormatVersion {
		return fmt.Errorf("object %s has format %d, this program reads %d: %w", name, version.Format, FormatVersion, ErrNewerFormat)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil || version.Format != FormatVersion {
		return damagef(name, 0, "format %d: %v", version.Format, err)
	}
	return nil
}

// validate checks that a manifest holds together, and belongs where it lies.
func (m *Manifest) validate(name string, at place, base baseName) error {
	if m.Cluster != at.cluster || m.Timeline != at.timeline || m.Last != base.Index || m.At.Revision != base.Revision || m.At.Index < m.Last {
		return fmt.Errorf("object %s is of cluster %s, timeline %d, entry %d, revision %d: %w", name, m.Cluster, m.Timeline, m.Last, m.At.Revision, ErrForeign)
	}
	offset := int64(0)
	for i, p := range m.Parts {
		if p.Offset != offset || p.Bytes <= 0 || p.Bytes > partBytes || p.Stored <= 0 || p.Stored > objectBytesMax || locate(timelinePath(at.timeline)+baseFolder+base.String()+"/"+p.Name).kind != ofPart {
			return damagef(name, 0, "part %d, %q, does not follow the one before", i, p.Name)
		}
		offset += p.Bytes
	}
	if offset != m.Bytes || offset == 0 {
		return damagef(name, 0, "parts have %d bytes, it says %d", offset, m.Bytes)
	}
	return nil
}

// describes compares a manifest with the header of the snapshot in its pieces. No
// hash covers it, and where nothing of the log follows it alone tells the state.
func (m *Manifest) describes(name string, h *holdfastpb.SnapshotHeader) error {
	at := Point{
		Index: ident.Index(h.Applied.GetIndex()), Group: h.Applied.GetGroup(), Term: ident.Term(h.Term), Time: h.EntryTime,
		Revision: ident.Revision(h.Revision), Compacted: ident.Revision(h.Compacted.GetRevision()), Digest: Digest(h.Digest),
	}
	if !bytes.Equal(h.Uuid, m.Cluster[:]) || h.ClusterId != uint64(m.ClusterID) || h.Timeline.GetNumber() != uint64(m.Timeline) {
		return fmt.Errorf("pieces of %s hold a snapshot of cluster %x, timeline %d: %w", name, h.Uuid, h.Timeline.GetNumber(), ErrForeign)
	}
	if at != m.At {
		return damagef(name, 0, "its pieces hold the state at %+v, it says %+v", at, m.At)
	}
	return nil
}

// putAbsent writes an object that nobody may have written with other bytes. A
// try of ours that timed out may have landed: then what is there is equal.
func putAbsent(ctx context.Context, store blobstore.Store, name string, data []byte) error {
	_, err := store.Put(ctx, name, data, blobstore.Condition{Absent: true})
	if !errors.Is(err, blobstore.ErrCondition) {
		return err
	}
	there, _, err := store.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("compare with what is there: %w", err)
	}
	if !bytes.Equal(there, data) {
		return fmt.Errorf("object %s: %w", name, blobstore.ErrCondition)
	}
	return nil
}
