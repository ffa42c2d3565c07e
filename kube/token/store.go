package token

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/pki"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

const keyPrefix = "/holdfast/token/"

// Limits.
const (
	lifeDefault     = 24 * time.Hour
	lifeMin         = time.Minute
	lifeMax         = 365 * 24 * time.Hour // What never ends is forgotten, and found by others.
	usesMax         = 1000                 // Each use is an entry of the record, which is one value.
	descriptionMax  = 256
	contentionTries = 16 // Of nodes that use one token at one moment, one makes progress each time.
)

// Config is what a Store stands on.
type Config struct {
	Client *client.Client
	Clock  clock.Clock
}

// Store keeps the records.
type Store struct{ cfg Config }

// New returns a Store. It holds nothing that must be closed.
func New(cfg Config) *Store { return &Store{cfg} }

// Request says what a new token shall be.
type Request struct {
	Life        time.Duration // 0: 24 hours.
	Uses        int           // How many nodes it lets in. 0: one.
	Node        string        // The only name of a node that it is for. Empty: any.
	Description string
	Authority   [sha256.Size]byte // Of the cluster's authority: pki.Authority.Hash.
}

// Record is what the store knows of a token.
type Record struct {
	ID          string    `json:"id"`
	SecretHash  string    `json:"secretHash"` // SHA-256 in hexadecimal.
	Created     time.Time `json:"created"`
	Expires     time.Time `json:"expires"`
	Uses        int       `json:"uses"`
	Node        string    `json:"node,omitempty"`
	Description string    `json:"description,omitempty"`
	Used        []Use     `json:"used,omitempty"`

	revision, lease int64
}

// Use is one redemption.
type Use struct {
	Node string    `json:"node"`
	Key  string    `json:"key"` // pki.KeyHash of the key that the node asked with.
	At   time.Time `json:"at"`
}

// Create makes a token. Its secret is in the answer and nowhere else.
func (s *Store) Create(ctx context.Context, req Request) (Token, *Record, error) {
	if err := req.check(); err != nil {
		return Token{}, nil, err
	}
	t := Token{ID: random(idBytes), secret: random(secretBytes), Authority: req.Authority}
	now := s.cfg.Clock.Wall().UTC().Truncate(time.Second)
	r := &Record{
		ID: t.ID, SecretHash: hashOf(t.secret), Created: now, Expires: now.Add(req.Life),
		Uses: req.Uses, Node: req.Node, Description: req.Description,
	}
	lease, err := s.cfg.Client.Grant(ctx, int64(req.Life/time.Second), 0)
	if err != nil {
		return Token{}, nil, fmt.Errorf("grant the lease of a token: %w", err)
	}
	r.lease = lease.ID
	written, err := s.write(ctx, r)
	if err == nil && !written {
		err = fmt.Errorf("%w: another of this ID was made at this moment: try again", ErrRequest)
	}
	if err != nil {
		return Token{}, nil, err
	}
	return t, r, nil
}

func (r *Request) check() error {
	if r.Life == 0 {
		r.Life = lifeDefault
	}
	if r.Uses == 0 {
		r.Uses = 1
	}
	switch {
	case r.Life < lifeMin || r.Life > lifeMax:
		return fmt.Errorf("%w: it may live from %v to %v, not %v", ErrRequest, lifeMin, lifeMax, r.Life)
	case r.Uses < 1 || r.Uses > usesMax:
		return fmt.Errorf("%w: it may be used 1 to %d times, not %d", ErrRequest, usesMax, r.Uses)
	case len(r.Description) > descriptionMax:
		return fmt.Errorf("%w: its description has %d bytes: at most %d", ErrRequest, len(r.Description), descriptionMax)
	case r.Node != "":
		return pki.CheckNodeName(r.Node)
	}
	return nil
}

// List returns all tokens that have not expired, by ID.
func (s *Store) List(ctx context.Context) ([]*Record, error) {
	got, err := s.cfg.Client.Get(ctx, client.Get{Range: client.Prefix(keyPrefix)})
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	var all []*Record
	for _, kv := range got.GetKvs() {
		r, err := decode(kv.GetKey(), kv.GetValue())
		if err != nil {
			return nil, err
		}
		if s.cfg.Clock.Wall().Before(r.Expires) {
			all = append(all, r)
		}
	}
	return all, nil
}

