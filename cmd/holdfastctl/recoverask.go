package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
)

const (
	// factsBytesMax of a running member: a tail of its log is listed key by key.
	factsBytesMax = 1 << 30
	// endMax bounds the wait for a member to answer, and for one that was frozen to
	// end.
	endMax   = time.Minute
	endPause = 100 * time.Millisecond
)

// admin asks the member that runs in a directory by the socket there.
func admin(ctx context.Context, s recovery.Source, method, path, body string) ([]byte, error) {
	socket := filepath.Join(s.DataDir, recovery.SocketName)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	cl := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, ResponseHeaderTimeout: endMax}}
	r, err := http.NewRequestWithContext(ctx, method, "http://member"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	answer, err := cl.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", socket, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, factsBytesMax))
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("the member in %s: %s", s.DataDir, strings.TrimSpace(string(text)))
	}
	return text, err
}

// askFacts asks a running member for its facts. locked is why they could not be
// read.
func askFacts(ctx context.Context, s recovery.Source, locked error) (*recovery.Member, error) {
	text, err := admin(ctx, s, http.MethodGet, recovery.FactsPath, "")
	if err != nil {
		return nil, fmt.Errorf("%w; and it can not be asked: %w", locked, err)
	}
	facts, err := recovery.DecodeFacts(text)
	if err == nil && len(facts.Members) != 1 {
		err = fmt.Errorf("facts of %d members: %w", len(facts.Members), recovery.ErrDocument)
	}
	if err != nil {
		return nil, fmt.Errorf("the member in %s: %w", s.DataDir, err)
	}
	return &facts.Members[0], nil
}

// freeze keeps a member from starting; one that runs is ended.
func (c *ctl) freeze(ctx context.Context, s recovery.Source) error {
	const by = "frozen by recover collect"
	err := recovery.Freeze(c.recovery(), s, by)
	if !errors.Is(err, datadir.ErrLocked) {
		return err
	}
	if _, asked := admin(ctx, s, http.MethodPost, recovery.FreezePath, by); asked != nil {
		return fmt.Errorf("%w; and it can not be asked to end: %w", err, asked)
	}
	clk := c.recovery().Clock
	for end := clk.Mono() + endMax; errors.Is(err, datadir.ErrLocked); {
		if clk.Mono() >= end {
			return fmt.Errorf("the member in %s is frozen and does not end: kill it: %w", s.DataDir, err)
		}
		select {
		case <-clk.After(endPause):
		case <-ctx.Done():
			return ctx.Err()
		}
		err = recovery.Freeze(c.recovery(), s, by)
	}
	return err
}
