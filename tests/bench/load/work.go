package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/wire"
)

// Puts write keys that belong to one client each, again and again, with values
// that count. Who reads them back knows which count each key must have reached.
type Puts struct {
	Prefix     string
	KeyBytes   int
	ValueBytes int
	Keys       int // Of one client.
	Limit      int // Puts of one client; 0: no end.

	clients []putter
	filler  []byte
}

type putter struct {
	issued, acked int // Puts so far; they are acknowledged in order.
	value, key    []byte
	_             [64]byte // Neighbours belong to other goroutines.
}

const countBytes = 8 // At the front of a value.

// Prepare is called before a run.
func (p *Puts) Prepare(clients int, seed uint64) {
	p.clients = make([]putter, clients)
	p.filler = make([]byte, p.ValueBytes)
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range p.filler {
		p.filler[i] = byte(random.Uint32())
	}
}

// key of a client. Successive ones lie far apart.
func (p *Puts) key(b []byte, client, n int) []byte {
	b = fmt.Appendf(b, "%s%04d/", p.Prefix, client)
	digits := p.KeyBytes - len(b)
	return fmt.Appendf(b, "%0*d", digits, scatter(n%p.Keys, p.Keys))
}

// scatter is a permutation of 0 … n-1.
func scatter(i, n int) int {
	step := n*5/8 | 1
	for gcd(step, n) != 1 {
		step += 2
	}
	return i * step % n
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Next implements Work.
func (p *Puts) Next(id int, b []byte) (string, []byte) {
	c := &p.clients[id]
	c.key = p.key(c.key[:0], id, c.issued)
	c.value = append(c.value[:0], p.filler...)
	binary.BigEndian.PutUint64(c.value, uint64(c.issued))
	c.issued++
	return wire.Put, wire.AppendPut(b, c.key, c.value)
}

// Answered implements Work.
func (p *Puts) Answered(id int, _ []byte) error {
	p.clients[id].acked = p.clients[id].issued
	return nil
}

// Done implements Finite.
func (p *Puts) Done(id int) bool { return p.Limit > 0 && p.clients[id].issued >= p.Limit }

// ReadBack reads every key of every client from a server and fails when an
// acknowledged put is missing. It returns the number of keys.
func (p *Puts) ReadBack(d wire.Dialer, addr string, limit time.Duration) (keys int, err error) {
	err = p.compare(d, addr, limit, func(k written) error {
		if !k.found || k.count < k.least || k.count >= k.sent {
			return fmt.Errorf("key %s: count %d found (%t), acknowledged up to %d, sent below %d", k.key, k.count, k.found, k.least, k.sent)
		}
		keys++
		return nil
	})
	return keys, err
}

// Missing counts the keys whose last acknowledged put is not there, as after a
// disaster.
func (p *Puts) Missing(addr string, limit time.Duration) (missing, keys int, err error) {
	err = p.compare(wire.Dialer{}, addr, limit, func(k written) error {
		keys++
		if !k.found || k.count < k.least {
			missing++
		}
		return nil
	})
	return missing, keys, err
}

// written is a key, what its client knows and what the server has.
type written struct {
	key         []byte
	least, sent int // The last acknowledged count, and the first that was not sent.
	count       int
	found       bool
}

// compare calls each with every key that has an acknowledged put.
func (p *Puts) compare(d wire.Dialer, addr string, limit time.Duration, each func(written) error) error {
	conn, err := d.Dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stored, err := p.stored(conn, limit)
	if err != nil {
		return err
	}
	var key []byte
	for id := range p.clients {
		c := &p.clients[id]
		for k := range min(p.Keys, c.acked) {
			key = p.key(key[:0], id, k)
			count, ok := stored[string(key)]
			least := k + (c.acked-1-k)/p.Keys*p.Keys
			if err := each(written{key: key, least: least, sent: c.issued, count: count, found: ok}); err != nil {
				return err
			}
		}
	}
	return nil
}

// stored reads all keys, page by page.
func (p *Puts) stored(conn *wire.Conn, limit time.Duration) (map[string]int, error) {
	const page = 5000
	found := map[string]int{}
	from, end := []byte(p.Prefix), endOf([]byte(p.Prefix))
	for began := time.Now(); ; {
		if time.Since(began) > limit {
			return nil, fmt.Errorf("reading back takes more than %s", limit)
		}
		body, err := conn.Ask(wire.Range, wire.AppendRange(nil, &wire.RangeRequest{Key: from, End: end, Limit: page}))
		if err != nil {
			return nil, err
		}
		n := 0
		err = wire.KeyValues(body, func(key, value []byte) error {
			n++
			if len(value) != p.ValueBytes || !bytes.Equal(value[countBytes:], p.filler[countBytes:]) {
				return fmt.Errorf("key %s has a value that nobody wrote", key)
			}
			found[string(key)] = int(binary.BigEndian.Uint64(value))
			from = append(append(from[:0], key...), 0)
			return nil
		})
		if err != nil || n < page {
			return found, err
		}
	}
}

// endOf is the end of the range of a prefix.
func endOf(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

// Gets read random keys of what Puts have written.
type Gets struct {
	Of           *Puts
	Serializable bool

	clients []getter
}

type getter struct {
	random *rand.Rand
	key    []byte
	_      [64]byte
}

// Prepare is called before a run.
func (g *Gets) Prepare(clients int, seed uint64) {
	g.clients = make([]getter, clients)
	for i := range g.clients {
		g.clients[i].random = rand.New(rand.NewPCG(seed, uint64(i)))
	}
}

// Next implements Work.
func (g *Gets) Next(id int, b []byte) (string, []byte) {
	c := &g.clients[id]
	c.key = g.Of.key(c.key[:0], c.random.IntN(len(g.Of.clients)), c.random.IntN(g.Of.Keys))
	return wire.Range, wire.AppendRange(b, &wire.RangeRequest{Key: c.key, Serializable: g.Serializable})
}

// Answered implements Work.
func (g *Gets) Answered(_ int, body []byte) error {
	if len(body) < g.Of.ValueBytes {
		return fmt.Errorf("a key is missing: answer of %d bytes", len(body))
	}
	return nil
}

// Scans read everything under a prefix, Count keys of ValueBytes or more.
type Scans struct {
	Prefix     string
	Count      int
	ValueBytes int
}

// Next implements Work.
func (s *Scans) Next(_ int, b []byte) (string, []byte) {
	return wire.Range, wire.AppendRange(b, &wire.RangeRequest{Key: []byte(s.Prefix), End: endOf([]byte(s.Prefix))})
}

// Answered implements Work.
func (s *Scans) Answered(_ int, body []byte) error {
	if len(body) < s.Count*s.ValueBytes {
		return fmt.Errorf("keys are missing: answer of %d bytes", len(body))
	}
	return nil
}
