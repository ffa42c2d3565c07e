package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// Import reads an archive: what 'docker save' and 'podman save' write, or a folder in
// OCI's layout as a tar; packed with gzip or zstd or not at all. All images for this
// kind of machine that have a name become known under it.
func (s *Store) Import(ctx context.Context, r io.Reader) ([]Info, error) {
	records, err := s.importAll(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("import of images: %w", err)
	}
	var infos []Info
	for _, r := range records {
		infos = append(infos, s.info(r))
	}
	return infos, nil
}

func (s *Store) importAll(ctx context.Context, r io.Reader) ([]*record, error) {
	budget, err := s.budget(archiveBytesMax)
	if err != nil {
		return nil, err
	}
	plain, err := decompress(&patient{ctx: ctx, from: r})
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	a := &archive{store: s, files: map[string]*scratch{}, alias: map[string]string{}}
	defer a.drop()
	if err := a.read(&bounded{from: plain, left: budget}); err != nil {
		return nil, err
	}
	var found []*record
	switch {
	case a.open("manifest.json") != nil:
		found, err = a.docker()
	case a.open("index.json") != nil:
		found, err = a.oci()
	default:
		err = fmt.Errorf("%w: the archive has neither manifest.json nor index.json: it is none of 'docker save', and no layout of OCI", ErrContent)
	}
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: the archive has no image", ErrContent)
	}
	for _, r := range found {
		if len(r.Names)+len(r.Pins) == 0 {
			return nil, fmt.Errorf("%w: image %s of the archive has no name: save it by a name and a tag", ErrName, r.Config)
		}
	}
	return found, a.keep(ctx, found)
}

// archive is one that is being imported, with each of its files in tmp: what says
// what they are may come last.
type archive struct {
	store *Store
	files map[string]*scratch
	alias map[string]string // Links, which older archives have for layers that images share.
	blobs []*scratch        // What was made from files.
}

func (a *archive) drop() {
	for _, f := range a.files {
		f.drop()
	}
	for _, f := range a.blobs {
		f.drop()
	}
}

func (a *archive) read(r io.Reader) error {
	in := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return corrupt(err)
		}
		if n >= archiveEntriesMax {
			return fmt.Errorf("%w: the archive has more than %d files", ErrContent, archiveEntriesMax)
		}
		if max(len(h.Name), len(h.Linkname)) > archiveNameBytesMax {
			return fmt.Errorf("%w: the archive has a file of a name of %d bytes, at most %d", ErrContent, max(len(h.Name), len(h.Linkname)), archiveNameBytesMax)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			f, err := a.store.scratch()
			if err != nil {
				return err
			}
			if old := a.files[name]; old != nil {
				old.drop()
			}
			a.files[name] = f
			if _, err := io.Copy(f, in); err != nil {
				return corrupt(err)
			}
			if err := f.file.Close(); err != nil { // An archive may have more files than a process.
				return err
			}
		case tar.TypeSymlink:
			a.alias[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			a.alias[name] = path.Clean(h.Linkname)
		}
	}
}

// open finds a file by the name that a document has for it. It is a name in the
// archive, never a path of the machine.
func (a *archive) open(name string) *scratch {
	name = path.Clean(name)
	if target, ok := a.alias[name]; ok && a.files[name] == nil {
		name = target
	}
	return a.files[name]
}

func (f *scratch) content() ([]byte, error) {
	if f.bytes > documentBytesMax {
		return nil, fmt.Errorf("%w: a document of %d bytes", ErrContent, f.bytes)
	}
	return os.ReadFile(f.name())
}

func (a *archive) document(name string, into any) error {
	f := a.open(name)
	if f == nil {
		return fmt.Errorf("%w: the archive lacks %s", ErrContent, name)
	}
	b, err := f.content()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: %s: %v", ErrContent, name, err)
	}
	return nil
}

