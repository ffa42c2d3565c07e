package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// ownerLease is owner.json: which member ships. It spares work, safety does not
// stand on it: two members that ship write equal pasts.
type ownerLease struct {
	Format  int    `json:"format"`
	Member  string `json:"member"`
	Serial  uint64 `json:"serial"`  // Rises with each write.
	TTL     string `json:"ttl"`     // How long it holds after it was last seen to change.
	Renewed string `json:"renewed"` // When, for people.
	Fenced  bool   `json:"fenced"`  // Whether the member looks for epochs.
}

// lease takes and keeps the ownership of one archive for a member. One goroutine.
type lease struct {
	store  blobstore.Store
	name   string
	member ident.MemberID
	ttl    time.Duration
	clock  clock.Clock
	fenced bool

	tag    blobstore.Tag // Of what was seen last.
	seen   time.Duration // When that first was, by our own clock: clocks of members are not compared.
	serial uint64
	held   bool
	since  time.Duration // When the write that we hold it by was begun.
}

// try takes the lease if it is free, or renews it if it is ours. A member that
// would rather not own it takes only what was free for another term.
func (l *lease) try(ctx context.Context, reluctant bool) (bool, error) {
	now := l.clock.Mono()
	data, tag, err := l.store.Get(ctx, l.name)
	absent := errors.Is(err, blobstore.ErrNotFound)
	if err != nil && !absent {
		return l.valid(), fmt.Errorf("object %s: %w", l.name, err)
	}
	there := ownerLease{}
	if !absent {
		if err := decodeText(l.name, data, &there); err != nil {
			return false, err
		}
	}
	if l.seen == 0 || tag != l.tag {
		l.tag, l.seen, l.serial = tag, max(now, 1), there.Serial
	}
	ours := !absent && there.Member == l.member.String()
	free := l.seen + l.ttl
	if absent {
		free = l.seen
	}
	if reluctant {
		free += l.ttl
	}
	if !ours && now < free {
		l.held = false
		return false, nil
	}
	return l.write(ctx, now, absent)
}

func (l *lease) write(ctx context.Context, now time.Duration, absent bool) (bool, error) {
	text, err := encodeText(ownerLease{
		Format: FormatVersion, Member: l.member.String(), Serial: l.serial + 1, TTL: l.ttl.String(),
		Renewed: l.clock.Wall().UTC().Format(time.RFC3339), Fenced: l.fenced,
	})
	if err != nil {
		return false, err
	}
	tag, err := l.store.Put(ctx, l.name, text, blobstore.Condition{Absent: absent, Match: l.tag})
	if errors.Is(err, blobstore.ErrCondition) {
		l.held = false
		return false, nil
	}
	if err != nil {
		return l.valid(), fmt.Errorf("object %s: %w", l.name, err)
	}
	l.tag, l.seen, l.since, l.serial, l.held = tag, max(now, 1), now, l.serial+1, true
	return true, nil
}

// valid reports whether the lease is held, with a third of it left: whoever
// holds it stops before others may begin.
func (l *lease) valid() bool { return l.held && l.clock.Mono() < l.since+l.ttl*2/3 }
