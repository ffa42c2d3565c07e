package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Handler is a registry that can only be read, with the images of the store that have
// their packed layers (Config.KeepBlobs) and builtin/demo, so that an engine that
// fetches images itself can have what was imported. It asks for no login: it is for
// listeners on loopback. What to pull: ServedAs; and as the mirror of any registry,
// which containerd names in the parameter ns.
func (s *Store) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/{path...}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		path := r.PathValue("path")
		if path == "" {
			w.WriteHeader(http.StatusOK)
			return
		}
		repository, kind, what, ok := splitPath(path)
		if ns := r.URL.Query().Get("ns"); ns != "" {
			repository = served(ns) + "/" + repository
		}
		if repository == Demo {
			repository = served(demoName.Name())
		}
		switch {
		case ok && kind == "manifests":
			s.serveManifest(w, r, repository, what)
		case ok && kind == "blobs":
			s.serveBlob(w, r, repository, what)
		case ok && kind == "tags":
			s.serveTags(w, repository)
		default:
			refuse(w, http.StatusNotFound, "UNSUPPORTED", "no such path")
		}
	})
	return mux
}

// splitPath takes NAME/KIND/WHAT apart; NAME has slashes.
func splitPath(path string) (repository, kind, what string, ok bool) {
	parts := strings.Split(path, "/")
	n := len(parts)
	if n < 3 {
		return "", "", "", false
	}
	return strings.Join(parts[:n-2], "/"), parts[n-2], parts[n-1], true
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

// inRepository finds the images that a repository has.
func (s *Store) inRepository(repository string) []*record {
	if repository == served(demoName.Name()) {
		if err := s.packDemo(); err != nil {
			s.log.Warn("the built-in image cannot be packed", "image", Demo, "error", err)
		}
	}
	var found []*record
	for _, r := range s.snapshot() {
		is := func(name string) bool {
			ref, err := Parse(name)
			return err == nil && served(ref.Name()) == repository
		}
		if slices.ContainsFunc(r.Names, is) || slices.ContainsFunc(r.Pins, is) {
			found = append(found, r)
		}
	}
	return found
}

func (s *Store) serveManifest(w http.ResponseWriter, r *http.Request, repository, what string) {
	for _, image := range s.inRepository(repository) {
		if image.Manifest != what && !slices.ContainsFunc(slices.Concat(image.Names, image.Pins), func(name string) bool {
			ref, err := Parse(name)
			return err == nil && served(ref.Name()) == repository && (ref.Tag == what || ref.Digest == image.Manifest && what == image.Manifest)
		}) {
			continue
		}
		b, err := s.readBlob(image.Manifest)
		if err != nil {
			refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
			return
		}
		m, err := parseManifest(b)
		if err != nil {
			refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
			return
		}
		s.touch(image.Manifest)
		w.Header().Set("Content-Type", m.mediaType())
		w.Header().Set("Docker-Content-Digest", image.Manifest)
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		if r.Method != http.MethodHead {
			w.Write(b)
		}
		return
	}
	refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "no image "+repository+" "+what+" on this node")
}

// serveBlob gives only what belongs to an image of the repository.
func (s *Store) serveBlob(w http.ResponseWriter, r *http.Request, repository, digest string) {
	known := digestForm.MatchString(digest) && slices.ContainsFunc(s.inRepository(repository), func(image *record) bool {
		return slices.Contains(image.digests(), digest)
	})
	var f *os.File
	err := fs.ErrNotExist
	if known {
		f, err = os.Open(s.blobPath(digest))
	}
	if errors.Is(err, fs.ErrNotExist) {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "no such blob on this node")
		return
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, r, "", time.Time{}, f)
}

func (s *Store) serveTags(w http.ResponseWriter, repository string) {
	tags := []string{}
	for _, image := range s.inRepository(repository) {
		for _, name := range image.Names {
			if ref, err := Parse(name); err == nil && served(ref.Name()) == repository {
				tags = append(tags, ref.Tag)
			}
		}
	}
	slices.Sort(tags)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"name": repository, "tags": tags})
}

// demoName is what builtin/demo is called as an image like others. People do not see
// it: where they write builtin/demo, Resolve does not parse it.
var demoName = Reference{Registry: "holdfast.localhost", Repository: Demo, Tag: defaultTag}

// packDemo makes builtin/demo an image like others, for whoever pulls it.
func (s *Store) packDemo() error {
	built, err := s.builtin(Demo)
	if err != nil {
		return err
	}
	s.programs.Lock() // One packs, the others find it.
	defer s.programs.Unlock()
	if s.snapshot()[s.programs.packed] != nil {
		return nil
	}
	f, err := s.scratch()
	if err != nil {
		return err
	}
	defer f.drop()
	if err := packFolder(f, built.Layers[0]); err != nil {
		return err
	}
	configBytes, err := json.Marshal(config{
		platform: platform{OS: "linux", Architecture: goruntime.GOARCH},
		Config:   settings{User: built.User, Env: built.Env, Entrypoint: built.Entrypoint, StopSignal: built.StopSignal},
		RootFS:   rootFS{Type: "layers", DiffIDs: []string{f.digest()}},
	})
	if err != nil {
		return err
	}
	manifestBytes, err := json.Marshal(manifest{
		SchemaVersion: 2, MediaType: ociManifest,
		Config: &descriptor{MediaType: ociConfig, Digest: digestOf(configBytes), Size: int64(len(configBytes))},
		Layers: []descriptor{{MediaType: ociLayer, Digest: f.digest(), Size: f.bytes}},
	})
	if err != nil {
		return err
	}
	r := &record{
		Manifest: digestOf(manifestBytes), Config: digestOf(configBytes), Names: []string{demoName.String()}, Imported: true,
		Layers: []layer{{Blob: f.digest(), Diff: f.digest(), Bytes: f.bytes}},
	}
	defer s.pin(r.digests()...)()
	for _, b := range [][]byte{manifestBytes, configBytes} {
		if _, err := s.putBytes(b); err != nil {
			return err
		}
	}
	if err := s.keep(f); err != nil {
		return err
	}
	if err := s.add(r); err != nil {
		return err
	}
	s.programs.packed = r.Manifest
	return nil
}

// packFolder writes a tar that is the same for the same files, whoever made them when.
func packFolder(w io.Writer, dir string) error {
	out := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.ToSlash(name), Mode: int64(info.Mode().Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatPAX, Typeflag: tar.TypeReg, Size: info.Size()}
		if info.Mode()&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		if d.IsDir() {
			h.Typeflag, h.Size, h.Name = tar.TypeDir, 0, h.Name+"/"
			return out.WriteHeader(h)
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%w: %s is no file", runtime.ErrImage, path)
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(out, f)
		return err
	})
	return errors.Join(err, out.Close())
}