// docker reads what manifest.json says. Such archives have no manifests: ours names
// the layers as they are.
func (a *archive) docker() ([]*record, error) {
	var images []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := a.document("manifest.json", &images); err != nil {
		return nil, err
	}
	if len(images) > archiveImagesMax {
		return nil, tooMany(len(images))
	}
	var found []*record
	for _, image := range images {
		if len(image.RepoTags) > imageNamesMax {
			return nil, manyNames(image.Config, len(image.RepoTags))
		}
		if len(image.Layers) > layersMax {
			return nil, fmt.Errorf("%w: image %.100q of the archive has %d layers, at most %d fit in one mount", ErrContent, image.Config, len(image.Layers), layersMax)
		}
		m := &manifest{SchemaVersion: 2, MediaType: ociManifest}
		f := a.open(image.Config)
		if f == nil {
			return nil, fmt.Errorf("%w: the archive lacks the configuration %.200q", ErrContent, image.Config)
		}
		configBytes, err := f.content()
		if err != nil {
			return nil, err
		}
		m.Config = &descriptor{MediaType: ociConfig, Digest: f.digest(), Size: f.bytes}
		for _, name := range image.Layers {
			l := a.open(name)
			if l == nil {
				return nil, fmt.Errorf("%w: the archive lacks the layer %.200q", ErrContent, name)
			}
			packing, err := l.packing()
			if err != nil {
				return nil, err
			}
			m.Layers = append(m.Layers, descriptor{MediaType: ociLayer + packing, Digest: l.digest(), Size: l.bytes})
		}
		r, err := a.record(m, configBytes)
		if err != nil {
			return nil, err
		}
		for _, tag := range image.RepoTags {
			ref, err := Parse(tag)
			if err != nil {
				return nil, err
			}
			r.Names = union(r.Names, []string{ref.String()})
		}
		found = append(found, r)
	}
	return found, nil
}

// packing ends the media type of a layer.
func (f *scratch) packing() (string, error) {
	file, err := os.Open(f.name())
	if err != nil {
		return "", err
	}
	defer file.Close()
	first := make([]byte, 4)
	if _, err := io.ReadFull(file, first); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", err
	}
	switch {
	case bytes.HasPrefix(first, gzipMagic):
		return "+gzip", nil
	case bytes.HasPrefix(first, zstdMagic):
		return "+zstd", nil
	}
	return "", nil
}

// record writes the manifest that a docker archive lacks.
func (a *archive) record(m *manifest, configBytes []byte) (*record, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	f, err := a.store.scratch()
	if err != nil {
		return nil, err
	}
	a.blobs = append(a.blobs, f)
	if _, err := f.Write(b); err != nil {
		return nil, err
	}
	return recordOf(f.digest(), m, configBytes)
}

// oci reads a layout: index.json, and blobs under their hashes.
func (a *archive) oci() ([]*record, error) {
	var top manifest
	if err := a.document("index.json", &top); err != nil {
		return nil, err
	}
	if len(top.Manifests) > archiveImagesMax {
		return nil, tooMany(len(top.Manifests))
	}
	byManifest := map[string]*record{}
	var wrong error
	for _, d := range top.Manifests {
		if d.Platform != nil && !d.Platform.fits() {
			wrong = fmt.Errorf("%w: the archive has it for %s", ErrPlatform, d.Platform)
			continue
		}
		r, err := a.descend(d, 0)
		if err != nil {
			return nil, err
		}
		if old := byManifest[r.Manifest]; old != nil {
			r = old
		}
		byManifest[r.Manifest] = r
		ref, err := Parse(nameOf(d))
		if err != nil {
			continue // A tag without a repository, or nothing.
		}
		if r.Names = union(r.Names, []string{ref.String()}); ref.Digest == "" {
			r.Pins = union(r.Pins, []string{ref.Name() + "@" + d.Digest})
		}
		if len(r.Names) > imageNamesMax {
			return nil, manyNames(r.Manifest, len(r.Names))
		}
	}
	if len(byManifest) == 0 {
		return nil, wrong
	}
	return slices.Collect(maps.Values(byManifest)), nil
}

