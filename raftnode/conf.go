package raftnode

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// ResolveConf ends the committed configuration change at index: Raft works by
// it from now on, unless the state machine refuses it. It returns the
// configuration in force behind the entry. It must be called for the changes in
// order, each before anything later is applied, and works after a failure too,
// since apply must be able to finish what it began.
//
// A change that is not possible, which the leader's check before proposing
// rules out, changes nothing on any member.
//
// While a snapshot waits for apply to finish what is below it, Raft stands in
// the snapshot's configuration already: changes below it are none of its
// business any more, they only concern the state that is about to be replaced.
func (c *Core) ResolveConf(index ident.Index, change *raftpb.ConfChangeV2, accept bool) *raftpb.ConfState {
	if !accept {
		return proto.CloneOf(c.resolved)
	}
	next, err := changed(c.resolved, change)
	if err != nil {
		c.logger.Error("committed configuration change is not possible", "index", uint64(index), "error", err)
		return proto.CloneOf(c.resolved)
	}
	next = raftpb.EnsureConfState(next)
	if index > c.restored {
		c.follow(change, next)
		c.resolvedAt = index
	}
	c.resolved = next
	return proto.CloneOf(next)
}

// follow lets Raft work by a change.
func (c *Core) follow(change *raftpb.ConfChangeV2, next *raftpb.ConfState) {
	removed := hasMember(c.conf, c.id) && !hasMember(next, c.id)
	if c.failed == nil {
		c.guard(func() error {
			if removed {
				c.abdicate(next)
			}
			if got := c.raft.ApplyConfChange(change); got.Equivalent(next) != nil {
				return fmt.Errorf("%w: configuration %v, expected %v", ErrRaft, got, next)
			}
			return nil
		})
	}
	c.removed = c.removed || removed
	c.conf, c.shared = next, c.log.last.Index
	c.log.stale = true // A new member would refuse a state that does not know it.
}

// abdicate lets the best of the remaining voters start an election at once,
// where this member leads and is no part of the next configuration. Otherwise
// the others would wait for an election timeout.
func (c *Core) abdicate(next *raftpb.ConfState) {
	if c.role != raft.StateLeader {
		return
	}
	stays := func(id ident.MemberID) bool { return slices.Contains(next.Voters, uint64(id)) }
	if to := c.heir(stays, anyVoter); to != 0 { // Who lacks entries could not begin before this member is out: clocks come second.
		c.raft.TransferLeader(uint64(to))
	}
}

// Removed reports whether this member was voted out of the cluster. For about
// an election timeout it should go on, to vote for its successor and to
// acknowledge what the others still need; it serves no clients any more.
func (c *Core) Removed() bool { return c.removed }

func hasMember(conf *raftpb.ConfState, id ident.MemberID) bool {
	for _, set := range [][]uint64{conf.Voters, conf.VotersOutgoing, conf.Learners, conf.LearnersNext} {
		for _, member := range set {
			if member == uint64(id) {
				return true
			}
		}
	}
	return false
}

// changer stands in a configuration without a Raft around it.
func changer(conf *raftpb.ConfState) (confchange.Changer, error) {
	empty := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: 1}
	config, progress, err := confchange.Restore(empty, conf)
	if err != nil {
		return empty, fmt.Errorf("%s: %w", err, ErrConfInvalid)
	}
	empty.Tracker.Config, empty.Tracker.Progress = config, progress
	return empty, nil
}

// changed tells what a change makes of a configuration.
func changed(conf *raftpb.ConfState, change *raftpb.ConfChangeV2) (*raftpb.ConfState, error) {
	if t := change.GetTransition(); t < raftpb.ConfChangeTransitionAuto || t > raftpb.ConfChangeTransitionJointExplicit {
		return nil, fmt.Errorf("transition %d: %w", t, ErrConfInvalid)
	}
	c, err := changer(conf)
	if err != nil {
		return nil, err
	}
	var config tracker.Config
	var progress tracker.ProgressMap
	if change.LeaveJoint() {
		config, progress, err = c.LeaveJoint()
	} else if autoLeave, joint := change.EnterJoint(); joint {
		config, progress, err = c.EnterJoint(autoLeave, change.Changes...)
	} else {
		config, progress, err = c.Simple(change.Changes...)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", err, ErrConfInvalid)
	}
	c.Tracker.Config, c.Tracker.Progress = config, progress
	return c.Tracker.ConfState(), nil
}

func checkChange(conf *raftpb.ConfState, change *raftpb.ConfChangeV2) error {
	_, err := changed(conf, change)
	return err
}

// checkConfState refuses a configuration that Raft could not start from.
func checkConfState(conf *raftpb.ConfState) error {
	if len(conf.GetVoters()) == 0 {
		return fmt.Errorf("no voters: %w", ErrConfInvalid)
	}
	c, err := changer(conf)
	if err != nil {
		return err
	}
	if err := conf.Equivalent(c.Tracker.ConfState()); err != nil {
		return fmt.Errorf("%s: %w", err, ErrConfInvalid)
	}
	return nil
}
