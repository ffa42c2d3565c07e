package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/mvcc/backend"
	"github.com/holdfast-db/holdfast/mvcc/history"
	"github.com/holdfast-db/holdfast/raftnode"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
)

// ErrNotInLog means that a state is none that the Raft log goes on from.
var ErrNotInLog = errors.New("state does not lie within the Raft log")

// Stopped is a member that does not run and whose state is to be replaced by one
// that no peer gives: out of an archive, or a snapshot. Identity, log and vote
// stay as they are; the log is only read.
type Stopped struct {
	ID  datadir.Identity
	Log *wal.Recovered

	cfg Config
	log *wal.Log
}

// OpenStopped opens the log of a member whose directory the caller has locked.
// Close it.
func OpenStopped(cfg Config) (*Stopped, error) {
	if err := cfg.Dir.MayStart(); err != nil {
		return nil, err
	}
	id, err := cfg.Dir.Identity()
	if err != nil {
		return nil, err
	}
	log, found, err := wal.OpenRead(cfg.WAL())
	if err != nil {
		return nil, err
	}
	return &Stopped{ID: id, Log: found, cfg: cfg, log: log}, nil
}

// Close lets go of the log.
func (s *Stopped) Close() error { return s.log.Close() }

// Damage verifies the state in force to the last byte. It returns what speaks
// against using it, nil when it is whole; err means that this cannot be told.
func (s *Stopped) Damage(ctx context.Context) (damage, err error) {
	if damage := Trusted(s.cfg.Dir); damage != nil {
		return damage, nil
	}
	err = s.examine(ctx)
	if IsDamage(err) || errors.Is(err, fs.ErrNotExist) {
		return err, nil
	}
	return nil, err
}

func (s *Stopped) examine(ctx context.Context) error {
	n, err := s.cfg.Dir.Current()
	if err != nil {
		return err
	}
	base, _ := mvcc.Files(s.cfg.Dir.Generation(n))
	// Has it reached the transaction that the log knows of?
	db, err := backend.Open(backend.Config{FS: s.cfg.FS, Path: base, Logger: s.cfg.Logger, MinTxID: minTxID(s.Log.Notes, n)})
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	_, err = snapshot.Examine(ctx, s.cfg.FS, s.cfg.Logger, s.cfg.Dir.Generation(n))
	return err
}

// Joins tells whether the log, as it is, goes on from a state at an entry.
func (s *Stopped) Joins(at wal.Mark) error {
	boot, err := raftnode.PlanBoot(s.Log, raftnode.Applied{Mark: at}, s.log)
	switch {
	case err != nil:
		return err
	case boot.Reset && at.Index > s.Log.Last.Index:
		return fmt.Errorf("state at %s, the log ends with %s: %w", at, s.Log.Last, ErrNotInLog)
	case boot.Reset:
		return fmt.Errorf("state at %s, the log has an entry of another term there: %w", at, ErrNotInLog)
	}
	return nil
}

// Source is where another state comes from.
type Source struct {
	// Write writes a whole snapshot. Where conf is not nil it is the configuration to
	// write: the one that came first was not in force any more at the position.
	Write     func(w io.Writer, conf []byte) error
	Committed ident.Index // The last entry of which the source knows that it was committed.
}

// Replace puts the state that a source writes into force; what was there is
// renamed aside. compared tells whether the history that was there, as far as it
// can be read, reaches the position, and so has shown that the digest is right.
// Until the end nothing but a generation that is not in force is changed.
func (s *Stopped) Replace(ctx context.Context, from Source) (state *snapshot.Received, compared bool, err error) {
	staged, voters, err := s.stage(ctx, from)
	if err != nil {
		return nil, false, err
	}
	if last := s.Log.Last.Index; voters == 1 && from.Committed > last {
		err = fmt.Errorf("the log of the only voter ends with entry %d, and entry %d was committed: %w", last, from.Committed, raftnode.ErrLogLost)
	}
	if err == nil {
		err = s.Joins(wal.Mark{Index: staged.meta.Index, Term: staged.meta.Term})
	}
	if err == nil {
		compared, err = s.agrees(&staged.state.State)
	}
	if err != nil {
		return nil, false, errors.Join(err, staged.Discard())
	}
	if err := staged.Replace(s.Log, s.log); err != nil {
		return nil, false, err // It may be in force already. If not, the next start sets it aside.
	}
	return staged.state, compared, Settle(s.cfg.Dir)
}

