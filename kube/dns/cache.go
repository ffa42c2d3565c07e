package dns

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// cache keeps what resolvers said.
type cache struct {
	clock clock.Clock

	mu struct {
		sync.Mutex
		entries map[cacheKey]cached
	}
}

type cacheKey struct {
	name   string // In lower case.
	kind   dnsmessage.Type
	dnssec bool
}

// cached is an answer, which nobody writes to.
type cached struct {
	message dnsmessage.Message
	since   time.Duration
	until   time.Duration
}

// get returns an answer as it would be told now: its records live less long.
func (c *cache) get(k cacheKey) (*dnsmessage.Message, bool) {
	now := c.clock.Mono()
	c.mu.Lock()
	e, ok := c.mu.entries[k]
	c.mu.Unlock()
	if !ok || e.until <= now {
		return nil, false
	}
	return aged(&e.message, now-e.since), true
}

// aged is a message some time later, which its owner may write to.
func aged(old *dnsmessage.Message, by time.Duration) *dnsmessage.Message {
	age := uint32(by / time.Second)
	m := *old
	for _, section := range []*[]dnsmessage.Resource{&m.Answers, &m.Authorities, &m.Additionals} {
		*section = slices.Clone(*section)
		for i := range *section {
			h := &(*section)[i].Header
			h.TTL -= min(age, h.TTL)
		}
	}
	return &m
}

// put keeps an answer for as long as it says, if that is not too long.
func (c *cache) put(k cacheKey, m *dnsmessage.Message) {
	ttl := timeToLive(m)
	if ttl <= 0 || m.Truncated {
		return
	}
	// Whoever has a domain of his own has it answered with as much as he likes.
	if b, err := m.Pack(); err != nil || len(b) > cacheBytesMax {
		return
	}
	now := c.clock.Mono()
	kept := *m
	kept.Answers, kept.Authorities, kept.Additionals = slices.Clone(m.Answers), slices.Clone(m.Authorities), slices.Clone(m.Additionals)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.entries) >= cacheEntriesMax {
		c.makeRoomLocked(now)
	}
	c.mu.entries[k] = cached{kept, now, now + ttl}
}

// makeRoomLocked drops what is over, or else any quarter.
func (c *cache) makeRoomLocked(now time.Duration) {
	for k, e := range c.mu.entries { //tidy:ordered each by itself
		if e.until <= now {
			delete(c.mu.entries, k)
		}
	}
	for k := range c.mu.entries { //tidy:ordered any will do
		if len(c.mu.entries) < cacheEntriesMax-cacheEntriesMax/4 {
			return
		}
		delete(c.mu.entries, k)
	}
}

// timeToLive is the shortest of all records. That something is not there lives as long
// as the zone's first record says.
func timeToLive(m *dnsmessage.Message) time.Duration {
	ttl := uint32(cacheTTLMax / time.Second)
	for _, section := range [][]dnsmessage.Resource{m.Answers, m.Authorities, m.Additionals} {
		for i := range section {
			ttl = min(ttl, section[i].Header.TTL)
			if soa, ok := section[i].Body.(*dnsmessage.SOAResource); ok && len(m.Answers) == 0 {
				ttl = min(ttl, soa.MinTTL)
			}
		}
	}
	if len(m.Answers)+len(m.Authorities) == 0 {
		ttl = min(ttl, recordTTL)
	}
	return time.Duration(ttl) * time.Second
}
