package check

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// line is one line of a file: exactly one field is set. Watches come before
// what they saw.
type line struct {
	Op         *opLine     `json:"op,omitempty"`
	Watch      *watchLine  `json:"watch,omitempty"`
	Seen       *seenLine   `json:"seen,omitempty"`
	Event      *message    `json:"event,omitempty"`
	Head       int64       `json:"head,omitempty"`
	Compaction *Compaction `json:"compaction,omitempty"`
	Hash       *Hash       `json:"hash,omitempty"`
	Hold       *Hold       `json:"hold,omitempty"`
	Span       *Span       `json:"span,omitempty"`
}

type opLine struct {
	ID         int      `json:"id"`
	Client     int      `json:"client"`
	Member     int      `json:"member"`
	Connection int      `json:"connection,omitempty"`
	Call       int64    `json:"call"`
	Return     int64    `json:"return,omitempty"`
	Outcome    string   `json:"outcome"`
	Error      string   `json:"error,omitempty"`
	Request    message  `json:"request"`
	Response   *message `json:"response,omitempty"`
}

type watchLine struct {
	ID      int     `json:"id"`
	Client  int     `json:"client"`
	Member  int     `json:"member"`
	Call    int64   `json:"call"`
	Open    bool    `json:"open,omitempty"`
	Resumes int     `json:"resumes,omitempty"`
	Request message `json:"request"`
}

type seenLine struct {
	Watch    int     `json:"watch"`
	Time     int64   `json:"time"`
	Response message `json:"response"`
}

// message is a message with its name.
type message struct {
	Name string          `json:"name"`
	Body json.RawMessage `json:"body"`
}

func pack(m proto.Message) (message, error) {
	body, err := protojson.Marshal(m)
	return message{Name: string(m.ProtoReflect().Descriptor().FullName()), Body: body}, err
}

func packOptional(m proto.Message) (*message, error) {
	if m == nil {
		return nil, nil
	}
	packed, err := pack(m)
	return &packed, err
}

func (m *message) unpack() (proto.Message, error) {
	if m == nil {
		return nil, nil
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(m.Name))
	if err != nil {
		return nil, fmt.Errorf("message %q: %w", m.Name, err)
	}
	out := kind.New().Interface()
	return out, protojson.Unmarshal(m.Body, out)
}

// Write writes a history, a line of JSON for each thing.
func Write(w io.Writer, h *History) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	for i := range h.Ops {
		l, err := h.Ops[i].line()
		if err == nil {
			err = enc.Encode(l)
		}
		if err != nil {
			return fmt.Errorf("operation %d: %w", h.Ops[i].ID, err)
		}
	}
	for i := range h.Watches {
		if err := writeWatch(enc, &h.Watches[i]); err != nil {
			return fmt.Errorf("watch %d: %w", h.Watches[i].ID, err)
		}
	}
	for _, e := range h.Log {
		m, err := pack(e)
		if err == nil {
			err = enc.Encode(line{Event: &m})
		}
		if err != nil {
			return fmt.Errorf("event at revision %d: %w", e.GetKv().GetModRevision(), err)
		}
	}
	var rest []line
	if h.Head != 0 {
		rest = append(rest, line{Head: h.Head})
	}
	for i := range h.Compactions {
		rest = append(rest, line{Compaction: &h.Compactions[i]})
	}
	for i := range h.Hashes {
		rest = append(rest, line{Hash: &h.Hashes[i]})
	}
	for i := range h.Holds {
		rest = append(rest, line{Hold: &h.Holds[i]})
	}
	for i := range h.Spans {
		rest = append(rest, line{Span: &h.Spans[i]})
	}
	for i := range rest {
		if err := enc.Encode(rest[i]); err != nil {
			return err
		}
	}
	return out.Flush()
}

func (op *Op) line() (line, error) {
	req, err := pack(op.Request)
	if err != nil {
		return line{}, err
	}
	res, err := packOptional(op.Response)
	return line{Op: &opLine{
		ID: op.ID, Client: op.Client, Member: op.Member, Connection: op.Connection, Call: op.Call, Return: op.Return,
		Outcome: op.Outcome.String(), Error: op.Error, Request: req, Response: res,
	}}, err
}

func writeWatch(enc *json.Encoder, w *Watch) error {
	req, err := pack(w.Request)
	if err != nil {
		return err
	}
	if err := enc.Encode(line{Watch: &watchLine{w.ID, w.Client, w.Member, w.Call, w.Open, w.Resumes, req}}); err != nil {
		return err
	}
	for _, s := range w.Seen {
		res, err := pack(s.Response)
		if err != nil {
			return err
		}
		if err := enc.Encode(line{Seen: &seenLine{w.ID, s.Time, res}}); err != nil {
			return err
		}
	}
	return nil
}

// Read reads what Write wrote.
func Read(r io.Reader) (*History, error) {
	h, dec := &History{}, json.NewDecoder(bufio.NewReader(r))
	watches := map[int]int{}
	for n := 1; ; n++ {
		var l line
		err := dec.Decode(&l)
		if errors.Is(err, io.EOF) {
			return h, nil
		}
		if err == nil {
			err = h.add(&l, watches)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
}

func (h *History) add(l *line, watches map[int]int) error {
	switch {
	case l.Op != nil:
		return h.addOp(l.Op)
	case l.Watch != nil:
		req, err := unpackAs[*pb.WatchCreateRequest](&l.Watch.Request)
		if err != nil {
			return err
		}
		watches[l.Watch.ID] = len(h.Watches)
		w := l.Watch
		h.Watches = append(h.Watches, Watch{ID: w.ID, Client: w.Client, Member: w.Member, Call: w.Call, Open: w.Open, Resumes: w.Resumes, Request: req})
	case l.Seen != nil:
		res, err := unpackAs[*pb.WatchResponse](&l.Seen.Response)
		if err != nil {
			return err
		}
		i, ok := watches[l.Seen.Watch]
		if !ok {
			return fmt.Errorf("something seen by watch %d before that began", l.Seen.Watch)
		}
		h.Watches[i].Seen = append(h.Watches[i].Seen, WatchSeen{l.Seen.Time, res})
	case l.Event != nil:
		e, err := unpackAs[*mvccpb.Event](l.Event)
		if err != nil {
			return err
		}
		h.Log = append(h.Log, e)
	case l.Head != 0:
		h.Head = l.Head
	case l.Compaction != nil:
		h.Compactions = append(h.Compactions, *l.Compaction)
	case l.Hash != nil:
		h.Hashes = append(h.Hashes, *l.Hash)
	case l.Hold != nil:
		h.Holds = append(h.Holds, *l.Hold)
	case l.Span != nil:
		h.Spans = append(h.Spans, *l.Span)
	default:
		return errors.New("a line of a kind that is not known")
	}
	return nil
}

func (h *History) addOp(l *opLine) error {
	op := Op{ID: l.ID, Client: l.Client, Member: l.Member, Connection: l.Connection, Call: l.Call, Return: l.Return, Error: l.Error}
	for i, name := range outcomeNames {
		if name == l.Outcome {
			op.Outcome = Outcome(i)
		}
	}
	var err error
	if op.Request, err = l.Request.unpack(); err != nil {
		return err
	}
	if op.Response, err = l.Response.unpack(); err != nil {
		return err
	}
	h.Ops = append(h.Ops, op)
	return nil
}

func unpackAs[M proto.Message](m *message) (M, error) {
	var none M
	got, err := m.unpack()
	if err != nil {
		return none, err
	}
	out, ok := got.(M)
	if !ok {
		return none, fmt.Errorf("%s where %T is expected", m.Name, none)
	}
	return out, nil
}