// stage receives a state, a second time when the members have changed since the
// configuration that came with it: an archive has that of its bases alone.
func (s *Stopped) stage(ctx context.Context, from Source) (staged *Staged, voters int, err error) {
	var conf []byte
	for {
		staged, err := fetchFrom(ctx, s.cfg, s.ID, s.Log.Notes, func(w io.Writer) error { return from.Write(w, conf) })
		if err != nil {
			return nil, 0, err
		}
		want, voters, err := s.confOf(ctx, staged)
		if err == nil && want == nil {
			return staged, voters, nil
		}
		if err == nil && conf != nil {
			err = fmt.Errorf("the configuration of Raft is not that of the members: %w", snapshot.ErrInvalid)
		}
		conf = want
		if err = errors.Join(err, staged.Discard()); err != nil {
			return nil, 0, err
		}
	}
}

// confOf reads back what was written and compares the configuration with the
// rows of members, which change together. It returns the right one, nil when
// that is there, and how many vote.
func (s *Stopped) confOf(ctx context.Context, staged *Staged) (right []byte, voters int, err error) {
	x, err := snapshot.Examine(ctx, s.cfg.FS, s.cfg.Logger, s.cfg.Dir.Generation(staged.generation))
	if err != nil {
		return nil, 0, err
	}
	if x.Position != staged.state.Position || x.Digest != staged.state.Digest {
		return nil, 0, fmt.Errorf("generation %d stands at %s, received was %s: %w", staged.generation, x.Position, staged.state.Position, backend.ErrDamaged)
	}
	conf := &raftpb.ConfState{}
	for _, m := range x.Members {
		if m.IsLearner {
			conf.Learners = append(conf.Learners, m.Id)
		} else {
			conf.Voters = append(conf.Voters, m.Id)
		}
	}
	slices.Sort(conf.Voters)
	slices.Sort(conf.Learners)
	if slices.Equal(conf.Voters, slices.Sorted(slices.Values(x.Conf.Voters))) && slices.Equal(conf.Learners, slices.Sorted(slices.Values(x.Conf.Learners))) {
		return nil, len(conf.Voters), nil
	}
	right, err = proto.Marshal(conf)
	return right, len(conf.Voters), err
}

// agrees compares a state with the history that is here, as far as that can be
// read. A state that is marked because it went another way than those of others
// proves nothing.
func (s *Stopped) agrees(st *mvcc.State) (compared bool, err error) {
	n, err := s.cfg.Dir.Current()
	if m, found, markErr := s.cfg.Dir.Mark(); err != nil || markErr != nil || found && m.Diverged && m.Generation == n {
		return false, nil
	}
	differs := func(index ident.Index, digest ident.Digest) error {
		return fmt.Errorf("state at %s has digest %s, history here has %s after entry %d: %w", st.Position, st.Digest, digest, index, mvcc.ErrDiverged)
	}
	_, records := mvcc.Files(s.cfg.Dir.Generation(n))
	_, _ = history.Verify(s.cfg.FS, records, func(f history.Found) error { // It ends where the damage is.
		switch rec, groups := f.Record, f.Record.Groups; {
		case rec.Index == st.Position.Index && len(groups) > 0:
			if compared = true; groups[len(groups)-1].Digest != st.Digest {
				err = differs(rec.Index, groups[len(groups)-1].Digest)
			}
		case rec.PrevIndex <= st.Position.Index && st.Position.Index < rec.Index:
			if compared = true; rec.PrevDigest != st.Digest {
				err = differs(rec.PrevIndex, rec.PrevDigest)
			}
		}
		return err
	})
	return compared, err
}

// Settle removes the mark of a generation that was replaced. One that differed
// from others keeps it until its alarm is off.
func Settle(dir *datadir.Dir) error {
	if m, found, err := dir.Mark(); err == nil && (!found || m.Diverged) {
		return nil
	}
	return dir.Unmark()
}
