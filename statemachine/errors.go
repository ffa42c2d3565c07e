package statemachine

import (
	"errors"

	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/statemachine/auth"
	"github.com/holdfast-db/holdfast/statemachine/lease"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

// Outcomes that are no fault of a table below. Part of an entry's answer,
// equal on all members.
var (
	ErrEmptyKey    = errors.New("key is empty") // Servers refuse it before; a log may hold it all the same.
	ErrNoSpace     = errors.New("database space exceeded")
	ErrCorrupt     = errors.New("a member has raised the alarm CORRUPT")
	ErrUndecodable = errors.New("request can not be decoded")
	ErrUnknown     = errors.New("request of a kind this version does not know")
	ErrMismatch    = errors.New("configuration change does not match its command")
	ErrTerm        = errors.New("lease expiry was found by the leader of another term")
)

// outcomes are all errors that a request may end with. Any other means that
// this member could not do what the others did: a file it can not read, say.
var outcomes = []error{
	ErrEmptyKey, ErrNoSpace, ErrCorrupt, ErrUndecodable, ErrUnknown, ErrMismatch, ErrTerm,
	mvcc.ErrCompacted, mvcc.ErrFutureRevision, mvcc.ErrKeyNotFound, mvcc.ErrTooLarge,
	lease.ErrNotFound, lease.ErrExists, lease.ErrTTL,
	member.ErrNotFound, member.ErrRemoved, member.ErrIDExists, member.ErrURLExists,
	member.ErrNotLearner, member.ErrTooManyLearner, member.ErrLastVoter,
	auth.ErrRootUser, auth.ErrRootRole, auth.ErrNobody, auth.ErrDenied, auth.ErrOldRevision, auth.ErrNotEnabled, auth.ErrFailed,
	auth.ErrUserName, auth.ErrUserExists, auth.ErrUserNotFound, auth.ErrRoleName, auth.ErrRoleExists, auth.ErrRoleNotFound,
	auth.ErrNotGranted, auth.ErrNoPermission, auth.ErrNotPermitted, auth.ErrManagement, auth.ErrRowTooLarge,
}

func isOutcome(err error) bool {
	for _, outcome := range outcomes {
		if errors.Is(err, outcome) {
			return true
		}
	}
	return false
}
