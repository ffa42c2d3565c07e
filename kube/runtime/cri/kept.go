package cri

import (
	"context"
	"fmt"
	"strings"

	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Kept implements runtime.Puller.
func (e *Engine) Kept(ctx context.Context) ([]runtime.KeptImage, error) {
	answer, err := e.images.ListImages(ctx, &api.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", refine(err))
	}
	used, err := e.usedImages(ctx)
	if err != nil {
		return nil, err
	}
	var all []runtime.KeptImage
	for _, i := range answer.Images {
		k := runtime.KeptImage{ID: i.Id, Names: e.known(i.RepoTags), Digests: e.known(i.RepoDigests), Bytes: int64(i.Size), InUse: i.Pinned || used[i.Id]}
		for _, names := range [][]string{i.RepoTags, i.RepoDigests} {
			for _, name := range names {
				k.InUse = k.InUse || used[name]
			}
		}
		all = append(all, k)
	}
	return all, nil
}

// usedImages are the IDs and names of images that containers have, those of others too,
// and the one that sandboxes are made from: old runtimes do not pin it.
func (e *Engine) usedImages(ctx context.Context) (map[string]bool, error) {
	containers, err := e.listContainers(ctx, nil)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, c := range containers {
		used[c.ImageRef], used[c.ImageId], used[c.Image.GetImage()] = true, true, true
	}
	if e.sandboxImage != "" {
		answer, err := e.images.ImageStatus(ctx, &api.ImageStatusRequest{Image: &api.ImageSpec{Image: e.sandboxImage}})
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", e.sandboxImage, refine(err))
		}
		used[answer.Image.GetId()] = true
	}
	return used, nil
}

// known gives what the runtime fetched from the kubelet's own registry the name that it
// has there.
func (e *Engine) known(names []string) []string {
	var all []string
	for _, name := range names {
		if e.local != nil {
			name = strings.TrimPrefix(name, e.local.ref(""))
		}
		all = append(all, name)
	}
	return all
}

// RemoveImage implements runtime.Puller.
func (e *Engine) RemoveImage(ctx context.Context, id string) error {
	if _, err := e.images.RemoveImage(ctx, &api.RemoveImageRequest{Image: &api.ImageSpec{Image: id}}); err != nil && !absent(err) {
		return fmt.Errorf("remove image %s: %w", id, refine(err))
	}
	return nil
}

// ImageDir implements runtime.Puller.
func (e *Engine) ImageDir(ctx context.Context) (string, error) {
	answer, err := e.images.ImageFsInfo(ctx, &api.ImageFsInfoRequest{})
	if err != nil {
		return "", fmt.Errorf("disk of the images: %w", refine(err))
	}
	for _, fs := range answer.ImageFilesystems {
		if dir := fs.GetFsId().GetMountpoint(); dir != "" {
			return dir, nil
		}
	}
	return "", fmt.Errorf("disk of the images: the runtime does not tell it: %w", runtime.ErrUnsupported)
}
