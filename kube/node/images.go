package node

import (
	"context"
	"io"

	"github.com/holdfast-db/holdfast/kube/image"
	"github.com/holdfast-db/holdfast/kube/runtime/pods"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Percent of the disk from which on images are removed, and down to which.
const (
	imagesHigh = 85
	imagesLow  = 80
)

// images are those of a node, wherever it keeps them.
type images interface {
	pods.Images
	Import(ctx context.Context, tar io.Reader) ([]image.Info, error)
	Remove(ctx context.Context, name string, used map[string]bool) error
}

// stored are the images of engines that have none of their own.
type stored struct{ *image.Store }

// Collect implements pods.Images.
func (s stored) Collect(ctx context.Context, used map[string]bool) error {
	_, err := s.Store.Collect(ctx, used, imagesHigh, imagesLow)
	return err
}

// List implements pods.Images.
func (s stored) List(context.Context) ([]image.Info, error) { return s.Store.List(), nil }

// reached implements tunnel.Node: what people ask of a node.
type reached struct {
	*pods.Runtime
	images images
}

// Images implements tunnel.Images.
func (r reached) Images(ctx context.Context) ([]*kubepb.Image, error) {
	list, err := r.images.List(ctx)
	return told(list, r.Used()), err
}

func told(list []image.Info, used map[string]bool) []*kubepb.Image {
	var all []*kubepb.Image
	for i := range list {
		all = append(all, &kubepb.Image{Id: list[i].ID, Refs: list[i].Names, Bytes: list[i].Bytes, Used: list[i].InUse(used)})
	}
	return all
}

// ImportImage implements tunnel.Images.
func (r reached) ImportImage(ctx context.Context, tar io.Reader) ([]*kubepb.Image, error) {
	made, err := r.images.Import(ctx, tar)
	return told(made, nil), err
}

// RemoveImage implements tunnel.Images.
func (r reached) RemoveImage(ctx context.Context, name string) error {
	return r.images.Remove(ctx, name, r.Used())
}
