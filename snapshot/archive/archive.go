// Package archive keeps a cluster's past in an object store, so that any
// position of it can be restored.
//
// A base is a whole snapshot in pieces; log segments are the records of history
// since, shipped as they are committed. All objects are immutable, describe
// themselves, and are named by position: a list alone is the catalogue
// (docs/format/archive.md). The server runs a Writer beside each member, of
// which one, the owner, ships; holdfastctl lists, verifies, prunes and restores.
//
// What is always true:
//   - the name of a segment ends with the rolling digest after its last record,
//     which covers everything before it: equal names are equal pasts, and two
//     that end at one index with two digests contradict each other in the list;
//   - what has several objects counts from when its manifest is there;
//   - a restore takes no byte that was not verified, and installs nothing unless
//     the digest at the end is the one that the names promised.
//
// A crash of a writer leaves whole objects, perhaps pieces of a base without a
// manifest, which nothing names and `backup prune` removes. A crash of a restore
// leaves a scratch file.
package archive

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// FormatVersion of the objects written here.
const FormatVersion = 1

// Digest is the rolling digest of history, in hexadecimal where it is text.
type Digest ident.Digest

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(d) {
		return fmt.Errorf("digest %q is not %d bytes in hexadecimal", text, len(d))
	}
	copy(d[:], b)
	return nil
}

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Point is a position in a history and what is known of the state there.
type Point struct {
	Index     ident.Index    `json:"index"`
	Group     uint32         `json:"group"`
	Term      ident.Term     `json:"term"`
	Time      int64          `json:"time"` // Of the entry, nanoseconds since 1970.
	Revision  ident.Revision `json:"revision"`
	Compacted ident.Revision `json:"compacted"`
	Digest    Digest         `json:"digest"`
}

// Position of the point.
func (p Point) Position() ident.Position { return ident.Position{Index: p.Index, Group: p.Group} }

// Wall is the time of the entry.
func (p Point) Wall() time.Time { return time.Unix(0, p.Time).UTC() }

func (p Point) String() string {
	return fmt.Sprintf("position %s, revision %d, %s", p.Position(), p.Revision, p.Wall().Format(time.RFC3339Nano))
}
