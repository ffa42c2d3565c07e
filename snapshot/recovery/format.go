package recovery

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Facts, plans and journals are documents: JSON for people, in an envelope that
// says what it is and carries a checksum of the body in its compact form, so
// that a flipped bit never decides about a cluster.
//
//	{"kind": "facts", "format": 1, "crc32c": "0123abcd", "body": {…}}
type document struct {
	Kind   string          `json:"kind"`
	Format int             `json:"format"`
	Sum    string          `json:"crc32c"`
	Body   json.RawMessage `json:"body"`
}

// FormatVersion of all documents.
const FormatVersion = 1

const (
	kindFacts   = "facts"
	kindPlan    = "plan"
	kindJournal = "journal"

	// documentBytesMax bounds what is read: a tail of a log is listed key by key.
	documentBytesMax = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(body []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) }

func encode(kind string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	text, err := json.MarshalIndent(document{Kind: kind, Format: FormatVersion, Sum: sum(body), Body: body}, "", "  ")
	return append(text, '\n'), err
}

func decode(kind string, data []byte, v any) error {
	var d document
	if err := strictly(data, &d); err != nil {
		return fmt.Errorf("%w: %w", ErrDocument, err)
	}
	if d.Format > FormatVersion {
		return fmt.Errorf("format %d, this program reads up to %d: %w", d.Format, FormatVersion, ErrNewerFormat)
	}
	if d.Kind != kind {
		return fmt.Errorf("%w: it holds %q, wanted are %q", ErrDocument, d.Kind, kind)
	}
	var body bytes.Buffer
	if err := json.Compact(&body, d.Body); err != nil {
		return fmt.Errorf("%w: %w", ErrDocument, err)
	}
	if got := sum(body.Bytes()); got != d.Sum {
		return fmt.Errorf("%w: its checksum is %s, it says %s: it was changed", ErrDocument, got, d.Sum)
	}
	if err := strictly(body.Bytes(), v); err != nil {
		return fmt.Errorf("%w: %w", ErrDocument, err)
	}
	return nil
}

// strictly decodes one JSON value that has nothing unknown in it.
func strictly(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("more follows after its end")
	}
	return nil
}

func readDocument(fsys vfs.FS, path, kind string, v any) error {
	info, err := fsys.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir || info.Size > documentBytesMax {
		return fmt.Errorf("%s: %w", path, ErrDocument)
	}
	data, err := vfs.ReadFile(fsys, path)
	if err != nil {
		return err
	}
	if err := decode(kind, data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// EncodeFacts is the text of a file of facts.
func EncodeFacts(f *Facts) ([]byte, error) { return encode(kindFacts, f) }

// DecodeFacts reads it.
func DecodeFacts(data []byte) (*Facts, error) {
	f := &Facts{}
	return f, decode(kindFacts, data, f)
}

// ReadFacts reads a file of facts.
func ReadFacts(fsys vfs.FS, path string) (*Facts, error) {
	f := &Facts{}
	return f, readDocument(fsys, path, kindFacts, f)
}

// EncodePlan is the text of a file with a plan.
func EncodePlan(p *Plan) ([]byte, error) { return encode(kindPlan, p) }

// DecodePlan reads it.
func DecodePlan(data []byte) (*Plan, error) {
	p := &Plan{}
	return p, decode(kindPlan, data, p)
}

// ReadPlan reads a file with a plan.
func ReadPlan(fsys vfs.FS, path string) (*Plan, error) {
	p := &Plan{}
	return p, readDocument(fsys, path, kindPlan, p)
}
