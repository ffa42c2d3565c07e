package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/image"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// pulled are the images of an engine that keeps them itself, and those of the node's own
// store, from which the engine gets what people bring. It implements images, and for the
// engine's image.Shelf.
type pulled struct {
	engine runtime.Puller // Set once the engine is there.
	store  *image.Store
	clock  clock.Clock
	log    hclog.Logger
	fullOf func(dir string) (percent float64, err error)

	mu struct {
		sync.Mutex
		touched map[string]time.Duration // When an image was asked for or seen in use last, or first seen, by Mono.
	}
}

func newPulled(store *image.Store, clock clock.Clock, log hclog.Logger) *pulled {
	p := &pulled{store: store, clock: clock, log: log, fullOf: image.FullOf}
	p.mu.touched = map[string]time.Duration{}
	return p
}

// Resolve implements pods.Images.
func (p *pulled) Resolve(ctx context.Context, text string, policy corev1.PullPolicy, logins image.Logins) (*runtime.Image, error) {
	found, err := p.resolve(ctx, text, policy, logins)
	if err == nil {
		p.touch(found.ID)
	}
	return found, err
}

func (p *pulled) resolve(ctx context.Context, text string, policy corev1.PullPolicy, logins image.Logins) (*runtime.Image, error) {
	if text == image.HostRoot {
		return nil, fmt.Errorf("%w: %s: only runtime native and process can lay it under a container: use builtin/demo, or an image of a registry", runtime.ErrImage, text)
	}
	if _, here := p.store.Present(text); here {
		return p.engine.Pull(ctx, text, nil) // From this node: next to nothing where the engine has it.
	}
	ref, err := image.Parse(text)
	if err != nil {
		return nil, err
	}
	if policy != corev1.PullAlways {
		present, err := p.engine.Present(ctx, ref.String())
		if err != nil || present != nil {
			return present, err
		}
		if policy == corev1.PullNever {
			return nil, fmt.Errorf("%w: %s: import it, or use another imagePullPolicy", image.ErrAbsent, ref)
		}
	}
	fit := logins.For(ref)
	for i := range fit {
		found, err := p.engine.Pull(ctx, ref.String(), &fit[i])
		if err == nil {
			return found, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
	}
	return p.engine.Pull(ctx, ref.String(), nil) // What is public needs no login.
}

func (p *pulled) touch(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.touched[id] = p.clock.Mono()
}

// Collect implements pods.Images: first what people brought, which the engine has too.
func (p *pulled) Collect(ctx context.Context, used map[string]bool) error {
	_, err := p.store.Collect(ctx, used, imagesHigh, imagesLow)
	if err != nil {
		return err
	}
	if err := p.look(ctx, used); err != nil {
		return err
	}
	_, err = image.Collect(ctx, p, used, imagesHigh, imagesLow, p.log)
	return err
}

// look notes which images there are, and which of them are used now: no engine tells when
// one was.
func (p *pulled) look(ctx context.Context, used map[string]bool) error {
	list, err := p.kept(ctx)
	if err != nil {
		return err
	}
	now := p.clock.Mono()
	there := map[string]time.Duration{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range list {
		at, known := p.mu.touched[list[i].ID]
		if !known || list[i].InUse(used) {
			at = now
		}
		there[list[i].ID] = at
	}
	p.mu.touched = there
	return nil
}

// Full implements image.Shelf.
func (p *pulled) Full(ctx context.Context) (float64, error) {
	dir, err := p.engine.ImageDir(ctx)
	if err != nil {
		return 0, err
	}
	return p.fullOf(dir)
}

// Removable implements image.Shelf.
func (p *pulled) Removable(ctx context.Context) ([]image.Info, error) {
	list, err := p.kept(ctx)
	return slices.DeleteFunc(list, func(i image.Info) bool { return p.young(i.ID) }), err
}

// Forget implements image.Shelf.
func (p *pulled) Forget(ctx context.Context, i *image.Info) (did bool, err error) {
	if p.young(i.ID) {
		return false, nil
	}
	return true, p.engine.RemoveImage(ctx, i.ID)
}

// young tells whether a container that is not known yet may be about to use an image.
func (p *pulled) young(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, known := p.mu.touched[id]
	return !known || p.clock.Mono()-at < image.YoungMin
}

// kept are the images of the engine.
func (p *pulled) kept(ctx context.Context) ([]image.Info, error) {
	kept, err := p.engine.Kept(ctx)
	if err != nil {
		return nil, err
	}
	names := p.served()
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []image.Info
	for _, k := range kept {
		for i, name := range k.Names {
			k.Names[i] = cmp.Or(names[name], name)
		}
		info := image.Info{ID: k.ID, Names: k.Names, Digests: k.Digests, Bytes: k.Bytes, Kept: k.InUse}
		if at, known := p.mu.touched[k.ID]; known {
			info.Used = p.clock.Wall().Add(at - p.clock.Mono())
		}
		list = append(list, info)
	}
	return list, nil
}

// served are the names of the store's images, by those that they have in the registry
// from which the engine gets them.
func (p *pulled) served() map[string]string {
	names := map[string]string{demoServed: image.Demo}
	for _, i := range p.store.List() {
		for _, name := range i.Names {
			if ref, err := image.Parse(name); err == nil {
				names[servedAs(ref)] = name
			}
		}
	}
	return names
}

// List implements pods.Images: what the engine has, and what it has not got yet.
func (p *pulled) List(ctx context.Context) ([]image.Info, error) {
	list, err := p.kept(ctx)
	if err != nil {
		return nil, err
	}
	for _, own := range p.store.List() {
		if !slices.ContainsFunc(list, func(i image.Info) bool { return i.ID == own.ID }) {
			list = append(list, own)
		}
	}
	return list, nil
}

// Import implements images: the engine has them at once.
func (p *pulled) Import(ctx context.Context, tar io.Reader) ([]image.Info, error) {
	made, err := p.store.Import(ctx, tar)
	if err != nil {
		return nil, err
	}
	for _, i := range made {
		for _, name := range slices.Concat(i.Names, i.Digests) {
			found, err := p.engine.Pull(ctx, name, nil)
			if err != nil {
				return nil, fmt.Errorf("hand image %s to the container runtime: %w", name, err)
			}
			p.touch(found.ID)
		}
	}
	return made, nil
}

// Remove implements images. In the engine an image goes with all its names.
func (p *pulled) Remove(ctx context.Context, text string, used map[string]bool) error {
	list, err := p.List(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(list, func(i image.Info) bool { return i.Is(text) })
	if at < 0 {
		return fmt.Errorf("%w: %s", image.ErrAbsent, text)
	}
	if list[at].InUse(used) {
		return fmt.Errorf("%w: %s: stop its pods first", image.ErrInUse, text)
	}
	id := list[at].ID
	if err := p.store.Remove(ctx, id, used); err != nil && !errors.Is(err, image.ErrAbsent) && !errors.Is(err, image.ErrName) {
		return err
	}
	return p.engine.RemoveImage(ctx, id)
}
