package controller

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// recoveryLook is how often it is looked whether a recovery is settled.
const recoveryLook = 2 * time.Second

// recovery knows whether the store was restored and it is not settled yet what becomes
// of what runs. Until then nobody makes, ends or scales anything.
type recovery struct {
	term *term
	is   atomic.Pointer[kubepb.RecoveryResponse] // Nil: not known yet.
}

// held reports whether objects may be older than what runs, and nothing is made of them.
func (r *recovery) held() bool {
	is := r.is.Load()
	return is == nil || is.Hold == kubepb.Hold_HOLD_ALL
}

// unreported are the nodes that have not told what they run, and are waited for.
func (r *recovery) unreported() map[string]bool {
	is := r.is.Load()
	if is == nil || is.Hold == kubepb.Hold_HOLD_NONE {
		return nil
	}
	nodes := map[string]bool{}
	for _, n := range is.Nodes {
		nodes[n.Node] = n.Reported == 0 && !n.GivenUp
	}
	return nodes
}

// first asks until it is known.
func (r *recovery) first(ctx context.Context) error {
	for {
		_, err := r.look(ctx)
		if err == nil || errors.Is(err, objects.ErrFenced) || ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		r.term.log.Debug("the state of the recovery is not known, asking again", "error", err)
		select {
		case <-r.term.clock.After(watchRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run looks until all is settled; that lasts until another restore, which no process
// outlives.
func (r *recovery) run(ctx context.Context) error {
	for {
		is, err := r.look(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, objects.ErrFenced):
			return err
		case err != nil:
			r.term.log.Debug("the state of the recovery is not known, asking again", "error", err)
		case is.Hold == kubepb.Hold_HOLD_NONE:
			return nil
		}
		select {
		case <-r.term.clock.After(recoveryLook):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look asks how far it is, and brings it further where nobody has to decide.
func (r *recovery) look(ctx context.Context) (*kubepb.RecoveryResponse, error) {
	t := r.term
	ctx, cancel := context.WithTimeout(ctx, recoveryCall)
	defer cancel()
	is, err := t.client.Recovery(ctx, false)
	if err != nil {
		return nil, err
	}
	if before := r.is.Swap(is); before.GetHold() == kubepb.Hold_HOLD_ALL && is.Hold < kubepb.Hold_HOLD_ALL {
		t.log.Info("controllers go on after the restore", "state", is.State.String())
	}
	action, due := next(is, t.cfg.Recovery, t.clock.Wall())
	if !due {
		return is, nil
	}
	_, err = t.client.Recover(ctx, &kubepb.RecoverRequest{Action: action, FenceKey: t.fence.GetKey(), FenceRevision: t.fence.GetCreateRevision()})
	return is, err
}

// next is what follows without anybody's decision: all is settled where nothing is to
// be decided and every node has told; and after a while the others do not wait.
func next(is *kubepb.RecoveryResponse, l RecoveryLimits, now time.Time) (action kubepb.RecoverRequest_Action, due bool) {
	if is.State == kubepb.RecoveryResponse_SETTLED {
		return 0, false
	}
	open := now.Sub(time.Unix(is.Since, 0))
	waits := is.Undecided > 0
	for _, n := range is.Nodes {
		waits = waits || n.Reported == 0 && !n.GivenUp
	}
	switch {
	case !waits && open >= l.Quiet:
		return kubepb.RecoverRequest_SETTLE, true
	case is.State == kubepb.RecoveryResponse_OPEN && open >= l.Bound:
		return kubepb.RecoverRequest_PROCEED, true
	}
	return 0, false
}

const recoveryCall = 30 * time.Second

// RecoveryLimits are how long controllers wait after a restore. Zero fields mean the
// defaults.
type RecoveryLimits struct {
	// Quiet is how long nodes that are not recorded have to appear before all is
	// settled. Default 15 s.
	Quiet time.Duration
	// Bound is how long controllers and scheduler wait for a decision. Default 10 min.
	Bound time.Duration
}

func (l RecoveryLimits) defaults() RecoveryLimits {
	if l.Quiet == 0 {
		l.Quiet = 15 * time.Second
	}
	if l.Bound == 0 {
		l.Bound = 10 * time.Minute
	}
	return l
}
