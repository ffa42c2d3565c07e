// Package imagetest makes images for tests: layers, and archives of them as docker and
// OCI have them.
package imagetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Image is what becomes one.
type Image struct {
	Name         string // With a tag.
	Layers       [][]byte
	Pack         func([]byte) []byte // Gzip, Zstd or nil.
	Architecture string              // Default: this machine's.
	Config       map[string]any      // Entrypoint, Env and so on.
}

// Stamp is the time of all files.
var Stamp = time.Unix(1_700_000_000, 0)

// Layer makes the tar of one.
func Layer(headers ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.PAXRecords["content"]
		if content != "" {
			h.PAXRecords = nil
			h.Size = int64(len(content))
		}
		if h.Typeflag != tar.TypeXGlobalHeader {
			h.ModTime = Stamp
			if h.Mode == 0 {
				h.Mode = 0o755
			}
		}
		must(w.WriteHeader(&h))
		_, err := io.WriteString(w, content)
		must(err)
	}
	must(w.Close())
	return b.Bytes()
}

// File is a header for Layer.
func File(name, content string) tar.Header {
	h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}
	if content != "" {
		h.PAXRecords = map[string]string{"content": content}
	}
	return h
}

// Dir is a header for Layer.
func Dir(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir} }

// Symlink is a header for Layer.
func Symlink(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}
}

// Link is a header for Layer.
func Link(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}
}

// Gzip packs.
func Gzip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	must(err)
	must(w.Close())
	return out.Bytes()
}

// Zstd packs.
func Zstd(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	must(err)
	return w.EncodeAll(b, nil)
}

// Digest is the hash as it stands in documents.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Built is an image with its documents.
type Built struct {
	Config, Manifest []byte
	Blobs            map[string][]byte // By hash, all of it.
	Packed           [][]byte
}

// Build makes the documents of an image.
func (i Image) Build() Built {
	architecture := i.Architecture
	if architecture == "" {
		architecture = runtime.GOARCH
	}
	built := Built{Blobs: map[string][]byte{}}
	var diffs []string
	var layers []map[string]any
	for _, l := range i.Layers {
		packed := l
		if i.Pack != nil {
			packed = i.Pack(l)
		}
		built.Packed = append(built.Packed, packed)
		built.Blobs[Digest(packed)] = packed
		diffs = append(diffs, Digest(l))
		layers = append(layers, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest(packed), "size": len(packed)})
	}
	built.Config = document(map[string]any{
		"os": "linux", "architecture": architecture, "config": i.Config, "rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	built.Manifest = document(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers,
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest(built.Config), "size": len(built.Config)},
	})
	built.Blobs[Digest(built.Config)] = built.Config
	built.Blobs[Digest(built.Manifest)] = built.Manifest
	return built
}

// Docker writes what 'docker save' would, in its older form.
func Docker(images ...Image) []byte {
	var list []map[string]any
	var files []tar.Header
	for n, i := range images {
		built := i.Build()
		var layers []string
		for k, packed := range built.Packed {
			name := fmt.Sprintf("%d-%d/layer.tar", n, k)
			layers = append(layers, name)
			files = append(files, File(name, string(packed)))
		}
		name := Digest(built.Config)[7:] + ".json"
		files = append(files, File(name, string(built.Config)))
		tags := []string{}
		if i.Name != "" {
			tags = append(tags, i.Name)
		}
		list = append(list, map[string]any{"Config": name, "RepoTags": tags, "Layers": layers})
	}
	return Layer(append(files, File("manifest.json", string(document(list))))...)
}

// OCI writes a folder in OCI's layout.
func OCI(images ...Image) []byte {
	var list []map[string]any
	files := []tar.Header{File("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)}
	for _, i := range images {
		built := i.Build()
		for digest, b := range built.Blobs {
			files = append(files, File("blobs/sha256/"+digest[7:], string(b)))
		}
		list = append(list, map[string]any{
			"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest(built.Manifest), "size": len(built.Manifest),
			"annotations": map[string]string{"org.opencontainers.image.ref.name": i.Name},
		})
	}
	return Layer(append(files, File("index.json", string(document(map[string]any{"schemaVersion": 2, "manifests": list}))))...)
}

func document(v any) []byte {
	b, err := json.Marshal(v)
	must(err)
	return b
}

// must is for what cannot fail in memory, or is a mistake of the test.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
