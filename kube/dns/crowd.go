package dns

import (
	"net/netip"
	"sync"
)

// crowd bounds what goes on at a time, and what of it is of one client: a pod that asks
// for very many names must not keep the others from theirs.
type crowd struct {
	most int

	mu struct {
		sync.Mutex
		all int
		of  map[netip.Addr]int
	}
}

func newCrowd(most int) *crowd {
	c := &crowd{most: most}
	c.mu.of = map[netip.Addr]int{}
	return c
}

// enter reports whether one more may go on.
func (c *crowd) enter(client netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.all >= c.most || c.mu.of[client] >= c.most/clientShare {
		return false
	}
	c.mu.all++
	c.mu.of[client]++
	return true
}

// leave is enter undone.
func (c *crowd) leave(client netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.all--
	if c.mu.of[client]--; c.mu.of[client] == 0 {
		delete(c.mu.of, client)
	}
}
