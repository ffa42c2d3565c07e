package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/kube/image/imagetest"
)

// tarOf is an archive of one document, and whatever else.
func tarOf(tb testing.TB, name string, content []byte, more ...*tar.Header) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
	if err == nil {
		_, err = w.Write(content)
	}
	for _, h := range more {
		err = errors.Join(err, w.WriteHeader(h))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestAnArchiveIsRefusedByHowManyNamesAndPartsItHas(t *testing.T) {
	type image struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	docker := func(images ...image) []byte {
		b, err := json.Marshal(images)
		if err != nil {
			t.Fatal(err)
		}
		return tarOf(t, "manifest.json", b)
	}
	tags := make([]string, imageNamesMax+1)
	for i := range tags {
		tags[i] = fmt.Sprint("app:", i)
	}
	list, err := json.Marshal(manifest{SchemaVersion: 2, Manifests: make([]descriptor, archiveImagesMax+1)})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a", archiveNameBytesMax+1)
	for what, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"images":        {docker(make([]image, archiveImagesMax+1)...), "the archive has 1001 images, at most 1000"},
		"images of OCI": {tarOf(t, "index.json", list), "the archive has 1001 images, at most 1000"},
		"names":         {docker(image{Config: "c", RepoTags: tags}), `image "c" has 101 names, at most 100`},
		"layers":        {docker(image{Config: "c", Layers: make([]string, layersMax+1)}), "has 257 layers, at most 256"},
		"a file's name": {tarOf(t, "manifest.json", []byte("[]"), &tar.Header{Name: long, Typeflag: tar.TypeReg}), "a name of 4097 bytes, at most 4096"},
		"a link":        {tarOf(t, "manifest.json", []byte("[]"), &tar.Header{Name: "l", Linkname: long, Typeflag: tar.TypeSymlink}), "a name of 4097 bytes, at most 4096"},
	} {
		_, err := open(t, t.TempDir()).Import(t.Context(), bytes.NewReader(c.archive))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.300v, want %s", what, err, c.want)
		}
	}
}

// One import after the other may not give an image more names than one may.
func TestAnImageHasABoundedNumberOfNames(t *testing.T) {
	s := open(t, t.TempDir())
	importInto(t, s, imagetest.Docker(anImage("app:first", base)))
	s.mu.Lock()
	var r *record
	for _, is := range s.mu.images {
		r = is.clone()
	}
	s.mu.Unlock()
	for n := 1; n < imageNamesMax; n++ {
		r.Names = append(r.Names, fmt.Sprint("docker.io/library/app:", n))
	}
	if err := s.add(r.clone()); err != nil {
		t.Fatal(err)
	}
	r.Names = []string{"docker.io/library/app:more"}
	if err := s.add(r); !errors.Is(err, ErrName) {
		t.Errorf("%v", err)
	}
	never(t, s, "app:first")
}

func TestANameThatIsLongIsRefusedShortly(t *testing.T) {
	_, err := Parse(strings.Repeat("a.", 1<<20) + "b/c")
	if !errors.Is(err, ErrName) || len(err.Error()) > 300 {
		t.Errorf("%.400v", err)
	}
}

// FuzzImport: no document of an archive may do more than fail.
func FuzzImport(f *testing.F) {
	f.Add(true, []byte(`[{"Config":"c.json","RepoTags":["app:v1"],"Layers":["l/layer.tar"]}]`))
	f.Add(true, []byte(`[{"Config":"manifest.json","RepoTags":["`+strings.Repeat("a", 300)+`"],"Layers":["manifest.json","manifest.json"]}]`))
	f.Add(true, []byte(`[{"Layers":[`+strings.Repeat(`"",`, layersMax)+`""]}]`))
	f.Add(false, []byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:`+strings.Repeat("0", 64)+`","size":1}]}`))
	f.Add(false, []byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:x","annotations":{"io.containerd.image.name":"a/b:c"}}]}`))
	s := open(f, f.TempDir())
	f.Fuzz(func(t *testing.T, docker bool, document []byte) {
		name := map[bool]string{true: "manifest.json", false: "index.json"}[docker]
		if infos, err := s.Import(t.Context(), bytes.NewReader(tarOf(t, name, document))); err == nil {
			t.Errorf("an archive of one document has images: %+v", infos)
		}
	})
}