func tooMany(images int) error {
	return fmt.Errorf("%w: the archive has %d images, at most %d: save them in parts", ErrContent, images, archiveImagesMax)
}

func manyNames(image string, names int) error {
	return fmt.Errorf("%w: image %.100q has %d names, at most %d", ErrName, image, names, imageNamesMax)
}

// nameOf is what docker, containerd and podman call an image of a layout.
func nameOf(d descriptor) string {
	if name := d.Annotations["io.containerd.image.name"]; name != "" {
		return name
	}
	name := d.Annotations["org.opencontainers.image.ref.name"]
	if !strings.ContainsAny(name, ":/") {
		return "" // By the specification this is a tag, of a repository that is not told.
	}
	return name
}

// descend goes from a list to what runs here.
func (a *archive) descend(d descriptor, depth int) (*record, error) {
	if !digestForm.MatchString(d.Digest) || depth > 3 {
		return nil, fmt.Errorf("%w: %.100q is no manifest", ErrContent, d.Digest)
	}
	f, err := a.blob(d)
	if err != nil {
		return nil, err
	}
	b, err := f.content()
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(b)
	if err != nil {
		return nil, err
	}
	if m.isList() {
		chosen, err := m.choose()
		if err != nil {
			return nil, err
		}
		return a.descend(chosen, depth+1)
	}
	for _, l := range m.Layers {
		if _, err := a.blob(l); err != nil {
			return nil, err
		}
	}
	configFile, err := a.blob(*m.Config)
	if err != nil {
		return nil, err
	}
	configBytes, err := configFile.content()
	if err != nil {
		return nil, err
	}
	return recordOf(d.Digest, m, configBytes)
}

// blob finds a file of a layout, and compares it with its name.
func (a *archive) blob(d descriptor) (*scratch, error) {
	f := a.open(path.Join(blobsDir, digits(d.Digest)))
	if f == nil {
		return nil, fmt.Errorf("%w: the archive lacks blob %s", ErrContent, d.Digest)
	}
	if f.digest() != d.Digest || f.bytes != d.Size {
		return nil, fmt.Errorf("%w: blob %s of the archive has %d bytes of hash %s, expected %d", ErrContent, d.Digest, f.bytes, f.digest(), d.Size)
	}
	return f, nil
}

// keep makes everything durable, then known. Layers are unpacked at once: what does
// not unpack is the archive's fault, and whoever imports it should hear of it. Only
// where an engine fetches them from Handler they are its affair.
func (a *archive) keep(ctx context.Context, found []*record) error {
	byDigest := map[string]*scratch{}
	for _, f := range a.files {
		byDigest[f.digest()] = f
	}
	for _, f := range a.blobs {
		byDigest[f.digest()] = f
	}
	for _, r := range found {
		if err := a.keepOne(ctx, r, byDigest); err != nil {
			return err
		}
	}
	return a.store.sweep()
}

func (a *archive) keepOne(ctx context.Context, r *record, byDigest map[string]*scratch) error {
	s := a.store
	digests := r.digests()
	defer s.pin(digests...)()
	for _, digest := range digests {
		f := byDigest[digest]
		if f == nil || exists(s.blobPath(digest)) {
			continue // The hash of an unpacked layer, or here already.
		}
		if err := s.keep(f); err != nil {
			return err
		}
	}
	if !s.cfg.KeepBlobs {
		if _, err := s.unpack(ctx, r); err != nil {
			return err
		}
	}
	r.Imported = true
	if err := s.add(r); err != nil {
		return err
	}
	s.log.Info("image imported", "names", r.Names, "id", r.Config)
	return nil
}

// digests are all hashes that belong to an image.
func (r *record) digests() []string {
	all := []string{r.Manifest, r.Config}
	for _, l := range r.Layers {
		all = append(all, l.Blob, l.Diff)
	}
	return all
}
