package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What stands in the folder of a Store. docs/format/images.md.
//
//	index.json           which images there are
//	lock                 held by the process that has the store open
//	blobs/sha256/HEX     manifests, configurations and packed layers, by their hash
//	layers/HEX/fs        a layer unpacked for overlayfs, by the hash of its tar
//	layers/HEX/bytes     its size, for lists
//	roots/HEX/…          the same for all layers of an image, by the hash of its manifest
//	builtin/NAME-HEX     the folder of an image that this program brings along
//	tmp/…                what is being made or removed
const (
	formatVersion = 1

	indexFile   = "index.json"
	lockFile    = "lock"
	blobsDir    = "blobs/sha256"
	layersDir   = "layers"
	rootsDir    = "roots"
	builtinsDir = "builtin"
	tmpDir      = "tmp"
	filesDir    = "fs"
	bytesFile   = "bytes"
)

type document struct {
	Version int       `json:"version"`
	Images  []*record `json:"images"`
}

// record is an image of the index.
type record struct {
	Manifest string   `json:"manifest"`           // Its hash; what the image is known by.
	Config   string   `json:"config"`             // The image's ID.
	Names    []string `json:"names,omitempty"`    // Full, with a tag: docker.io/library/nginx:latest.
	Pins     []string `json:"pins,omitempty"`     // Full, with a hash: of the manifest, or of a list that led to it.
	Layers   []layer  `json:"layers"`             // The lowest first.
	Imported bool     `json:"imported,omitempty"` // From an archive: no registry is known to have it.

	Added time.Time `json:"added"`
	Used  time.Time `json:"used"` // As of the last time that the index was written.
}

// layer is one of an image: packed as a blob, and unpacked.
type layer struct {
	Blob  string `json:"blob"`
	Diff  string `json:"diff"`  // Hash of the tar in it.
	Bytes int64  `json:"bytes"` // Of the blob.
}

func encodeIndex(images map[string]*record) ([]byte, error) {
	d := document{Version: formatVersion, Images: []*record{}}
	for _, r := range images {
		d.Images = append(d.Images, r)
	}
	slices.SortFunc(d.Images, func(a, b *record) int { return strings.Compare(a.Manifest, b.Manifest) })
	b, err := json.MarshalIndent(d, "", "  ")
	return append(b, '\n'), err
}

// decodeIndex takes nothing on trust: hashes become paths.
func decodeIndex(b []byte) (map[string]*record, error) {
	var version struct{ Version int }
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("index of images: %w", err)
	}
	if version.Version != formatVersion {
		return nil, fmt.Errorf("%w: index has version %d, this program writes %d: use the program that wrote it, or empty the folder, and images are fetched again", ErrFormat, version.Version, formatVersion)
	}
	var d document
	in := json.NewDecoder(bytes.NewReader(b))
	in.DisallowUnknownFields()
	if err := in.Decode(&d); err != nil {
		return nil, fmt.Errorf("index of images: %w", err)
	}
	images := map[string]*record{}
	for i, r := range d.Images {
		if r == nil || !r.valid() || images[r.Manifest] != nil {
			return nil, fmt.Errorf("index of images: image %d has no valid hashes or is there twice", i)
		}
		images[r.Manifest] = r
	}
	return images, nil
}

func (r *record) valid() bool {
	ok := digestForm.MatchString(r.Manifest) && digestForm.MatchString(r.Config) && len(r.Layers) <= layersMax
	for _, l := range r.Layers {
		ok = ok && digestForm.MatchString(l.Blob) && digestForm.MatchString(l.Diff) && l.Bytes >= 0
	}
	return ok
}

func (r *record) clone() *record {
	c := *r
	c.Names, c.Pins, c.Layers = slices.Clone(r.Names), slices.Clone(r.Pins), slices.Clone(r.Layers)
	return &c
}

func digits(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, parts...)...)
}

func (s *Store) blobPath(digest string) string   { return s.path(blobsDir, digits(digest)) }
func (s *Store) layerPath(diff string) string    { return s.path(layersDir, digits(diff)) }
func (s *Store) rootPath(manifest string) string { return s.path(rootsDir, digits(manifest)) }
