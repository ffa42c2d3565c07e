package cri

import (
	"context"
	"time"

	api "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// How often the runtime is looked at. With events it is done for those that were lost
// with a connection.
const (
	lookEvery           = time.Second
	lookEveryWithEvents = 10 * time.Second
)

// watch says which pods change.
func (e *Engine) watch(ctx context.Context) error {
	events := make(chan string)
	heard := e.listen(ctx, events)
	seen, every := map[string]string{}, lookEvery
	first := true
	for {
		if now, err := e.states(ctx); err == nil {
			for _, uid := range differing(seen, now) {
				if !first {
					e.cfg.Changed(uid)
				}
			}
			seen, first = now, false
		} else if ctx.Err() == nil {
			e.log.Debug("the container runtime does not answer", "error", err)
		}
		if err := e.untilNextLook(ctx, every, events); err != nil {
			return err
		}
		every = lookEvery
		if heard.Load() {
			every = lookEveryWithEvents
		}
	}
}

// untilNextLook passes on events.
func (e *Engine) untilNextLook(ctx context.Context, every time.Duration, events <-chan string) error {
	end := e.cfg.Clock.After(every)
	for {
		select {
		case uid := <-events:
			e.cfg.Changed(uid)
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// states are those of all containers and sandboxes of this node.
func (e *Engine) states(ctx context.Context) (map[string]string, error) {
	sandboxes, err := e.sandboxes(ctx, "")
	if err != nil {
		return nil, err
	}
	containers, err := e.listContainers(ctx, map[string]string{labelNode: e.cfg.Node})
	if err != nil {
		return nil, err
	}
	states := map[string]string{}
	for _, s := range sandboxes {
		states[s.Id] = s.State.String() + " " + s.Metadata.GetUid()
	}
	for _, c := range containers {
		states[c.Id] = c.State.String() + " " + c.Labels[labelPodUID]
	}
	return states, nil
}

// differing are the pods of which something is new, gone or in another state.
func differing(before, now map[string]string) []string {
	uids := map[string]bool{}
	add := func(state string) {
		for i := range state {
			if state[i] == ' ' {
				uids[state[i+1:]] = true
				return
			}
		}
	}
	for id, state := range now {
		if before[id] != state {
			add(state)
		}
	}
	for id, state := range before {
		if _, ok := now[id]; !ok {
			add(state)
		}
	}
	out := make([]string, 0, len(uids))
	for uid := range uids {
		out = append(out, uid)
	}
	return out
}

// uidOf is of whom an event tells; empty: not of this node.
func (e *Engine) uidOf(event *api.ContainerEventResponse) string {
	s := event.GetPodSandboxStatus()
	if s.GetLabels()[labelNode] != e.cfg.Node {
		return ""
	}
	return s.GetMetadata().GetUid()
}
