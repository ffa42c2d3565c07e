package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// leaseFile of the kubelet's folder says until when the node's lease stands for sure, so
// that a kubelet which is restarted need not stop singletons before it has heard of the
// control plane. It counts from the start of the machine, by a clock that goes on while
// the machine sleeps: another start ends all pods, and makes the file worth nothing. A
// file that is older than the lease is safe.
const leaseFile = "lease"

// leaseNote is what the file holds.
type leaseNote struct {
	Boot  string        `json:"boot"`  // Of this start of the machine.
	Until time.Duration `json:"until"` // Since then, in nanoseconds.
}

// loadLease takes the lease that the kubelet before this one had.
func (k *Kubelet) loadLease() error {
	if k.cfg.Dir == "" || k.cfg.BootTime == nil {
		return nil
	}
	text, err := vfs.ReadFile(k.cfg.FS, filepath.Join(k.cfg.Dir, leaseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var note leaseNote
	mono := k.clock.Mono() // Before: a process that is stopped in between must find less left, not more.
	boot, now, err := k.cfg.BootTime()
	if err != nil || json.Unmarshal(text, &note) != nil || note.Boot != boot {
		return nil // It is not known: as if there were none.
	}
	if left := note.Until - now; left > 0 {
		k.lease.stands(k, mono+min(left, leaseNoteMax))
	}
	return nil
}

// noteLeases writes the file whenever the lease is longer. It has a task of its own: a
// disk that stands still must not cost the lease.
func (k *Kubelet) noteLeases(ctx context.Context) error {
	if k.cfg.Dir == "" || k.cfg.BootTime == nil {
		return nil
	}
	for told := false; ; {
		select {
		case <-k.lease.longer:
		case <-ctx.Done():
			return ctx.Err()
		}
		err := k.noteLease()
		if err != nil && !told { // Once, not with each heartbeat on a full disk.
			k.log.Warn("the end of the lease is not written down: a restart of this kubelet would stop singletons", "error", err)
		}
		told = err != nil
	}
}

func (k *Kubelet) noteLease() error {
	boot, now, err := k.cfg.BootTime()
	if err != nil {
		return err
	}
	k.lease.mu.Lock()
	left := k.lease.mu.until - k.clock.Mono()
	k.lease.mu.Unlock()
	text, err := json.Marshal(leaseNote{Boot: boot, Until: now + left})
	if err != nil {
		return err
	}
	return vfs.ReplaceFile(k.cfg.FS, filepath.Join(k.cfg.Dir, leaseFile), text)
}
