package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Pull implements runtime.Puller.
func (e *Engine) Pull(ctx context.Context, ref string, login *runtime.Login) (*runtime.Image, error) {
	request := &api.PullImageRequest{Image: &api.ImageSpec{Image: ref}}
	if login != nil {
		request.Auth = &api.AuthConfig{Username: login.User, Password: login.Password}
	}
	if name, here := e.named(ctx, ref); here {
		request.Image.Image = e.local.ref(name)
		request.Auth = e.local.login()
	}
	answer, err := e.images.PullImage(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w: %w", ref, runtime.ErrImage, refine(err))
	}
	image, err := e.image(ctx, ref, answer.ImageRef)
	if err == nil && image == nil {
		err = fmt.Errorf("image %s: %w: the runtime has lost it again", ref, runtime.ErrImage)
	}
	return image, err
}

// Present implements runtime.Puller.
func (e *Engine) Present(ctx context.Context, ref string) (*runtime.Image, error) {
	name, here := e.named(ctx, ref)
	if here {
		// Of one that the kubelet has the runtime may have an older one of that name.
		return e.image(ctx, ref, e.local.ref(name))
	}
	image, err := e.image(ctx, ref, ref)
	if err != nil || image != nil || name == "" {
		return image, err
	}
	return e.image(ctx, ref, e.local.ref(name)) // The kubelet had it once.
}

// named is what the kubelet's own registry calls an image, and whether it has it.
func (e *Engine) named(ctx context.Context, ref string) (name string, here bool) {
	if e.local == nil {
		return "", false
	}
	return e.cfg.Local.Name(ctx, ref)
}

// image asks for what the runtime has under a name; nil: nothing.
func (e *Engine) image(ctx context.Context, ref, name string) (*runtime.Image, error) {
	answer, err := e.images.ImageStatus(ctx, &api.ImageStatusRequest{Image: &api.ImageSpec{Image: name}, Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("image %s: %w: %w", ref, runtime.ErrImage, refine(err))
	}
	if answer.Image == nil {
		return nil, nil
	}
	image := &runtime.Image{Ref: ref, ID: answer.Image.Id}
	configOfImage(answer.Info["info"], image)
	if image.User == "" {
		image.User = answer.Image.Username
		if answer.Image.Uid != nil {
			image.User = strconv.FormatInt(answer.Image.Uid.Value, 10)
		}
	}
	return image, nil
}

// configOfImage adds what an image says of containers. It is not in CRI proper, but both
// runtimes tell it to those who ask for all.
func configOfImage(info string, image *runtime.Image) {
	var i struct {
		Spec struct {
			Config struct {
				User       string
				Env        []string
				Entrypoint []string
				Cmd        []string
				WorkingDir string
				StopSignal string
			} `json:"config"`
		} `json:"imageSpec"`
	}
	if json.Unmarshal([]byte(info), &i) != nil {
		return
	}
	c := i.Spec.Config
	image.User, image.Env, image.Entrypoint, image.Cmd, image.WorkingDir, image.StopSignal = c.User, c.Env, c.Entrypoint, c.Cmd, c.WorkingDir, c.StopSignal
}
