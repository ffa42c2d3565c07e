package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// Shelf is where a node has its images: a Store, or an engine that keeps them itself.
type Shelf interface {
	// Full is how full the disk is on which they lie, in percent.
	Full(ctx context.Context) (float64, error)
	// Removable are those that may go: not what was asked for a moment ago.
	Removable(ctx context.Context) ([]Info, error)
	// Forget removes one, unless somebody has asked for it meanwhile.
	Forget(ctx context.Context, i *Info) (did bool, err error)
}

// Collect makes room when the disk of a shelf is more than high percent full: it removes
// the images that nobody used for the longest time until it is at most low percent full.
// What containers use (IDs or names) stays. It returns what was removed.
func Collect(ctx context.Context, s Shelf, used map[string]bool, high, low float64, log hclog.Logger) ([]Info, error) {
	full, err := s.Full(ctx)
	if err != nil || full <= high {
		return nil, err
	}
	list, err := s.Removable(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(i Info) bool { return i.InUse(used) })
	slices.SortFunc(list, func(a, b Info) int { return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.ID, b.ID)) })
	var gone []Info
	for i := range list {
		if full <= low || ctx.Err() != nil {
			break
		}
		did, err := s.Forget(ctx, &list[i])
		if err != nil {
			return gone, err
		}
		if !did {
			continue
		}
		log.Info("image removed for lack of space", "names", list[i].Names, "id", list[i].ID, "bytes", list[i].Bytes, "percent", int(full))
		gone = append(gone, list[i])
		if full, err = s.Full(ctx); err != nil {
			return gone, err
		}
	}
	if full > low && ctx.Err() == nil {
		log.Warn("the disk of the images is full, and all that is left is in use", "percent", int(full), "aim", int(low))
	}
	return gone, ctx.Err()
}

// Is tells whether a name or an ID means this image.
func (i *Info) Is(text string) bool {
	return inUse(map[string]bool{text: true}, i.ID, i.Names, i.Digests)
}

// InUse tells whether containers have an image, by the IDs and names that they have.
func (i *Info) InUse(used map[string]bool) bool {
	return i.Kept || inUse(used, i.ID, i.Names, i.Digests)
}

func inUse(used map[string]bool, id string, names, pins []string) bool {
	if used[id] {
		return true
	}
	for text := range used { //tidy:ordered any of them
		name := text
		if ref, err := Parse(text); err == nil && !isBuiltin(text) {
			name = ref.String()
		}
		if slices.Contains(names, name) || slices.Contains(pins, name) {
			return true
		}
	}
	return false
}

// Remove removes a name, or by ID an image with all its names; the image goes with its
// last name. Used are the IDs and names that containers have.
func (s *Store) Remove(ctx context.Context, text string, used map[string]bool) error {
	if isBuiltin(text) {
		return fmt.Errorf("%w: %s", errBuiltin, text)
	}
	byID, name := digestForm.MatchString(text), ""
	if !byID {
		ref, err := Parse(text)
		if err != nil {
			return err
		}
		name = ref.String()
	}
	err := s.change(func(images map[string]*record) error {
		found := false
		for id, r := range images {
			is := byID && r.Config == text
			had := slices.Contains(r.Names, name) || slices.Contains(r.Pins, name)
			if !is && !had {
				continue
			}
			found = true
			if had && len(r.Names)+len(r.Pins) > 1 && !only(r, name) {
				r.Names = slices.DeleteFunc(r.Names, func(n string) bool { return n == name })
				r.Pins = slices.DeleteFunc(r.Pins, func(n string) bool { return n == name })
				continue
			}
			if inUse(used, r.Config, r.Names, r.Pins) {
				return fmt.Errorf("%w: %s: stop its pods first", ErrInUse, text)
			}
			delete(images, id)
		}
		if !found {
			return fmt.Errorf("%w: %s", ErrAbsent, text)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.sweep()
}

// only tells whether a name is the last that people gave: hashes that came with a pull
// do not keep an image.
func only(r *record, name string) bool {
	return len(r.Names) == 1 && r.Names[0] == name || len(r.Names) == 0 && len(r.Pins) == 1
}

// Collect makes room as the function of that name does, and removes what earlier versions
// of this program left of the image that it is.
func (s *Store) Collect(ctx context.Context, used map[string]bool, high, low float64) ([]Info, error) {
	if err := s.dropPrograms(used); err != nil {
		return nil, err
	}
	return Collect(ctx, s, used, high, low, s.log)
}

// Removable implements Shelf.
func (s *Store) Removable(context.Context) ([]Info, error) {
	var list []Info
	for _, r := range s.snapshot() { //tidy:ordered whoever asks sorts them
		if !s.young(r.Manifest) {
			list = append(list, s.info(r))
		}
	}
	return list, nil
}

// Forget implements Shelf.
func (s *Store) Forget(_ context.Context, i *Info) (did bool, err error) {
	err = s.change(func(images map[string]*record) error {
		if did = !s.young(i.manifest); did {
			delete(images, i.manifest)
		}
		return nil
	})
	return did, errors.Join(err, s.sweep())
}

// young tells whether a container that is not known yet may be about to use an image.
func (s *Store) young(manifest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.mu.touched[manifest]
	if !ok {
		at = s.opened // Whoever used it asks anew after a restart.
	}
	return s.clock.Mono()-at < YoungMin
}

// Full implements Shelf.
func (s *Store) Full(context.Context) (float64, error) {
	if s.cfg.Used != nil {
		return s.cfg.Used()
	}
	return FullOf(s.cfg.Dir)
}

// FullOf is how full the disk of a folder is, in percent.
func FullOf(dir string) (float64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("images: space of %s: %w", dir, err)
	}
	taken := st.Blocks - st.Bfree
	return 100 * float64(taken) / float64(max(taken+st.Bavail, 1)), nil
}
