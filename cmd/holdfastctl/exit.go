package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/cmd/holdfastctl/hint"
)

// Exit codes, as etcdctl's.
const (
	exitSuccess     = 0
	exitFailed      = 1
	exitConnection  = 2
	exitInput       = 3 // What was read from standard input cannot be used.
	exitFeature     = 4 // A valid flag with a value that does not go here.
	exitInterrupted = 5
	exitArguments   = 128
)

// exitError ends a command with an exit code. Without an inner error everything
// has been said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exit gives an error an exit code.
func exit(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code, err}
}

// badArguments is what a command says when it was called wrongly.
func badArguments(format string, args ...any) error {
	return &exitError{exitArguments, fmt.Errorf(format, args...)}
}

// badFeature is what a command says of a flag's value that it cannot use.
func badFeature(format string, args ...any) error {
	return &exitError{exitFeature, fmt.Errorf(format, args...)}
}

// explain adds to an error of some endpoints what the person at the terminal can
// do about it. The words that scripts look for stay at the beginning.
func (c *ctl) explain(err error, endpoints ...string) string {
	text := err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		text = c.unanswered(text, endpoints)
	case errors.Is(err, client.ErrUnreachable):
		text = fmt.Sprintf("%s (%s)", hint.Cause(text), hints.Mend(text, "check --endpoints"))
	case errors.Is(err, client.ErrNoEndpoints):
		text += ": name them with --endpoints"
	case strings.Contains(text, "unknown service etcdserverpb"):
		text += " (no client URL of a member: is it a peer URL?)"
	case errors.Is(err, client.ErrUserEmpty) && c.tool == nil:
		text += " (authentication is on: give --user NAME)"
	case errors.Is(err, client.ErrNoSpace):
		text += " (see 'alarm list'; compact, defrag, then 'alarm disarm')"
	case errors.Is(err, client.ErrRequestTooLarge):
		text += " (raise --max-request-bytes of the members, or send less)"
	}
	if errors.Is(err, client.ErrUnknownOutcome) {
		text += "; " + client.ErrUnknownOutcome.Error()
	}
	return text
}

// hints are by what gRPC says of a connection that could not be made.
var hints = hint.Hints{
	{"certificate required", "the member wants a client certificate: give --cert and --key"},
	{"bad certificate", "the member does not accept this client certificate: is it of the CA that the member trusts?"},
	{"unknown certificate authority", "the member does not know the CA of this client's certificate: give --cert and --key of the CA that it trusts"},
	{"expired certificate", "this client's certificate has ended: 'certs check' tells when, 'certs renew' makes another"},
	{"certificate has expired", "the member's certificate has ended, or a clock is wrong: see docs/operations/certificates.md"},
	{"unknown authority", "give the CA of the members' certificates as --cacert"},
	{"certificate is valid for", "the member's certificate lacks this address: name it in 'certs server --hosts'"},
	{"does not look like a TLS handshake", "the member does not encrypt: use http://"},
	{"connection refused", "nobody listens there: is the member running, and is this its client URL?"},
	{"no such host", "DNS does not know this name: check --endpoints"},
	{"broken pipe", "the member ended the connection: does it want --cert and --key, or TLS (https://)?"},
	{"connection reset", "the member ended the connection: does it want --cert and --key, or TLS (https://)?"},
	{"use of closed network connection", "it takes connections and says nothing: does the process hang, or want TLS (https:// and --cacert)?"},
	{"error reading server preface", "the member may want TLS: use https:// and --cacert"},
}

// unanswered is an error about time that has run out.
func (c *ctl) unanswered(text string, endpoints []string) string {
	mend := hints.Mend(text, fmt.Sprintf("no answer from %s within %v: check --endpoints, or give it more --command-timeout",
		strings.Join(endpoints, ","), c.globals.commandTimeout))
	text = hint.Cause(text)
	if timeout := context.DeadlineExceeded.Error(); !strings.Contains(text, timeout) {
		text = timeout + ": " + text
	}
	return fmt.Sprintf("%s (%s)", text, mend)
}
