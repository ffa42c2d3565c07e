// Package leader has one of several processes do a thing at a time: the scheduler
// and the controllers campaign under /holdfast/leader/NAME in the store.
//
// Who leads gets a fence: the key of its claim and the revision that created it. A
// write that carries it is executed only while that claim stands, so that one who
// was stopped for a minute, and believes to lead still, changes nothing.
//
// A process that dies is followed after the TTL of its lease. Nothing is left behind
// but keys on that lease.
package leader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/recipe"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

const (
	ttlSeconds = 10          // How long a dead leader is waited for.
	retryDelay = time.Second // Between campaigns that failed.

	// resignMax bounds the farewell: the lease says it anyway.
	resignMax = 2 * time.Second
)

// Prefix is that of the keys of all elections.
const Prefix = "/holdfast/leader/"

// Config says who campaigns for what. Client, Name and Logger are required.
type Config struct {
	Client *client.Client
	Name   string // "scheduler", "controllers".
	Value  string // Who this is: a Claim.
	TTL    int64  // Seconds. Default 10.
	Logger hclog.Logger
	Clock  clock.Clock // Default: the machine's.
}

// Run campaigns, and calls lead while this process leads: its context ends when the
// lease may be lost. When lead returns the leadership is given up. Run returns when
// ctx has ended, or with the error of a lead that failed while it led.
func Run(ctx context.Context, cfg Config, lead func(ctx context.Context, fence *kubepb.Fence) error) error {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	if cfg.TTL == 0 {
		cfg.TTL = ttlSeconds
	}
	for {
		err := term(ctx, &cfg, lead)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var failed *leadError
		if errors.As(err, &failed) {
			return failed.err
		}
		cfg.Logger.Warn("leadership ended, campaigning again", "of", cfg.Name, "error", err)
		select {
		case <-cfg.Clock.After(retryDelay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Forget gives up what a process that has ended claimed. The caller knows that nobody
// campaigns under the name of this claim any more: that it is its own predecessor's, for
// example. Without it that claim lasts until its lease has run out.
func Forget(ctx context.Context, c *client.Client, part string, of Claim) error {
	claims, err := c.Get(ctx, client.Get{Range: client.Prefix(Prefix + part + "/")})
	if err != nil {
		return fmt.Errorf("claims of %s: %w", part, err)
	}
	for _, kv := range claims.Kvs {
		if ParseClaim(string(kv.Value)).Name != of.Name || kv.Lease == 0 {
			continue
		}
		if _, err := c.Revoke(ctx, kv.Lease); err != nil && !errors.Is(err, client.ErrLeaseNotFound) {
			return fmt.Errorf("claim of %s: %w", part, err)
		}
	}
	return nil
}

// leadError tells a failure of lead from one of the election.
type leadError struct{ err error }

func (e *leadError) Error() string { return e.err.Error() }

// term is one leadership: from the campaign to the end.
func term(ctx context.Context, cfg *Config, lead func(context.Context, *kubepb.Fence) error) error {
	session, err := recipe.NewSession(ctx, cfg.Client, recipe.SessionConfig{TTL: cfg.TTL})
	if err != nil {
		return fmt.Errorf("session: %w", err)
	}
	defer func() {
		farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignMax)
		defer cancel()
		if err := session.Close(farewell); err != nil {
			cfg.Logger.Debug("lease is left to run out", "of", cfg.Name, "error", err)
		}
	}()
	inOffice, cancel := context.WithCancel(ctx)
	watchdog := task.New(inOffice)
	defer func() { _ = watchdog.Wait() }() // It never fails.
	defer cancel()
	watchdog.Go("leader watchdog", func(ctx context.Context) error {
		select {
		case <-session.Done():
			cancel()
		case <-ctx.Done():
		}
		return nil
	})

	election := recipe.NewElection(session, Prefix+cfg.Name)
	if err := election.Campaign(inOffice, cfg.Value); err != nil {
		return fmt.Errorf("campaign: %w", err)
	}
	cfg.Logger.Info("leads", "of", cfg.Name, "revision", election.Revision())
	err = lead(inOffice, &kubepb.Fence{Key: election.Key(), CreateRevision: election.Revision()})
	if inOffice.Err() != nil { // It obeyed.
		return recipe.ErrSessionExpired
	}
	if err != nil {
		return &leadError{err}
	}
	return errors.New("it was given up")
}
