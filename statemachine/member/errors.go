package member

import "errors"

// Outcomes of a membership change. Each is part of an entry's answer and equal
// on all members.
var (
	ErrNotFound       = errors.New("member not found")
	ErrRemoved        = errors.New("member was removed before and its ID can not come back")
	ErrIDExists       = errors.New("member ID already exists")
	ErrURLExists      = errors.New("peer URL already belongs to a member")
	ErrNotLearner     = errors.New("member is not a learner")
	ErrTooManyLearner = errors.New("too many learners")
	ErrLastVoter      = errors.New("the last voting member can not be removed")
)
