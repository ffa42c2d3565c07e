package service

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// places bound what goes on at a time: who wants one puts something in, and takes it
// out at the end.
type places chan struct{}

// try takes a place, if there is one.
func (p places) try() bool {
	select {
	case p <- struct{}{}:
		return true
	default:
		return false
	}
}

// take waits for a place until ctx ends.
func (p places) take(ctx context.Context) bool {
	select {
	case p <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p places) leave() { <-p }

// setPlaces shares out the files that the process may open.
func (c *UserspaceConfig) setPlaces() error {
	if c.Connections > 0 && c.Flows > 0 {
		return nil
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("how many files it may open: %w", err)
	}
	if c.Connections <= 0 {
		c.Connections = atLeastOne(int(min(files.Cur/2/filesPerConnection, connectionsMax)))
	}
	if c.Flows <= 0 {
		c.Flows = atLeastOne(int(min(files.Cur/4, flowsMax)))
	}
	return nil
}

func atLeastOne(n int) int { return max(n, 1) }

// enter waits until one more connection may be carried. A false one: ctx has ended.
func (s *served) enter(ctx context.Context) (leave func(), ok bool) {
	if !s.connections.try() {
		s.tellFull("connections to a service wait until others of it end", cap(s.connections))
		if !s.connections.take(ctx) {
			return nil, false
		}
	}
	if !s.plane.connections.try() {
		s.tellFull("connections to services wait until others end", cap(s.plane.connections))
		if !s.plane.connections.take(ctx) {
			s.connections.leave()
			return nil, false
		}
	}
	return func() { s.plane.connections.leave(); s.connections.leave() }, true
}

// enterFlow is enter for a flow of datagrams, which does not wait.
func (s *served) enterFlow() bool {
	if !s.flows.try() {
		s.tellFull("datagrams of new clients of a service are lost until others are silent", cap(s.flows))
		return false
	}
	if !s.plane.flows.try() {
		s.flows.leave()
		s.tellFull("datagrams of new clients of services are lost until others are silent", cap(s.plane.flows))
		return false
	}
	return true
}

func (s *served) leaveFlow() { s.plane.flows.leave(); s.flows.leave() }

// tellFull tells once that a port has all that it may have.
func (s *served) tellFull(what string, most int) {
	s.full.Do(func() { s.plane.log.Warn(what, "port", s.name, "most", most) })
}
