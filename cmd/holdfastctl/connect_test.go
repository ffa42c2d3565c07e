package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	wire "google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/client"
)

// Without a deadline a command waits for ever: whoever sits before it is told why.
func TestACommandWithoutADeadlineSaysWhomItWaitsFor(t *testing.T) {
	for _, args := range []string{"watch k", "lease keep-alive 1", "elect -l e", "make-mirror m0.test:2379"} {
		ctx, cancel := context.WithCancel(t.Context())
		said := &screen{enough: cancel, left: 1}
		c := &ctl{
			in: strings.NewReader(""), out: new(bytes.Buffer), err: said, environ: []string{"ETCDCTL_ENDPOINTS=nobody.test:2379", "ETCDCTL_DIAL_TIMEOUT=1ms"},
			dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("connect: connection refused") },
		}
		c.run(ctx, strings.Fields(args))
		if ctx.Err() == nil || !strings.HasPrefix(said.String(), "Warning: connect: connection refused (nobody listens there") {
			t.Errorf("%q says %q", args, said)
		}
		cancel()
	}
}

func TestAConnectionThatCannotBeMadeIsToldWithCauseAndMend(t *testing.T) {
	refused := func(cause string) error {
		return fmt.Errorf("%w: %w", client.ErrUnreachable, wire.Error(codes.Unavailable, `connection error: desc = "`+cause+`"`))
	}
	late := fmt.Errorf("%w: %w", context.DeadlineExceeded, wire.Error(codes.DeadlineExceeded, `latest balancer error: connection error: desc = "transport: Error while dialing: dial tcp a:1: connect: connection refused"`))
	for _, e := range []struct {
		err   error
		short string
		mend  string
	}{
		{refused("transport: Error while dialing: dial tcp a:1: connect: connection refused"), "dial tcp a:1: connect: connection refused", "is the member running"},
		{refused("transport: Error while dialing: dial tcp: lookup b: no such host"), "dial tcp: lookup b: no such host", "check --endpoints"},
		{refused("error reading server preface: remote error: tls: unknown certificate authority"), "error reading server preface: remote error: tls: unknown certificate authority", "--cert and --key of the CA that it trusts"},
		{refused("error reading server preface: EOF"), "error reading server preface: EOF", "use https://"},
		{refused("error reading server preface: raw-read tcp a:2->a:1: use of closed network connection"), "error reading server preface: raw-read tcp a:2->a:1: use of closed network connection", "does the process hang"},
		{late, "context deadline exceeded: dial tcp a:1: connect: connection refused", "is the member running"},
		{context.DeadlineExceeded, "context deadline exceeded", "--command-timeout"},
		{client.ErrNoEndpoints, "no endpoints", "--endpoints"},
		{wire.Error(codes.Unimplemented, "unknown service etcdserverpb.KV"), "", "peer URL"},
		{client.ErrUserEmpty, "etcdserver: user name is empty", "--user NAME"},
		{client.ErrNoLeader, "etcdserver: no leader", ""},
	} {
		if got := short(e.err); e.short != "" && got != e.short {
			t.Errorf("short of %v: %q", e.err, got)
		}
		if got := (&ctl{}).explain(e.err, "a:1"); !strings.Contains(got, e.mend) {
			t.Errorf("no mend %q in %q", e.mend, got)
		}
	}
}

func TestACommandThatIsInterruptedSaysSo(t *testing.T) {
	for _, args := range []string{"get k", "member list", "endpoint health"} {
		ctx, cancel := context.WithCancel(t.Context())
		var stderr bytes.Buffer
		c := &ctl{
			in: strings.NewReader(""), out: new(bytes.Buffer), err: &stderr, environ: []string{"ETCDCTL_ENDPOINTS=hangs.test:2379", "ETCDCTL_COMMAND_TIMEOUT=1h"},
			dial: func(ctx context.Context, _ string) (net.Conn, error) { cancel(); <-ctx.Done(); return nil, ctx.Err() },
		}
		code := c.run(ctx, strings.Fields(args))
		if args == "endpoint health" { // Each endpoint has its line.
			if code != exitFailed {
				t.Errorf("%s ends with %d: %s", args, code, &stderr)
			}
		} else if code != exitInterrupted || !strings.Contains(stderr.String(), "Error: interrupted") {
			t.Errorf("%s ends with %d: %s", args, code, &stderr)
		}
		cancel()
	}
}
