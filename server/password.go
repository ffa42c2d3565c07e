package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/holdfast-db/holdfast/proto/authpb"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// passwords makes and compares hashes. That is slow on purpose, so it is done
// outside of apply, by a bounded number at a time, and not again for what was
// right before.
//
// Invariant: no password is kept. What was right is remembered as a hash under
// a key of this process, over name, password and the stored hash together: a
// new password, or another user under an old name, is another hash.
type passwords struct {
	cost  int
	key   []byte
	dummy []byte        // Compared with when there is no such user, so that it takes as long.
	slots chan struct{} // One for each hash being made.
	queue chan struct{} // One for each that is made or waits.

	mu     sync.Mutex
	right  map[[sha256.Size]byte]struct{}
	oldest [][sha256.Size]byte // A ring, in the order of arrival.
	next   int
}

func newPasswords(cost int, key []byte) *passwords {
	return &passwords{
		cost: cost, key: key,
		slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)), // One processor stays for other requests.
		queue: make(chan struct{}, hashesWaitingMax),
		right: map[[sha256.Size]byte]struct{}{},
	}
}

func (p *passwords) enter(ctx context.Context) error {
	select {
	case p.queue <- struct{}{}:
	default:
		return errTooManyRequests
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-p.queue
		return ctx.Err()
	}
}

func (p *passwords) leave() {
	<-p.slots
	<-p.queue
}

// hash of a new password.
func (p *passwords) hash(ctx context.Context, password string) ([]byte, error) {
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	defer p.leave()
	return bcrypt.GenerateFromPassword([]byte(password), p.cost)
}

// check compares a password with that of a user, nil for one who is not there.
func (p *passwords) check(ctx context.Context, user *authpb.User, password string) error {
	if user.GetOptions().GetNoPassword() {
		return auth.ErrNoPassword
	}
	var sum [sha256.Size]byte
	if user != nil {
		sum = p.sum(user, password)
		if p.known(sum) {
			return nil
		}
	}
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.leave()
	if user != nil && p.known(sum) { // Found out by another while this one waited.
		return nil
	}
	stored := user.GetPassword()
	if user == nil {
		if stored = p.nobody(); stored == nil {
			return auth.ErrFailed
		}
	}
	if err := bcrypt.CompareHashAndPassword(stored, []byte(password)); err != nil || user == nil {
		return auth.ErrFailed
	}
	p.learn(sum)
	return nil
}

// nobody is the hash that the password of a user who is not there is compared with.
func (p *passwords) nobody() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dummy == nil {
		p.dummy, _ = bcrypt.GenerateFromPassword(p.key, p.cost) // The key is 32 bytes, so it can not fail.
	}
	return p.dummy
}

func (p *passwords) sum(user *authpb.User, password string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, p.key)
	var length [8]byte
	for _, part := range [][]byte{user.Name, user.Password, []byte(password)} {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	h.Sum(sum[:0])
	return sum
}

func (p *passwords) known(sum [sha256.Size]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.right[sum]
	return ok
}

func (p *passwords) learn(sum [sha256.Size]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.right[sum]; ok {
		return
	}
	p.right[sum] = struct{}{}
	if len(p.oldest) < verifiedMax {
		p.oldest = append(p.oldest, sum)
		return
	}
	delete(p.right, p.oldest[p.next])
	p.oldest[p.next] = sum
	p.next = (p.next + 1) % verifiedMax
}
