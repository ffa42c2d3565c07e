package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// errMissing is a layer that an image of the index had once.
var errMissing = fmt.Errorf("%w: a layer is gone", ErrContent)

// Resolve makes an image ready for an engine: it finds it, fetches it if the policy
// says so (an empty one: Always for the tag latest, else IfNotPresent), and unpacks it.
// Those who ask for one image at the same time wait for one pull.
func (s *Store) Resolve(ctx context.Context, text string, policy corev1.PullPolicy, logins Logins) (*runtime.Image, error) {
	if isBuiltin(text) {
		return s.builtin(text)
	}
	ref, err := Parse(text)
	if err != nil {
		return nil, err
	}
	if policy == "" {
		policy = corev1.PullIfNotPresent
		if ref.Digest == "" && ref.Tag == defaultTag {
			policy = corev1.PullAlways
		}
	}
	r := s.find(ref)
	if policy == corev1.PullNever && r == nil {
		return nil, fmt.Errorf("%w: %s: import it, or use another imagePullPolicy", ErrAbsent, ref)
	}
	if r == nil || policy == corev1.PullAlways {
		return s.pullAndReady(ctx, text, ref, logins)
	}
	image, err := s.ready(ctx, text, r)
	if errors.Is(err, errMissing) && policy != corev1.PullNever {
		return s.pullAndReady(ctx, text, ref, logins)
	}
	return image, err
}

func (s *Store) pullAndReady(ctx context.Context, text string, ref Reference, logins Logins) (*runtime.Image, error) {
	if err := s.pull(ctx, ref, logins.For(ref)); err != nil {
		return nil, err
	}
	r := s.find(ref)
	if r == nil {
		return nil, fmt.Errorf("%w: %s: it was removed while it was fetched", runtime.ErrImage, ref)
	}
	return s.ready(ctx, text, r)
}

// Present tells of an image if it is here. What is built in is.
func (s *Store) Present(text string) (Info, bool) {
	if isBuiltin(text) {
		return Info{ID: text, Names: []string{text}}, true
	}
	ref, err := Parse(text)
	if err != nil {
		return Info{}, false
	}
	r := s.find(ref)
	if r == nil {
		return Info{}, false
	}
	return s.info(r), true
}

// ready unpacks what is not unpacked yet.
func (s *Store) ready(ctx context.Context, text string, r *record) (*runtime.Image, error) {
	b, err := s.readBlob(r.Config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", errMissing, r.Config)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrContent, err)
	}
	image, err := describe(text, r, b)
	if err != nil {
		return nil, err
	}
	if image.Layers, err = s.unpack(ctx, r); err != nil {
		return nil, fmt.Errorf("image %s: %w", text, err)
	}
	if !s.cfg.KeepBlobs {
		err = s.sweep()
	}
	return image, err
}

// Info is an image of the store, for people and for the status of the node.
type Info struct {
	ID      string   // As in the status of containers.
	Names   []string // With a tag.
	Digests []string // Names with the hash that a registry knows it by.

	Bytes       int64 // As far as known: unpacked, where it was; what other images share is counted in each.
	PackedBytes int64
	Imported    bool
	Kept        bool // Of an engine: others have it, or it is pinned.
	Added, Used time.Time

	manifest string // Of a Store.
}

// List tells all images but those that are built in, the one used last first.
func (s *Store) List() []Info {
	var list []Info
	for _, r := range s.snapshot() {
		list = append(list, s.info(r))
	}
	slices.SortFunc(list, func(a, b Info) int {
		if order := b.Used.Compare(a.Used); order != 0 {
			return order
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

func (s *Store) info(r *record) Info {
	i := Info{ID: r.Config, Names: slices.Clone(r.Names), Digests: slices.Clone(r.Pins), Imported: r.Imported, Added: r.Added, Used: s.lastUse(r), manifest: r.Manifest}
	for _, l := range r.Layers {
		i.PackedBytes += l.Bytes
		if bytes, ok := bytesOf(s.layerPath(l.Diff)); ok && !s.cfg.Rootless {
			i.Bytes += bytes
		} else {
			i.Bytes += l.Bytes
		}
	}
	if bytes, ok := bytesOf(s.rootPath(r.Manifest)); ok && s.cfg.Rootless {
		i.Bytes = bytes
	}
	return i
}

// bytesOf reads the size that was noted beside an unpacked layer.
func bytesOf(dir string) (int64, bool) {
	b, err := os.ReadFile(dir + "/" + bytesFile)
	if err != nil {
		return 0, false
	}
	bytes, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return bytes, err == nil
}
