package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/load"
	"github.com/holdfast-db/holdfast/tests/bench/wire"
)

const (
	streamPrefix = "stream/"
	lookEvery    = 5 * time.Millisecond
)

var errRead = errors.New("all is read")

// streams reads all keys of a store by RangeStream, and looks at how much more
// memory the server has meanwhile. What belongs to mapped files does not count.
func streams(ctx context.Context, t *trial) ([]figure, error) {
	if _, err := t.Start(); err != nil {
		return nil, err
	}
	limit := t.keys / fillClients
	if err := t.fill(&load.Puts{Prefix: streamPrefix, KeyBytes: manyKeyBytes, ValueBytes: rangeBytes, Keys: limit, Limit: limit}, fillClients); err != nil {
		return nil, err
	}
	if err := t.Stop(); err != nil {
		return nil, err
	}
	if _, err := t.Start(); err != nil {
		return nil, err
	}
	time.Sleep(settle)
	before, err := t.Anonymous()
	if err != nil {
		return nil, err
	}
	most, looking, looked := before, make(chan struct{}), make(chan error, 1)
	go func() {
		for tick := time.NewTicker(lookEvery); ; {
			now, err := t.Anonymous()
			most = max(most, now)
			select {
			case <-looking:
				looked <- err
				return
			case <-tick.C:
			}
		}
	}()
	start := time.Now()
	read, err := t.stream()
	took := time.Since(start)
	close(looking)
	if err := errors.Join(err, <-looked); err != nil {
		return nil, err
	}
	if least := int64(limit * fillClients * (manyKeyBytes + rangeBytes)); read < least {
		return nil, fmt.Errorf("%d bytes were read, there are %d", read, least)
	}
	return []figure{
		{"read", "MB", float64(read) / 1e6},
		{"throughput", "MB/s", float64(read) / 1e6 / took.Seconds()},
		{"memory before", "MiB", before / (1 << 20)},
		{"extra memory", "MiB", (most - before) / (1 << 20)},
	}, nil
}

// stream reads everything, and keeps nothing.
func (t *trial) stream() (read int64, err error) {
	c, err := t.Kind.Dialer.Dial(t.Addrs()[0])
	if err != nil {
		return 0, err
	}
	defer c.Close()
	call := &wire.Call{
		Message: func(b []byte) error { read += int64(len(b)); return nil },
		End: func(status int, text string) error {
			if status != 0 {
				return fmt.Errorf("status %d: %s", status, text)
			}
			return errRead
		},
	}
	request := wire.AppendRange(nil, &wire.RangeRequest{Key: []byte(streamPrefix), End: []byte("stream0")})
	if err := c.Start(wire.Stream, request, call, false); err != nil {
		return 0, err
	}
	if err := c.Run(); !errors.Is(err, errRead) {
		return 0, err
	}
	return read, nil
}
