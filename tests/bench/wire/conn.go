// Package wire is a gRPC client that costs as little as possible: it shares
// the machine with the server that it measures.
//
// A Conn is one HTTP/2 connection and belongs to one goroutine, which reads
// frames in Run and starts the next calls from the callbacks. What is written
// leaves when everything read is worked off, so that many calls share a system
// call. It speaks to grpc-go servers; it is no general client.
package wire

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	bufferBytes   = 64 << 10
	streamWindow  = 1 << 30 // Servers never wait for the client.
	connWindow    = 1 << 30
	windowRefill  = 1 << 26
	initialWindow = 65535 // What HTTP/2 says of a server that has not spoken yet.
	prefixBytes   = 5     // Before each message: compressed or not, and its length.
)

// ErrProtocol says that the server sent what this client does not understand.
var ErrProtocol = errors.New("unexpected frame")

// Call is a call under way. Message and End run on the goroutine of Run.
type Call struct {
	// Message is given each message of the answer; the bytes are valid until it
	// returns. It may be nil.
	Message func(body []byte) error
	// End is called once, with the gRPC status.
	End func(status int, text string) error

	stream  uint32
	partial []byte // A message of which more is to come.
	taken   int    // Bytes of the answer that the server was not told of.
	status  int
	text    string
}

// Conn is one connection.
type Conn struct {
	nc      net.Conn
	in      *bufio.Reader
	out     *bufio.Writer
	framer  *http2.Framer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	block   blockBuffer
	host    string
	token   string

	calls    map[uint32]*Call
	current  *Call // Whose headers are being decoded.
	next     uint32
	credit   int64 // Bytes that the server takes on this connection.
	waiting  []delayed
	received int
	message  []byte
}

// delayed is a request that waits for credit.
type delayed struct {
	stream uint32
	last   bool
	body   []byte
}

type blockBuffer []byte

func (b *blockBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// Dialer says who connects, and how.
type Dialer struct {
	TLS   *tls.Config // Nil: cleartext.
	Token string      // Comes with each call.
}

// Dial connects to a server as nobody.
func Dial(addr string) (*Conn, error) { return Dialer{}.Dial(addr) }

// Dial connects to a server.
func (d Dialer) Dial(addr string) (*Conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if d.TLS != nil {
		nc = tls.Client(nc, d.TLS)
	}
	c := &Conn{
		token: d.Token,
		nc:    nc, in: bufio.NewReaderSize(nc, bufferBytes), out: bufio.NewWriterSize(nc, bufferBytes),
		calls: map[uint32]*Call{}, next: 1, credit: initialWindow, host: addr,
	}
	c.framer = http2.NewFramer(c.out, c.in)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(1<<24 - 1)
	c.encoder = hpack.NewEncoder(&c.block)
	c.decoder = hpack.NewDecoder(4096, c.header)
	_, err = c.out.WriteString(http2.ClientPreface)
	err = errors.Join(err,
		c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow}),
		c.framer.WriteWindowUpdate(0, connWindow-initialWindow),
		c.out.Flush())
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection. Any goroutine may call it: Run returns.
func (c *Conn) Close() error { return c.nc.Close() }

// Start begins a call with one message. The stream stays open for more when
// open is set. It is sent when Run has nothing else to do, or by Flush.
func (c *Conn) Start(path string, body []byte, call *Call, open bool) error {
	c.block = c.block[:0]
	for _, f := range [...]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path}, {Name: ":authority", Value: c.host},
		{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "holdfast-bench"}, {Name: "te", Value: "trailers"},
		{Name: "client-api-version", Value: "3.7"},
	} {
		if err := c.encoder.WriteField(f); err != nil {
			return err
		}
	}
	if c.token != "" {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: "token", Value: c.token}); err != nil {
			return err
		}
	}
	call.stream, call.status, call.text, call.taken = c.next, 0, "", 0
	c.next += 2
	c.calls[call.stream] = call
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: call.stream, BlockFragment: c.block, EndHeaders: true})
	if err != nil {
		return err
	}
	return c.send(call.stream, body, !open)
}

// Send adds a message to a call that was left open.
func (c *Conn) Send(call *Call, body []byte) error { return c.send(call.stream, body, false) }

