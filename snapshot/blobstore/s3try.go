package blobstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	waitMin = 50 * time.Millisecond // Between tries, doubled each time.
	waitMax = 5 * time.Second
)

// try calls f until it succeeds, fails for good, or has had its tries. Each gets
// its own time, which more lengthens by that of so many bytes.
func (s *s3Store) try(ctx context.Context, f func(ctx context.Context, more func(bytes int64)) error) error {
	wait := waitMin
	for n := 1; ; n++ {
		err := s.once(ctx, f)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || !transient(err) {
			return err
		}
		if n == s.tries {
			return fmt.Errorf("tried %d times: %w", n, err)
		}
		select {
		case <-s.clock.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait = min(2*wait, waitMax)
	}
}

func (s *s3Store) once(ctx context.Context, f func(ctx context.Context, more func(bytes int64)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var late atomic.Bool
	timer := s.clock.AfterFunc(s.timeout, func() {
		late.Store(true)
		cancel()
	})
	defer timer.Stop()
	more := func(bytes int64) {
		if timer.Stop() {
			timer.Reset(s.timeout + time.Duration(bytes>>20)*time.Second)
		}
	}
	err := f(ctx, more)
	if err != nil && late.Load() {
		return &transferError{fmt.Errorf("no answer in time: %w", err)}
	}
	return err
}

// transferError is a failure on the way, where another try may help.
type transferError struct{ err error }

func (e *transferError) Error() string { return e.err.Error() }
func (e *transferError) Unwrap() error { return e.err }

// status is that of the answer which is an error, 0 without an answer.
func status(err error) int {
	var answer *smithyhttp.ResponseError
	if !fromElsewhere(err) && errors.As(err, &answer) && answer.Response != nil {
		return answer.HTTPStatusCode()
	}
	return 0
}

// code is the store's own name of an error.
func code(err error) string {
	var api smithy.APIError
	if !fromElsewhere(err) && errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// transient reports whether the same request may succeed when sent again.
func transient(err error) bool {
	var transfer *transferError
	var send *smithyhttp.RequestSendError
	if errors.As(err, &transfer) || errors.As(err, &send) {
		return true
	}
	switch at := status(err); at {
	case http.StatusNotImplemented:
		return false
	case http.StatusConflict, http.StatusTooManyRequests, http.StatusRequestTimeout:
		return true
	default:
		// An error in an answer that says success is one that was cut.
		return at >= 500 || at >= 200 && at < 300 || code(err) == "RequestTimeout"
	}
}

// failed says what was done to which object where, and what helps.
func (s *s3Store) failed(verb, name string, err error) error {
	what := s.url
	if name != "" {
		what = name + " in " + s.url
	}
	if status(err) == http.StatusNotFound && code(err) != "NoSuchBucket" {
		err = ErrNotFound
	}
	return fmt.Errorf("%s %s: %w%s", verb, what, err, mend(err))
}

const giveCredentials = ": set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with profile=…"

func mend(err error) string {
	if fromElsewhere(err) {
		return giveCredentials
	}
	var send *smithyhttp.RequestSendError
	var api smithy.APIError
	switch code(err) {
	case "NoSuchBucket":
		return ": make the bucket, or correct its name in the URL"
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken":
		return ": the store does not know these credentials: correct or renew them"
	case "AccessDenied", "Forbidden":
		return ": allow these credentials s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on its objects"
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "BadRequest":
		return ": the bucket may be in another region: add region=… to the URL"
	case "RequestTimeTooSkewed":
		return ": the clock of this machine is wrong: set it"
	}
	switch {
	case errors.Is(err, ErrUnsupported):
		return ": use a store that knows If-None-Match and If-Match for PutObject"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.As(err, &send):
		return ": the store cannot be reached: is endpoint=… right?"
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrCondition), errors.As(err, &api):
	case status(err) == 0 && isSigning(err):
		return giveCredentials
	}
	return ""
}

// isSigning reports whether the SDK failed before it sent anything, for want of
// credentials: it has no type for that.
func isSigning(err error) bool {
	var operation *smithy.OperationError
	return errors.As(err, &operation)
}

// fromElsewhere reports whether an error is the answer of another service, which the SDK
// asked for credentials: that the machine has no role is no word of the store's.
func fromElsewhere(err error) bool {
	var ours, theirs *smithy.OperationError
	return errors.As(err, &ours) && errors.As(ours.Err, &theirs)
}
