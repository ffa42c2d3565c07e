package dns

import (
	"errors"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// question is what somebody asks.
type question struct {
	dnsmessage.Question
	id      uint16
	desired bool   // Recursion is.
	name    string // In lower case.
	limit   int    // Bytes of the answer.
	edns    bool   // It may say more than plain DNS.
	dnssec  bool   // Signatures are wanted.
	version uint8  // Of EDNS: there is 0.
}

// rcodeBadVersion is BADVERS, the upper bits of which are in the options.
const (
	rcodeBadVersion = dnsmessage.RCode(16)
	rcodeMask       = 15
)

// parse reads a packet. Without a question there is an answer that says why; nil: not
// even that.
func parse(b []byte, stream bool) (*question, []byte) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.Response {
		return nil, nil // An answer to an answer would go on for ever.
	}
	refuse := func(code dnsmessage.RCode) (*question, []byte) {
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RCode: code}}
		out, err := m.Pack()
		if err != nil {
			return nil, nil
		}
		return nil, out
	}
	if h.OpCode != 0 {
		return refuse(dnsmessage.RCodeNotImplemented)
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return refuse(dnsmessage.RCodeFormatError)
	}
	q := &question{Question: questions[0], id: h.ID, desired: h.RecursionDesired, name: strings.ToLower(questions[0].Name.String()), limit: datagramPlain}
	if q.Class != dnsmessage.ClassINET {
		return refuse(dnsmessage.RCodeRefused)
	}
	if err := q.readOptions(&p); err != nil {
		return refuse(dnsmessage.RCodeFormatError)
	}
	if q.version != 0 {
		return nil, q.pack(q.message(rcodeBadVersion))
	}
	if stream {
		q.limit = messageMax
	}
	return q, nil
}

// readOptions looks for the record in which newer clients say what they can.
func (q *question) readOptions(p *dnsmessage.Parser) error {
	if err := p.SkipAllAnswers(); err != nil {
		return err
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return err
	}
	for {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Type == dnsmessage.TypeOPT {
			if q.edns {
				return errors.New("options twice")
			}
			q.edns, q.dnssec, q.version = true, h.DNSSECAllowed(), uint8(h.TTL>>16)
			q.limit = min(max(int(h.Class), datagramPlain), datagramMax)
		}
		if err := p.SkipAdditional(); err != nil {
			return err
		}
	}
}

// message is an answer without records.
func (q *question) message(code dnsmessage.RCode) *dnsmessage.Message {
	return &dnsmessage.Message{Header: dnsmessage.Header{RCode: code}}
}

func (q *question) failure() *dnsmessage.Message { return q.message(dnsmessage.RCodeServerFailure) }

// pack makes the packet of an answer, with as many records as the client can take.
func (q *question) pack(m *dnsmessage.Message) []byte {
	m.ID, m.Response, m.OpCode, m.RecursionDesired, m.RecursionAvailable = q.id, true, 0, q.desired, true
	m.Questions = []dnsmessage.Question{q.Question}
	if q.edns {
		m.Additionals = append(m.Additionals, options(m.RCode, q.dnssec))
	}
	m.RCode &= rcodeMask
	for {
		b, err := m.Pack()
		if err != nil {
			q.strip(m)
			m.Header.RCode, m.Answers = dnsmessage.RCodeServerFailure, nil
			if b, err = m.Pack(); err != nil {
				return nil
			}
		}
		if len(b) <= q.limit {
			return b
		}
		// What only saves questions goes first; then the client is told to ask by TCP.
		if !q.strip(m) {
			if len(m.Answers) == 0 {
				return nil // A question does not fit: it is none.
			}
			m.Truncated, m.Answers = true, m.Answers[:min(len(m.Answers)*q.limit/len(b), len(m.Answers)-1)]
		}
	}
}

// strip removes all but the answers, and reports whether there was more.
func (q *question) strip(m *dnsmessage.Message) bool {
	keep := 0
	if q.edns {
		keep = 1
	}
	if len(m.Authorities) == 0 && len(m.Additionals) <= keep {
		return false
	}
	m.Authorities, m.Additionals = nil, m.Additionals[len(m.Additionals)-keep:]
	return true
}

// options is the record that says what we can.
func options(code dnsmessage.RCode, dnssec bool) dnsmessage.Resource {
	var h dnsmessage.ResourceHeader
	h.Name = dnsmessage.MustNewName(".")
	// It fails for codes only that do not fit, and those are masked.
	if err := h.SetEDNS0(datagramMax, code&0xfff, dnssec); err != nil {
		h.Type, h.Class = dnsmessage.TypeOPT, datagramMax
	}
	return dnsmessage.Resource{Header: h, Body: &dnsmessage.OPTResource{}}
}
