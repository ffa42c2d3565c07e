package datadir

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/holdfast-db/holdfast/internal/ident"
)

const (
	untrustedName = "UNTRUSTED"
	peersName     = "PEERS"
)

// Mark says that a generation is not to be used any more, although it may look
// intact: after a failed sync nobody knows what the disk holds (I-10), and a
// state that went another way than those of others is whole and wrong. It lies
// beside the generation, and is void once CURRENT names another one.
type Mark struct {
	Generation int
	Reason     string
	Diverged   bool // It differed from a quorum: an alarm was raised for it.
}

// Distrust marks a generation. The first reason stays.
func (d *Dir) Distrust(m Mark) error {
	if old, found, err := d.Mark(); err == nil && found && old.Generation == m.Generation {
		return nil
	}
	return d.write(untrustedName, m)
}

// Mark returns the last mark, which may be of a generation that is not used any
// more. One that can not be read is an error: it was made for a reason.
func (d *Dir) Mark() (m Mark, found bool, err error) {
	err = d.read(untrustedName, &m)
	if errors.Is(err, ErrEmpty) {
		return Mark{}, false, nil
	}
	return m, err == nil, err
}

// Unmark removes the mark: what it was about is no longer in use.
func (d *Dir) Unmark() error {
	if _, found, err := d.Mark(); err == nil && !found {
		return nil
	}
	if err := d.fs.Remove(filepath.Join(d.path, untrustedName)); err != nil {
		return fmt.Errorf("remove %s: %w", filepath.Join(d.path, untrustedName), err)
	}
	return d.fs.SyncDir(d.path)
}

// Peer is another member and where it listens: where to ask for a state when the
// own one, which knows them too, can not be read.
type Peer struct {
	ID   ident.MemberID
	URLs []string
}

// SetPeers says who the other members are. It is a hint, and only as new as the
// last call.
func (d *Dir) SetPeers(list []Peer) error { return d.write(peersName, list) }

// Peers returns what SetPeers was told last, nothing when that can not be read.
func (d *Dir) Peers() []Peer {
	var list []Peer
	if err := d.read(peersName, &list); err != nil {
		return nil
	}
	return list
}
