package volume

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/environ"
)

// content is what a volume shows: files by their paths within it.
type content map[string]file

type file struct {
	data []byte
	mode uint32
}

// written tells whether the files of a volume are written by us.
func written(s *corev1.VolumeSource) bool {
	return s.Secret != nil || s.ConfigMap != nil || s.DownwardAPI != nil || s.Projected != nil
}

// secretSources counts the sources of a volume that shows secrets; 0: it shows none.
func secretSources(s *corev1.VolumeSource) int {
	if s.Secret != nil {
		return 1
	}
	if s.Projected != nil {
		all := s.Projected.Sources
		if slices.ContainsFunc(all, func(p corev1.VolumeProjection) bool { return p.Secret != nil }) {
			return len(all)
		}
	}
	return 0
}

// contentOf reads the sources of a volume.
func (v *Volumes) contentOf(ctx context.Context, pod *corev1.Pod, s *corev1.VolumeSource) (content, error) {
	c := content{}
	var err error
	switch {
	case s.Secret != nil:
		err = v.addSecret(ctx, c, pod, s.Secret.SecretName, s.Secret.Items, modeOf(s.Secret.DefaultMode), s.Secret.Optional)
	case s.ConfigMap != nil:
		err = v.addConfigMap(ctx, c, pod, s.ConfigMap.Name, s.ConfigMap.Items, modeOf(s.ConfigMap.DefaultMode), s.ConfigMap.Optional)
	case s.DownwardAPI != nil:
		err = v.addFields(c, pod, s.DownwardAPI.Items, modeOf(s.DownwardAPI.DefaultMode))
	case s.Projected != nil:
		for i := range s.Projected.Sources {
			if err := v.addProjection(ctx, c, pod, &s.Projected.Sources[i], modeOf(s.Projected.DefaultMode)); err != nil {
				return nil, err
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return c, c.check()
}

func modeOf(mode *int32) uint32 {
	if mode == nil {
		return 0o644
	}
	return uint32(*mode) & 0o777
}

func (v *Volumes) addProjection(ctx context.Context, c content, pod *corev1.Pod, p *corev1.VolumeProjection, mode uint32) error {
	switch {
	case p.Secret != nil:
		return v.addSecret(ctx, c, pod, p.Secret.Name, p.Secret.Items, mode, p.Secret.Optional)
	case p.ConfigMap != nil:
		return v.addConfigMap(ctx, c, pod, p.ConfigMap.Name, p.ConfigMap.Items, mode, p.ConfigMap.Optional)
	case p.DownwardAPI != nil:
		return v.addFields(c, pod, p.DownwardAPI.Items, mode)
	}
	return fmt.Errorf("a source of it is of a kind that is not there: %w", ErrInvalid)
}

func (v *Volumes) addSecret(ctx context.Context, c content, pod *corev1.Pod, name string, items []corev1.KeyToPath, mode uint32, optional *bool) error {
	s, err := environ.Secret(ctx, v.cfg.Objects, pod.Namespace, name, optional)
	if err != nil || s == nil {
		return err
	}
	return c.add(s.Data, items, mode, optional, "secret "+pod.Namespace+"/"+name)
}

func (v *Volumes) addConfigMap(ctx context.Context, c content, pod *corev1.Pod, name string, items []corev1.KeyToPath, mode uint32, optional *bool) error {
	m, err := environ.ConfigMap(ctx, v.cfg.Objects, pod.Namespace, name, optional)
	if err != nil || m == nil {
		return err
	}
	data := make(map[string][]byte, len(m.Data)+len(m.BinaryData))
	for key, text := range m.Data {
		data[key] = []byte(text)
	}
	maps.Copy(data, m.BinaryData)
	return c.add(data, items, mode, optional, "config map "+pod.Namespace+"/"+name)
}

// add takes the keys that items name, or all.
func (c content) add(data map[string][]byte, items []corev1.KeyToPath, mode uint32, optional *bool, what string) error {
	if len(items) == 0 {
		for key, value := range data {
			c[key] = file{value, mode}
		}
		return nil
	}
	for _, item := range items {
		value, there := data[item.Key]
		if !there {
			if optional != nil && *optional {
				continue
			}
			return fmt.Errorf("key %s of %s: %w", item.Key, what, ErrMissing)
		}
		own := mode
		if item.Mode != nil {
			own = modeOf(item.Mode)
		}
		c[path.Clean(item.Path)] = file{value, own}
	}
	return nil
}

// addFields takes fields of the pod and resources of its containers.
func (v *Volumes) addFields(c content, pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode uint32) error {
	for i := range items {
		item := &items[i]
		own := mode
		if item.Mode != nil {
			own = modeOf(item.Mode)
		}
		value, err := v.fieldOf(pod, item)
		if err != nil {
			return fmt.Errorf("file %s: %w", item.Path, err)
		}
		c[path.Clean(item.Path)] = file{[]byte(value), own}
	}
	return nil
}

func (v *Volumes) fieldOf(pod *corev1.Pod, item *corev1.DownwardAPIVolumeFile) (string, error) {
	switch {
	case item.FieldRef != nil && strings.HasPrefix(item.FieldRef.FieldPath, "metadata."):
		return environ.Field(pod, item.FieldRef.FieldPath, &environ.Facts{})
	case item.ResourceFieldRef != nil:
		return environ.Resource(pod, nil, item.ResourceFieldRef, &environ.Facts{Allocatable: v.cfg.Allocatable()})
	}
	return "", fmt.Errorf("a file shows a field of metadata, or a resource: %w", ErrInvalid)
}

// check refuses paths that lead out of the volume, that are taken by us, or that lie
// below a file.
func (c content) check() error {
	for _, name := range slices.Sorted(maps.Keys(c)) {
		switch {
		case name == "." || path.IsAbs(name) || slices.Contains(strings.Split(name, "/"), ".."), strings.ContainsRune(name, 0):
			return fmt.Errorf("path %q: %w", name, ErrEscape)
		case strings.HasPrefix(name, ".."):
			return fmt.Errorf("path %q: names that begin with .. are taken: %w", name, ErrInvalid)
		}
		for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
			if _, there := c[parent]; there {
				return fmt.Errorf("path %q: %q is a file: %w", name, parent, ErrInvalid)
			}
		}
	}
	return nil
}
