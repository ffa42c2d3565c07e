package image

import (
	"encoding/json"
	"fmt"
	goruntime "runtime"
	"strings"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Media types that tell a list of manifests from a manifest.
const (
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociConfig      = "application/vnd.oci.image.config.v1+json"
	ociLayer       = "application/vnd.oci.image.layer.v1.tar"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

// manifest is of an image, or a list of them, in OCI's and docker's form.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Config        *descriptor  `json:"config,omitempty"`
	Layers        []descriptor `json:"layers,omitempty"`
	Manifests     []descriptor `json:"manifests,omitempty"`
}

func (m *manifest) isList() bool { return m.Config == nil && m.Manifests != nil }

func (m *manifest) mediaType() string {
	switch {
	case m.MediaType != "":
		return m.MediaType
	case m.isList():
		return ociIndex
	}
	return ociManifest
}

func parseManifest(b []byte) (*manifest, error) {
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %v", ErrContent, err)
	}
	if m.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: manifest has schema version %d, not 2: the image is too old: build it anew", ErrContent, m.SchemaVersion)
	}
	all := append(append([]descriptor{}, m.Layers...), m.Manifests...)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	for _, d := range all {
		if !digestForm.MatchString(d.Digest) || d.Size < 0 {
			return nil, fmt.Errorf("%w: manifest: %.100q of %d bytes is no blob", ErrContent, d.Digest, d.Size)
		}
	}
	if m.Config == nil && m.Manifests == nil {
		return nil, fmt.Errorf("%w: manifest has neither a configuration nor a list", ErrContent)
	}
	if len(m.Layers) > layersMax {
		return nil, fmt.Errorf("%w: %d layers, at most %d fit in one mount", ErrContent, len(m.Layers), layersMax)
	}
	return &m, nil
}

// choose finds what runs here in a list.
func (m *manifest) choose() (descriptor, error) {
	var have []string
	for _, d := range m.Manifests {
		if d.Platform == nil {
			if len(m.Manifests) == 1 {
				return d, nil // The configuration tells.
			}
			continue
		}
		if d.Platform.fits() {
			return d, nil
		}
		if d.Platform.OS != "unknown" { // Attestations beside images.
			have = append(have, d.Platform.String())
		}
	}
	return descriptor{}, fmt.Errorf("%w: this is linux/%s, the image is for %s", ErrPlatform, goruntime.GOARCH, strings.Join(have, ", "))
}

func (p *platform) fits() bool {
	// Variants of amd64 and arm64 beyond the first are for newer processors: their
	// lists have the plain one too, which runs everywhere.
	plain := p.Variant == "" || p.Architecture == "arm64" && p.Variant == "v8" || p.Architecture == "arm"
	return p.OS == "linux" && p.Architecture == goruntime.GOARCH && plain
}

func (p *platform) String() string {
	return strings.TrimRight(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// config is the configuration of an image, as far as it is needed.
type config struct {
	platform
	Config settings `json:"config"`
	RootFS rootFS   `json:"rootfs"`
}

type settings struct {
	User       string   `json:"User,omitempty"`
	Env        []string `json:"Env,omitempty"`
	Entrypoint []string `json:"Entrypoint,omitempty"`
	Cmd        []string `json:"Cmd,omitempty"`
	WorkingDir string   `json:"WorkingDir,omitempty"`
	StopSignal string   `json:"StopSignal,omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// recordOf joins a manifest and the configuration that it names.
func recordOf(digest string, m *manifest, configBytes []byte) (*record, error) {
	var c config
	if err := json.Unmarshal(configBytes, &c); err != nil {
		return nil, fmt.Errorf("%w: configuration: %v", ErrContent, err)
	}
	if c.OS != "linux" || c.Architecture != goruntime.GOARCH {
		return nil, fmt.Errorf("%w: this is linux/%s, the image is for %s", ErrPlatform, goruntime.GOARCH, c.String())
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("%w: %d layers, but the configuration names %d", ErrContent, len(m.Layers), len(c.RootFS.DiffIDs))
	}
	r := &record{Manifest: digest, Config: m.Config.Digest, Layers: []layer{}}
	for i, l := range m.Layers {
		r.Layers = append(r.Layers, layer{Blob: l.Digest, Diff: c.RootFS.DiffIDs[i], Bytes: l.Size})
	}
	if !r.valid() {
		return nil, fmt.Errorf("%w: configuration: a layer has no valid hash", ErrContent)
	}
	return r, nil
}

// describe is what engines are told of an image.
func describe(ref string, r *record, configBytes []byte) (*runtime.Image, error) {
	var c config
	if err := json.Unmarshal(configBytes, &c); err != nil {
		return nil, fmt.Errorf("%w: configuration: %v", ErrContent, err)
	}
	s := c.Config
	return &runtime.Image{
		Ref: ref, ID: r.Config, Env: s.Env, Entrypoint: s.Entrypoint, Cmd: s.Cmd,
		WorkingDir: s.WorkingDir, User: s.User, StopSignal: s.StopSignal,
	}, nil
}
