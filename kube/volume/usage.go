package volume

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Exceeded tells whether a pod uses more than a limit of one of its volumes allows, and
// which: the message of its end with the reason Evicted. What cannot be measured now is
// not said to be too much; only what a container nests too deep to be measured is.
func (v *Volumes) Exceeded(ctx context.Context, pod *corev1.Pod) (message string, exceeded bool) {
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if volume.EmptyDir == nil || volume.EmptyDir.SizeLimit == nil || volume.EmptyDir.SizeLimit.Sign() <= 0 {
			continue
		}
		limit := volume.EmptyDir.SizeLimit
		used, err := v.usage(ctx, string(pod.UID), volume)
		switch {
		case errors.Is(err, errDeep):
			return fmt.Sprintf("Usage of EmptyDir volume %q cannot be measured: folders are nested deeper than %d", volume.Name, usageDepthMax), true
		case err != nil:
			v.cfg.Logger.Debug("a volume was not measured", "pod", pod.Namespace+"/"+pod.Name, "volume", volume.Name, "error", err)
		case used > limit.Value():
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q.", volume.Name, limit.String()), true
		}
	}
	return "", false
}

var errDeep = errors.New("folders are nested too deep")

// usage is what a volume takes on its medium, in bytes. Nobody is kept from working on
// the pod meanwhile: it may take long.
func (v *Volumes) usage(ctx context.Context, uid string, volume *corev1.Volume) (int64, error) {
	if !single(uid) || !single(volume.Name) {
		return 0, ErrInvalid
	}
	dir := v.root
	for _, name := range []string{uid, volumesName, volume.Name} {
		next, err := dir.openMounted(name)
		if err != nil {
			return 0, err
		}
		defer next.close()
		dir = next
	}
	m := &measure{ctx: ctx, seen: map[uint64]bool{}}
	err := m.folder(dir, 0)
	return m.bytes, err
}

// measure sums up. A file with several names counts once.
type measure struct {
	ctx   context.Context
	bytes int64
	seen  map[uint64]bool
}

func (m *measure) folder(dir *folder, depth int) error {
	if depth > usageDepthMax {
		return errDeep
	}
	return dir.names(func(names []string) (bool, error) {
		for _, name := range names {
			if err := m.one(dir, name, depth); err != nil {
				return false, err
			}
		}
		return true, m.ctx.Err()
	})
}

func (m *measure) one(dir *folder, name string, depth int) error {
	s, err := dir.stat(name)
	if err != nil || s == nil {
		return err
	}
	if s.Mode&unix.S_IFMT != unix.S_IFDIR {
		if s.Nlink > 1 {
			if m.seen[s.Ino] {
				return nil
			}
			m.seen[s.Ino] = true
		}
		m.bytes += s.Blocks * 512
		return nil
	}
	below, err := dir.open(name)
	switch {
	case errors.Is(err, unix.EXDEV), notThere(err), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil // Another medium, or it went meanwhile.
	case err != nil:
		return err
	}
	defer below.close()
	m.bytes += s.Blocks * 512
	return m.folder(below, depth+1)
}
