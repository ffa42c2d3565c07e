package image

import (
	"fmt"
	"regexp"
	"strings"
)

// Reference is the name of an image in full: nginx is docker.io/library/nginx:latest.
type Reference struct {
	Registry   string // docker.io
	Repository string // library/nginx
	Tag        string // latest. Empty where there is a digest alone.
	Digest     string // sha256:…
}

const (
	defaultRegistry = "docker.io"
	defaultTag      = "latest"
)

var (
	registryForm   = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$`)
	repositoryForm = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$`)
	digestForm     = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// Parse reads a name as people write it.
func Parse(text string) (Reference, error) {
	var r Reference
	if len(text) > referenceBytesMax {
		return r, fmt.Errorf("%w: %.60q… has %d bytes, at most %d", ErrName, text, len(text), referenceBytesMax)
	}
	rest, digest, pinned := strings.Cut(text, "@")
	if pinned {
		if !digestForm.MatchString(digest) {
			return r, fmt.Errorf("%w: %q: after @ stands sha256: and 64 digits of lower case", ErrName, text)
		}
		r.Digest = digest
	}
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, '/') {
		rest, r.Tag = rest[:colon], rest[colon+1:]
		if !tagForm.MatchString(r.Tag) {
			return r, fmt.Errorf("%w: %q: the tag after the colon has letters, digits and _.-, at most 128", ErrName, text)
		}
	}
	r.Registry, r.Repository = splitRegistry(rest)
	if !registryForm.MatchString(r.Registry) {
		return r, fmt.Errorf("%w: %q: %q is no host of a registry", ErrName, text, r.Registry)
	}
	if !repositoryForm.MatchString(r.Repository) || len(r.Repository) > nameBytesMax {
		return r, fmt.Errorf("%w: %q: a repository has small letters, digits and ._- between slashes, at most %d", ErrName, text, nameBytesMax)
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = defaultTag
	}
	return r, nil
}

// splitRegistry adds what people leave out of the names of docker's own registry.
func splitRegistry(text string) (registry, repository string) {
	registry, repository = defaultRegistry, text
	if first, after, ok := strings.Cut(text, "/"); ok && namesHost(first) {
		registry, repository = first, after
	}
	if registry == "index.docker.io" || registry == "registry-1.docker.io" {
		registry = defaultRegistry
	}
	if registry == defaultRegistry && !strings.Contains(repository, "/") {
		repository = "library/" + repository
	}
	return registry, repository
}

// namesHost tells a registry from the first part of a repository, by the rule of docker.
func namesHost(first string) bool {
	return strings.ContainsAny(first, ".:") || first == "localhost" || first != strings.ToLower(first)
}

// Name is without tag and digest: docker.io/library/nginx.
func (r Reference) Name() string { return r.Registry + "/" + r.Repository }

// String is the full form. Where there is a digest the tag says nothing and is left out.
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Name() + "@" + r.Digest
	}
	return r.Name() + ":" + r.Tag
}

// served is the repository under which Handler has what Name names: a port's colon is
// not allowed in a path of repositories.
func served(name string) string { return strings.ReplaceAll(strings.ToLower(name), ":", "_") }

// ServedAs is what an engine pulls from a Handler at host:port to get an image.
func ServedAs(host string, ref Reference) string {
	text := host + "/" + served(ref.Name())
	if ref.Digest != "" {
		return text + "@" + ref.Digest
	}
	return text + ":" + ref.Tag
}