func (c *Conn) send(stream uint32, body []byte, last bool) error {
	c.message = append(c.message[:0], 0)
	c.message = binary.BigEndian.AppendUint32(c.message, uint32(len(body)))
	c.message = append(c.message, body...)
	if len(c.waiting) > 0 || c.credit < int64(len(c.message)) {
		c.waiting = append(c.waiting, delayed{stream, last, append([]byte(nil), c.message...)})
		return nil
	}
	c.credit -= int64(len(c.message))
	return c.framer.WriteData(stream, last, c.message)
}

// Flush sends what was written. Only before Run, or within its callbacks.
func (c *Conn) Flush() error { return c.out.Flush() }

// Run reads until the connection ends or a callback returns an error, which is
// passed on.
func (c *Conn) Run() error {
	for {
		if c.in.Buffered() == 0 {
			if err := c.out.Flush(); err != nil {
				return err
			}
		}
		f, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		if err := c.frame(f); err != nil {
			return err
		}
	}
}

// Idle reports whether no call is under way.
func (c *Conn) Idle() bool { return len(c.calls) == 0 }

func (c *Conn) frame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		return c.headers(f)
	case *http2.DataFrame:
		return c.data(f)
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.credit += int64(f.Increment)
			return c.sendWaiting()
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.framer.WritePing(true, f.Data)
		}
	case *http2.RSTStreamFrame:
		if call := c.calls[f.StreamID]; call != nil {
			delete(c.calls, f.StreamID)
			return call.End(int(f.ErrCode)+100, "stream reset")
		}
	case *http2.GoAwayFrame:
		return io.EOF
	default:
		return fmt.Errorf("%s: %w", f.Header().Type, ErrProtocol)
	}
	return nil
}

func (c *Conn) sendWaiting() error {
	for len(c.waiting) > 0 && c.credit >= int64(len(c.waiting[0].body)) {
		d := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.credit -= int64(len(d.body))
		if err := c.framer.WriteData(d.stream, d.last, d.body); err != nil {
			return err
		}
	}
	return nil
}

// header is told each field of headers and trailers.
func (c *Conn) header(f hpack.HeaderField) {
	if c.current == nil {
		return
	}
	switch f.Name {
	case "grpc-status":
		n, err := strconv.Atoi(f.Value)
		if err != nil {
			n = math.MaxInt32
		}
		c.current.status = n
	case "grpc-message":
		c.current.text = f.Value
	}
}

func (c *Conn) headers(f *http2.HeadersFrame) error {
	if !f.HeadersEnded() {
		return fmt.Errorf("headers in parts: %w", ErrProtocol)
	}
	c.current = c.calls[f.StreamID]
	if _, err := c.decoder.Write(f.HeaderBlockFragment()); err != nil {
		return err
	}
	call := c.current
	if call == nil || !f.StreamEnded() {
		return nil
	}
	delete(c.calls, f.StreamID)
	return call.End(call.status, call.text)
}

func (c *Conn) data(f *http2.DataFrame) error {
	if c.received += len(f.Data()); c.received >= windowRefill {
		if err := c.framer.WriteWindowUpdate(0, uint32(c.received)); err != nil {
			return err
		}
		c.received = 0
	}
	call := c.calls[f.StreamID]
	if call == nil {
		return nil
	}
	if call.taken += len(f.Data()); call.taken >= windowRefill {
		if err := c.framer.WriteWindowUpdate(f.StreamID, uint32(call.taken)); err != nil {
			return err
		}
		call.taken = 0
	}
	b := f.Data()
	if len(call.partial) > 0 {
		call.partial = append(call.partial, b...)
		b = call.partial
		if len(b) < prefixBytes || len(b) < prefixBytes+int(binary.BigEndian.Uint32(b[1:])) {
			return nil
		}
	}
	for len(b) >= prefixBytes {
		n := prefixBytes + int(binary.BigEndian.Uint32(b[1:]))
		if len(b) < n {
			break
		}
		if call.Message != nil {
			if err := call.Message(b[prefixBytes:n]); err != nil {
				return err
			}
		}
		b = b[n:]
	}
	call.partial = append(call.partial[:0], b...) // b may be its own end: append moves it.
	return nil
}
