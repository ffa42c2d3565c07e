package check

import (
	"slices"

	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/tests/model"
)

// definite are the errors of a server that say that a request has no effect and
// never will, by their text. A time-out says nothing, whoever noticed it; nor
// does an answer that was too large to receive.
var definite = []string{
	model.ErrEmptyKey.Error(), model.ErrKeyNotFound.Error(), model.ErrValueProvided.Error(), model.ErrLeaseProvided.Error(),
	model.ErrTooManyOps.Error(), model.ErrDuplicateKey.Error(), model.ErrSortOption.Error(), model.ErrCompacted.Error(),
	model.ErrFutureRevision.Error(), model.ErrLeaseTTL.Error(), model.ErrLeaseNotFound.Error(), model.ErrLeaseExists.Error(),
	"etcdserver: no leader",
	"etcdserver: leader changed",
	"etcdserver: too many requests",
	"etcdserver: request is too large",
	"etcdserver: mvcc: database space exceeded",
	"etcdserver: corrupt cluster",
	"etcdserver: rpc not supported for learner",
	"etcdserver: permission denied",
	"etcdserver: invalid auth token",
	"etcdserver: user name is empty",
	"etcdserver: revision of auth store is old",
}

// OutcomeOf tells what an error of a gRPC call says of its request, and the
// text to write down. The call must not have been tried again by the client.
func OutcomeOf(err error) (o Outcome, text string) {
	if err == nil {
		return Acknowledged, ""
	}
	text = status.Convert(err).Message()
	if slices.Contains(definite, text) {
		return Refused, text
	}
	return Unknown, text
}