// Revoke ends a token. Certificates that it led to stay.
func (s *Store) Revoke(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	gone, err := s.cfg.Client.Delete(ctx, client.Delete{Range: client.One(keyPrefix + id)})
	if err != nil {
		return fmt.Errorf("revoke token %s: %w", id, err)
	}
	if gone.GetDeleted() == 0 {
		return fmt.Errorf("%w: %s (expired, revoked, or never made)", ErrUnknown, id)
	}
	return nil
}

// Redeem lets a node in that shows ID.SECRET, once for each use. key is the
// pki.KeyHash of what it wants signed.
func (s *Store) Redeem(ctx context.Context, proof, node, key string) error {
	t, err := parseProof(proof)
	if err != nil {
		return err
	}
	if err := pki.CheckNodeName(node); err != nil {
		return err
	}
	for range contentionTries {
		r, err := s.read(ctx, t.ID)
		if err != nil {
			return err
		}
		again, err := s.admits(r, t, node, key)
		if again || err != nil {
			return err
		}
		r.Used = append(r.Used, Use{Node: node, Key: key, At: s.cfg.Clock.Wall().UTC().Truncate(time.Second)})
		if written, err := s.write(ctx, r); written || err != nil {
			return err
		}
	}
	return fmt.Errorf("redeem token %s: others use it at this moment: try again", t.ID)
}

// admits tells whether a node may use a token, and whether it has done so before.
func (s *Store) admits(r *Record, t Token, node, key string) (again bool, err error) {
	if subtle.ConstantTimeCompare([]byte(r.SecretHash), []byte(hashOf(t.secret))) != 1 {
		return false, fmt.Errorf("%w: %s (expired, revoked, or never made)", ErrUnknown, t.ID) // As if there were none: who guesses learns nothing.
	}
	if !s.cfg.Clock.Wall().Before(r.Expires) {
		return false, fmt.Errorf("%w: %s, on %s: make a new one", ErrExpired, r.ID, r.Expires.Format(time.RFC3339))
	}
	if r.Node != "" && r.Node != node {
		return false, fmt.Errorf("%w: %s is for %s, not for %s", ErrNode, r.ID, r.Node, node)
	}
	if slices.ContainsFunc(r.Used, func(u Use) bool { return u.Node == node && u.Key == key }) {
		return true, nil
	}
	if len(r.Used) >= r.Uses {
		return false, fmt.Errorf("%w: %s, by %s: make a new one", ErrUsed, r.ID, r.Used[len(r.Used)-1].Node)
	}
	return false, nil
}

func (s *Store) read(ctx context.Context, id string) (*Record, error) {
	got, err := s.cfg.Client.Get(ctx, client.Get{Range: client.One(keyPrefix + id)})
	if err != nil {
		return nil, fmt.Errorf("read token %s: %w", id, err)
	}
	if len(got.GetKvs()) == 0 {
		return nil, fmt.Errorf("%w: %s (expired, revoked, or never made)", ErrUnknown, id)
	}
	kv := got.GetKvs()[0]
	r, err := decode(kv.GetKey(), kv.GetValue())
	if err != nil {
		return nil, err
	}
	r.revision, r.lease = kv.GetModRevision(), kv.GetLease()
	return r, nil
}

// write stores a record if nobody changed it since it was read.
func (s *Store) write(ctx context.Context, r *Record) (bool, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	key := keyPrefix + r.ID
	done, err := s.cfg.Client.Txn(ctx, client.Txn{
		If:   []client.Compare{client.IfModified(key, pb.Compare_EQUAL, r.revision)},
		Then: []client.Op{client.Put{Key: key, Value: value, Lease: r.lease}},
	})
	if err != nil {
		return false, fmt.Errorf("write token %s: %w", r.ID, err)
	}
	return done.GetSucceeded(), nil
}

func decode(key, value []byte) (*Record, error) {
	r := &Record{}
	if err := json.Unmarshal(value, r); err != nil {
		return nil, fmt.Errorf("record %s: %w: was it written by another version?", key, err)
	}
	if string(key) != keyPrefix+r.ID {
		return nil, fmt.Errorf("record %s is of token %q: was it written by hand?", key, r.ID)
	}
	return r, nil
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) // Never fails: it ends the process instead.
	return letters.EncodeToString(b)
}
