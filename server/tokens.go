package server

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// tokens are the simple ones: made by an entry of the log, known to each member
// that has executed it, void after a while without use by that member's clock.
// It is an auth.Watcher.
type tokens struct {
	clock    clock.Clock
	ttl      time.Duration
	sessions sync.Map // Token to *session. Read at every request, so without a lock.
	count    atomic.Int64
}

type session struct {
	user string
	used atomic.Int64 // By the monotonic clock, nanoseconds.
}

func newTokens(c clock.Clock, ttl time.Duration) *tokens { return &tokens{clock: c, ttl: ttl} }

// user of a token, which is good for as long again.
func (t *tokens) user(token string) (string, bool) {
	v, ok := t.sessions.Load(token)
	if !ok {
		return "", false
	}
	s := v.(*session)
	now := t.clock.Mono()
	if now-time.Duration(s.used.Load()) > t.ttl {
		t.remove(token)
		return "", false
	}
	s.used.Store(int64(now))
	return s.user, true
}

func (t *tokens) remove(token any) {
	if _, there := t.sessions.LoadAndDelete(token); there {
		t.count.Add(-1)
	}
}

// full tells that no more users may log in for now.
func (t *tokens) full() bool { return t.count.Load() >= tokensMax }

// Assigned implements auth.Watcher.
func (t *tokens) Assigned(token, user string) {
	s := &session{user: user}
	s.used.Store(int64(t.clock.Mono()))
	if _, there := t.sessions.Swap(token, s); !there {
		t.count.Add(1)
	}
}

// Invalidated implements auth.Watcher.
func (t *tokens) Invalidated(user string) {
	t.removeIf(func(s *session) bool { return s.user == user })
}

// Disabled implements auth.Watcher.
func (t *tokens) Disabled() { t.removeIf(func(*session) bool { return true }) }

func (t *tokens) removeIf(void func(*session) bool) {
	t.sessions.Range(func(token, s any) bool {
		if void(s.(*session)) {
			t.remove(token)
		}
		return true
	})
}

// sweep takes void tokens out of memory.
func (t *tokens) sweep(ctx context.Context) error {
	return every(ctx, t.clock, tokenSweepInterval, func() {
		now := t.clock.Mono()
		t.removeIf(func(s *session) bool { return now-time.Duration(s.used.Load()) > t.ttl })
	})
}

const tokenLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// drawPrefix draws the part of a token that nobody can guess.
func drawPrefix(random io.Reader) (string, error) {
	prefix := make([]byte, 0, tokenPrefixBytes)
	for buf := make([]byte, 2*tokenPrefixBytes); len(prefix) < tokenPrefixBytes; {
		if _, err := io.ReadFull(random, buf); err != nil {
			return "", fmt.Errorf("draw a token: %w", err)
		}
		for _, b := range buf {
			// Four letters are one in 256 more likely than they should be if the rest is not thrown away.
			if int(b) < 256/len(tokenLetters)*len(tokenLetters) && len(prefix) < tokenPrefixBytes {
				prefix = append(prefix, tokenLetters[int(b)%len(tokenLetters)])
			}
		}
	}
	return string(prefix), nil
}
