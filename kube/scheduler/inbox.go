package scheduler

import "sync"

// inbox holds messages for the goroutine that decides. Each is a function that it
// calls.
type inbox struct {
	signal chan struct{} // Holds one: something is there.

	mu struct {
		sync.Mutex
		messages []func()
	}
}

func newInbox() *inbox { return &inbox{signal: make(chan struct{}, 1)} }

func (i *inbox) put(f func()) {
	i.mu.Lock()
	i.mu.messages = append(i.mu.messages, f)
	i.mu.Unlock()
	select {
	case i.signal <- struct{}{}:
	default:
	}
}

// take empties the inbox.
func (i *inbox) take() []func() {
	i.mu.Lock()
	defer i.mu.Unlock()
	messages := i.mu.messages
	i.mu.messages = nil
	return messages
}
