package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// known answers what needs nobody else. The message is the caller's.
func (s *Server) known(q *question) (*dnsmessage.Message, bool) {
	return s.answer(q, func(name dnsmessage.Name) (*dnsmessage.Message, bool) {
		return s.cache.get(cacheKey{strings.ToLower(name.String()), q.Type, q.dnssec})
	})
}

// resolve answers, and asks others if it must.
func (s *Server) resolve(ctx context.Context, q *question) *dnsmessage.Message {
	m, _ := s.answer(q, func(name dnsmessage.Name) (*dnsmessage.Message, bool) { return s.forward(ctx, q, name), true })
	return m
}

// answer follows a name to where it leads: within the cluster by itself, outside as
// somebody else says. It fails if that one does not know.
func (s *Server) answer(q *question, outside func(dnsmessage.Name) (*dnsmessage.Message, bool)) (*dnsmessage.Message, bool) {
	m := q.message(dnsmessage.RCodeSuccess)
	name, at := q.Name, q.name
	for range chaseMax {
		a := s.zone.Ask(at, q.Type)
		if !a.Ours {
			more, ok := outside(name)
			if !ok {
				return nil, false
			}
			more.Answers = append(m.Answers, more.Answers...)
			return more, true
		}
		if !s.cfg.Synced() {
			return q.failure(), true
		}
		m.Authoritative = true
		m.Answers = append(m.Answers, resources(s.rotate(a.Records), name)...)
		m.Additionals = append(m.Additionals, resources(a.More, dnsmessage.Name{})...)
		if a.Alias == "" {
			if !a.Exists {
				m.RCode = dnsmessage.RCodeNameError
			}
			if len(m.Answers) == 0 {
				m.Authorities = append(m.Authorities, resources([]Record{{s.zone.Domain + ".", s.zone.start()}}, dnsmessage.Name{})...)
			}
			return m, true
		}
		next, err := dnsmessage.NewName(a.Alias)
		if err != nil {
			return m, true
		}
		name, at = next, a.Alias
	}
	return q.failure(), true // Round and round.
}

// rotate makes the first of several addresses another each time: many clients take
// the first.
func (s *Server) rotate(all []Record) []Record {
	if len(all) < 2 {
		return all
	}
	i := int(s.turn.Add(1) % uint32(len(all)))
	return slices.Concat(all[i:], all[:i])
}

// resources are records as they go out. The question's own name is written as it was
// asked for.
func resources(all []Record, asked dnsmessage.Name) []dnsmessage.Resource {
	var out []dnsmessage.Resource
	for _, r := range all {
		name := asked
		if name.Length == 0 {
			var err error
			if name, err = dnsmessage.NewName(r.Name); err != nil {
				continue
			}
		}
		out = append(out, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: recordTTL}, Body: r.Body})
	}
	return out
}

// start is the record that says for how long what is not there is not there.
func (z *Zone) start() *dnsmessage.SOAResource {
	domain, err := dnsmessage.NewName(z.Domain + ".")
	if err != nil {
		domain = dnsmessage.MustNewName(".")
	}
	return &dnsmessage.SOAResource{NS: domain, MBox: domain, Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, MinTTL: recordTTL}
}

// flight is a question to resolvers that is under way.
type flight struct {
	done   chan struct{}       // Closed at its end.
	answer *dnsmessage.Message // Set before; nobody writes to it.
}

// forward asks the resolvers, once for all who ask the same at the same time. So a
// resolver that asks us in turn does not have us ask it again and again.
func (s *Server) forward(ctx context.Context, q *question, name dnsmessage.Name) *dnsmessage.Message {
	key := cacheKey{strings.ToLower(name.String()), q.Type, q.dnssec}
	if m, ok := s.cache.get(key); ok {
		return m
	}
	s.mu.Lock()
	f, flies := s.mu.flights[key]
	if !flies {
		f = &flight{done: make(chan struct{})}
		s.mu.flights[key] = f
	}
	s.mu.Unlock()
	if !flies {
		if f.answer = s.askAll(ctx, q, name); f.answer.RCode == dnsmessage.RCodeSuccess || f.answer.RCode == dnsmessage.RCodeNameError {
			s.cache.put(key, f.answer)
		}
		s.mu.Lock()
		delete(s.mu.flights, key)
		s.mu.Unlock()
		close(f.done)
	}
	select {
	case <-f.done:
		return aged(f.answer, 0)
	case <-ctx.Done():
		return q.failure()
	}
}

