package server

import (
	"errors"
	"testing"
)

func TestMembersComeOnlyWhereAQuorumIsLeftWithoutThem(t *testing.T) {
	for _, c := range []struct {
		name                       string
		voters, started, connected int
		learner                    bool
		want                       error
	}{
		{"to one that is alone", 1, 1, 1, false, nil},
		{"to one that is alone, as a learner", 1, 1, 1, true, nil},
		{"to two that are well", 2, 2, 2, false, nil},
		{"to two of which one is down", 2, 2, 1, false, errUnhealthy},
		{"to three that are well", 3, 3, 3, false, nil},
		{"to three of which one is down", 3, 3, 2, false, errUnhealthy},
		{"to three of which one is down, as a learner", 3, 3, 2, true, errUnhealthy},
		{"to three that have just met", 3, 3, 1, false, errUnhealthy},
		{"to three of which one was never started", 3, 2, 2, false, errNotEnoughStarted},
		{"to three of which one was never started, as a learner", 3, 2, 3, true, nil},
		{"to four of which one is down", 4, 4, 3, false, nil},
		{"to four of which one was never started", 4, 3, 3, false, nil},
		{"to five of which one is down", 5, 5, 4, false, nil},
		{"to five of which two are down", 5, 5, 3, false, errUnhealthy},
	} {
		if err := mayAddTo(c.voters, c.started, c.connected, c.learner); !errors.Is(err, c.want) {
			t.Errorf("a member comes %s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestMembersLeaveOnlyWhereAQuorumIsLeft(t *testing.T) {
	for _, c := range []struct {
		name                     string
		left, started, connected int
		up                       bool
		want                     error
	}{
		{"the only one", 0, 0, 1, true, errNotEnoughStarted},
		{"one of two", 1, 1, 2, true, nil},
		{"one of three that are well", 2, 2, 3, true, nil},
		{"one of three that is down", 2, 2, 2, false, nil},
		{"one of three that is up while another is down", 2, 2, 2, true, errUnhealthy},
		{"one of three while another was never started", 2, 1, 2, true, errNotEnoughStarted},
		{"one of five that is down, with another", 4, 4, 3, false, nil},
		{"one of five that is up while two are down", 4, 4, 3, true, errUnhealthy},
		{"one of five that is up while one is down", 4, 4, 4, true, nil},
	} {
		if err := mayLeave(c.left, c.started, c.connected, c.up); !errors.Is(err, c.want) {
			t.Errorf("%s leaves: %v, want %v", c.name, err, c.want)
		}
	}
}