// askAll asks the resolvers one after the other, first the one that answered last, and
// those that are silent once more: a packet may be lost.
func (s *Server) askAll(ctx context.Context, q *question, name dnsmessage.Name) *dnsmessage.Message {
	all := s.cfg.Resolvers()
	if len(all) == 0 {
		return q.message(dnsmessage.RCodeRefused)
	}
	failed := q.failure()
	end := s.cfg.Clock.Wall().Add(forwardMax)
	first := int(s.first.Load())
	heard := make([]bool, len(all)) // Those that said that they do not know: another may.
	for _, wait := range forwardWaits {
		for i := range all {
			i = (first + i) % len(all)
			until := s.cfg.Clock.Wall().Add(wait)
			if until.After(end) {
				until = end
			}
			if heard[i] || ctx.Err() != nil {
				continue
			}
			m, err := s.ask(ctx, all[i], dnsmessage.Question{Name: name, Type: q.Type, Class: dnsmessage.ClassINET}, q.dnssec, until)
			if err != nil {
				s.log.Debug("a resolver does not answer", "resolver", all[i], "error", err)
				continue
			}
			heard[i] = true
			if m.RCode == dnsmessage.RCodeSuccess || m.RCode == dnsmessage.RCodeNameError {
				s.first.Store(int32(i))
				return m
			}
			failed = m
		}
	}
	return failed
}

// ask asks one resolver, by TCP if the answer is too long for a datagram.
func (s *Server) ask(ctx context.Context, to netip.AddrPort, q dnsmessage.Question, dnssec bool, until time.Time) (*dnsmessage.Message, error) {
	ask := dnsmessage.Message{
		Header:      dnsmessage.Header{ID: uint16(s.cfg.Random()), RecursionDesired: true},
		Questions:   []dnsmessage.Question{q},
		Additionals: []dnsmessage.Resource{options(0, dnssec)},
	}
	b, err := ask.Pack()
	if err != nil {
		return nil, fmt.Errorf("question: %w", err)
	}
	m, err := s.exchange(ctx, "udp", to, ask.ID, q, b, until)
	if err != nil || !m.Truncated {
		return m, err
	}
	if whole, err := s.exchange(ctx, "tcp", to, ask.ID, q, b, until); err == nil {
		return whole, nil
	}
	return m, nil // A part is better than nothing.
}

var errWrongAnswer = errors.New("the answer is to another question")

func (s *Server) exchange(ctx context.Context, network string, to netip.AddrPort, id uint16, q dnsmessage.Question, packet []byte, until time.Time) (*dnsmessage.Message, error) {
	d := net.Dialer{Timeout: until.Sub(s.cfg.Clock.Wall())}
	c, err := d.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := c.SetDeadline(until); err != nil {
		return nil, err
	}
	if network == "tcp" {
		if err := writeFramed(c, packet); err != nil {
			return nil, err
		}
		b, err := readFramed(c)
		if err != nil {
			return nil, err
		}
		return read(b, id, q)
	}
	if _, err := c.Write(packet); err != nil {
		return nil, err
	}
	b := make([]byte, readMax)
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		// Whoever guesses the port must not end the waiting with a wrong number.
		if m, err := read(b[:n], id, q); !errors.Is(err, errWrongAnswer) {
			return m, err
		}
	}
}

// read reads an answer of a resolver. What it says of itself is left out.
func read(b []byte, id uint16, q dnsmessage.Question) (*dnsmessage.Message, error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || !h.Response || h.ID != id {
		return nil, errWrongAnswer
	}
	if is, err := p.Question(); err != nil || is.Type != q.Type || !strings.EqualFold(is.Name.String(), q.Name.String()) {
		return nil, errWrongAnswer
	}
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	m.Authoritative = false
	m.Additionals = slices.DeleteFunc(m.Additionals, func(r dnsmessage.Resource) bool { return r.Header.Type == dnsmessage.TypeOPT })
	return &m, nil
}
