package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http2/hpack"
)

// ErrConnect means that a run has not begun, as an endpoint cannot be connected to.
var ErrConnect = errors.New("connect to")

// Kinds, flags and settings of HTTP/2 frames (RFC 9113).
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	framePing         = 6
	frameGoAway       = 7
	frameWindowUpdate = 8
	frameContinuation = 9

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	settingPush       = 2
	settingStreams    = 3
	settingWindow     = 4
	settingFrameBytes = 5

	frameHeadBytes = 9
	grpcHeadBytes  = 5 // Of a message within a stream: compressed or not, and the length.
	preface        = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// user is whose requests a connection carries. Its methods are called by the
// reading goroutine, which holds the connection's lock, so that they may open
// streams and send.
type user interface {
	message(s *stream, m []byte)   // A whole message has come. m is good until it returns.
	closed(s *stream, cause error) // The stream is gone; nil: the server said that all is well.
}

// conn is a connection to one member.
type conn struct {
	net      net.Conn
	in       *bufio.Reader
	user     user
	endpoint string
	skip     int // Of the frame before, which lies in the buffer until the next is wanted.

	scheme, authority string

	// Guards all below. Held while answers are handled and while the buffer goes
	// out, which only fails to end if the server stops reading.
	mu sync.Mutex

	out     []byte // Frames to be sent.
	nextID  uint32
	streams map[uint32]*stream
	waiting []*stream // Not opened yet: the server allows no more at a time.
	blocked []*stream // Have bytes that no window allows yet.

	window       int64 // What may be sent on the connection.
	streamWindow int64 // What a new stream may send.
	streamsMax   uint32
	frameMax     int

	taken    int64 // Received since the window was last opened.
	sent     int64
	received int64

	decoder *hpack.Decoder
	fields  fields // Of the block being decoded.
	parts   []byte // Of a block that comes in several frames.
	partsOf byte   // Flags of its first frame.

	encoder *hpack.Encoder
	block   bytes.Buffer
	path    string // Of the block.
	settled bool   // Everything in it is in the server's table: it may be sent again as it is.
}

// fields are what matters of a block of headers.
type fields struct {
	http, grpc, text string
}

// stream is one call, and becomes the next one after it.
type stream struct {
	id      uint32 // Zero: not open.
	path    string
	unsent  []byte // Of the messages to send, each with its head.
	whole   bool   // Nothing comes after unsent.
	window  int64
	taken   int64
	partial []byte // Of a message that comes in several frames.
	user    any    // What belongs to it.
}

// dial connects to a member and introduces itself.
func dial(ctx context.Context, cfg *Config, endpoint string) (*conn, error) {
	address, secure, err := parseEndpoint(endpoint, cfg.TLS != nil)
	if err != nil {
		return nil, err
	}
	nc, err := cfg.Dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrConnect, endpoint, err)
	}
	c := &conn{
		endpoint: endpoint, scheme: "http", authority: strings.TrimPrefix(address, "unix:"),
		nextID: 1, streams: map[uint32]*stream{}, window: 65535, streamWindow: 65535, streamsMax: 1<<32 - 1, frameMax: frameBytes,
	}
	if secure {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if cfg.TLS != nil {
			config = cfg.TLS.Clone()
		}
		config.NextProtos = []string{"h2"}
		if config.ServerName == "" {
			config.ServerName = hostOf(address)
		}
		t := tls.Client(nc, config)
		if err := t.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, fmt.Errorf("%w %s: %w", ErrConnect, endpoint, err)
		}
		nc, c.scheme = t, "https"
	}
	c.net, c.in = nc, bufio.NewReaderSize(nc, readBytes)
	c.decoder = hpack.NewDecoder(4096, c.fields.take)
	c.encoder = hpack.NewEncoder(&c.block)
	c.out = append(c.out, preface...)
	c.frame(frameSettings, 0, 0, 12)
	c.out = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(c.out, settingPush), 0)
	c.out = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(c.out, settingWindow), windowBytes)
	c.openWindow(0, windowBytes-65535)
	return c, nil
}

func hostOf(address string) string {
	if strings.HasPrefix(address, "unix:") {
		return "localhost"
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// parseEndpoint takes "host:port" and URLs of http, https, unix and unixs.
func parseEndpoint(endpoint string, haveTLS bool) (address string, secure bool, err error) {
	scheme, rest, found := strings.Cut(endpoint, "://")
	if !found {
		return endpoint, haveTLS, nil
	}
	switch scheme {
	case "unix", "unixs":
		return "unix:" + rest, scheme == "unixs", nil
	case "http", "https":
		u, err := url.Parse(endpoint)
		if err != nil {
			return "", false, fmt.Errorf("endpoint: %w", err)
		}
		return u.Host, scheme == "https", nil
	}
	return "", false, fmt.Errorf("endpoint %q: unknown scheme %q; use http, https, unix or unixs", endpoint, scheme)
}

// frame begins a frame of so many bytes.
func (c *conn) frame(kind, flags byte, id uint32, length int) {
	c.out = append(c.out, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	c.out = binary.BigEndian.AppendUint32(c.out, id)
}

func (c *conn) openWindow(id uint32, by int) {
	c.frame(frameWindowUpdate, 0, id, 4)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(by))
}

// flush sends what has been collected. The lock is held.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	n, err := c.net.Write(c.out)
	c.sent += int64(n)
	c.out = c.out[:0]
	return err
}

// open makes a call; more may be sent later unless whole. The lock is held.
func (c *conn) open(s *stream, path string, whole bool) error {
	if c.nextID > streamIDMax {
		return errors.New("all streams of the connection are used up: use more --conns")
	}
	s.path, s.whole, s.partial = path, whole, s.partial[:0]
	if uint32(len(c.streams)) >= c.streamsMax {
		c.waiting = append(c.waiting, s)
		return nil
	}
	s.id, s.window, s.taken = c.nextID, c.streamWindow, 0
	c.nextID += 2
	c.streams[s.id] = s
	block := c.headers(path)
	c.frame(frameHeaders, flagEndHeaders, s.id, len(block))
	c.out = append(c.out, block...)
	c.pump(s)
	return nil
}

// headers encodes those of a call. They are the same each time, so after two
// calls the server's table holds all of them and the block does not change.
func (c *conn) headers(path string) []byte {
	same := c.path == path
	if same && c.settled {
		return c.block.Bytes()
	}
	c.path, c.settled = path, same
	c.block.Reset()
	for _, f := range [...][2]string{
		{":method", "POST"}, {":scheme", c.scheme}, {":path", path}, {":authority", c.authority},
		{"content-type", "application/grpc"}, {"user-agent", "holdfastctl-bench"}, {"te", "trailers"},
	} {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // A buffer takes everything.
	}
	return c.block.Bytes()
}

// append adds a message to what a stream has to send. The lock is held.
func (s *stream) append(m interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}) error {
	size, start := m.SizeVT(), len(s.unsent)
	s.unsent = append(s.unsent, make([]byte, grpcHeadBytes+size)...)
	head := s.unsent[start:]
	head[0] = 0
	binary.BigEndian.PutUint32(head[1:], uint32(size))
	_, err := m.MarshalToSizedBufferVT(head[grpcHeadBytes:])
	return err
}

// pump sends as much of a stream as windows allow. The lock is held.
func (c *conn) pump(s *stream) {
	rest := s.unsent
	for len(rest) > 0 {
		n := min(int64(len(rest)), int64(c.frameMax), c.window, s.window)
		if n <= 0 {
			break
		}
		flags := byte(0)
		if s.whole && n == int64(len(rest)) {
			flags = flagEndStream
		}
		c.frame(frameData, flags, s.id, int(n))
		c.out = append(c.out, rest[:n]...)
		rest = rest[n:]
		c.window -= n
		s.window -= n
	}
	s.unsent = s.unsent[:copy(s.unsent, rest)]
	if len(s.unsent) > 0 {
		c.blocked = append(c.blocked, s)
	}
}

// unblock tries again what waited for a window.
func (c *conn) unblock() {
	list := c.blocked
	c.blocked = nil
	for _, s := range list {
		if c.streams[s.id] == s {
			c.pump(s)
		}
	}
}

// read handles what the server sends until the connection ends.
func (c *conn) read() error {
	for {
		kind, flags, id, payload, err := c.next()
		if err != nil {
			return fmt.Errorf("connection to %s: %w", c.endpoint, err)
		}
		c.mu.Lock()
		c.received += int64(frameHeadBytes + len(payload))
		err = c.handle(kind, flags, id, payload)
		c.mu.Unlock()
		if err != nil {
			return fmt.Errorf("connection to %s: %w", c.endpoint, err)
		}
	}
}

// next returns a frame, which lies in the buffer. Before it would wait, it sends
// what has been collected.
func (c *conn) next() (kind, flags byte, id uint32, payload []byte, err error) {
	if _, err = c.in.Discard(c.skip); err != nil {
		return
	}
	c.skip = 0
	head, err := c.peek(frameHeadBytes)
	if err != nil {
		return
	}
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	if length > frameBytes {
		return 0, 0, 0, nil, fmt.Errorf("frame of %d bytes: not a server of the etcd protocol?", length)
	}
	kind, flags, id = head[3], head[4], binary.BigEndian.Uint32(head[5:])&streamIDMax
	frame, err := c.peek(frameHeadBytes + length)
	if err != nil {
		return
	}
	c.skip = len(frame)
	return kind, flags, id, frame[frameHeadBytes:], nil
}

func (c *conn) peek(n int) ([]byte, error) {
	if c.in.Buffered() < n {
		c.mu.Lock()
		err := c.flush()
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	b, err := c.in.Peek(n)
	if errors.Is(err, io.EOF) {
		err = errors.New("the server has hung up")
	}
	return b, err
}

// handle handles one frame. The lock is held.
func (c *conn) handle(kind, flags byte, id uint32, payload []byte) error {
	switch kind {
	case frameData:
		return c.handleData(flags, id, payload)
	case frameHeaders:
		return c.handleHeaders(flags, id, payload)
	case frameContinuation:
		return c.handleContinuation(flags, id, payload)
	case frameSettings:
		if flags&flagAck == 0 {
			return c.handleSettings(payload)
		}
	case framePing:
		if flags&flagAck == 0 {
			c.frame(framePing, flagAck, 0, len(payload))
			c.out = append(c.out, payload...)
		}
	case frameWindowUpdate:
		return c.handleWindow(id, payload)
	case frameReset:
		return c.end(id, fmt.Errorf("the server broke off: %x", payload))
	case frameGoAway:
		return errors.New("the server is going away")
	}
	return nil
}

func (c *conn) handleWindow(id uint32, payload []byte) error {
	if len(payload) != 4 {
		return errors.New("bad window update")
	}
	by := int64(binary.BigEndian.Uint32(payload) & streamIDMax)
	if id == 0 {
		c.window += by
	} else if s := c.streams[id]; s != nil {
		s.window += by
	}
	c.unblock()
	return nil
}

func (c *conn) handleSettings(payload []byte) error {
	for ; len(payload) >= 6; payload = payload[6:] {
		value := binary.BigEndian.Uint32(payload[2:])
		switch binary.BigEndian.Uint16(payload) {
		case settingWindow:
			for _, s := range c.streams {
				s.window += int64(value) - c.streamWindow
			}
			c.streamWindow = int64(value)
		case settingStreams:
			c.streamsMax = value
		case settingFrameBytes:
			c.frameMax = int(value)
		}
	}
	c.frame(frameSettings, flagAck, 0, 0)
	c.unblock()
	return c.openWaiting()
}

// openWaiting opens what the server had not allowed before.
func (c *conn) openWaiting() error {
	for len(c.waiting) > 0 && uint32(len(c.streams)) < c.streamsMax {
		s := c.waiting[0]
		c.waiting = c.waiting[1:]
		if err := c.open(s, s.path, s.whole); err != nil {
			return err
		}
	}
	return nil
}

// unpadded takes off what frames may carry besides their content.
func unpadded(flags byte, b []byte) ([]byte, error) {
	pad := 0
	if flags&flagPadded != 0 && len(b) > 0 {
		pad, b = int(b[0]), b[1:]
	}
	if flags&flagPriority != 0 && len(b) >= 5 {
		b = b[5:]
	}
	if pad > len(b) {
		return nil, errors.New("bad padding")
	}
	return b[:len(b)-pad], nil
}

func (c *conn) handleData(flags byte, id uint32, payload []byte) error {
	size := int64(len(payload))
	if c.taken += size; c.taken >= windowRefill {
		c.openWindow(0, int(c.taken))
		c.taken = 0
	}
	s := c.streams[id]
	if s == nil {
		return nil // Of a call that was given up.
	}
	b, err := unpadded(flags&^flagPriority, payload)
	if err != nil {
		return err
	}
	if flags&flagEndStream != 0 {
		return c.end(id, errors.New("the answer ends without a status"))
	}
	if s.taken += size; s.taken >= windowRefill {
		c.openWindow(id, int(s.taken))
		s.taken = 0
	}
	return c.messages(s, b)
}

// messages gives the whole messages to the user and keeps what is left.
func (c *conn) messages(s *stream, b []byte) error {
	gathered := len(s.partial) > 0
	if gathered {
		s.partial = append(s.partial, b...)
		b = s.partial
	}
	for len(b) >= grpcHeadBytes {
		length := binary.BigEndian.Uint32(b[1:])
		if b[0] != 0 || length > messageMax {
			return errors.New("an answer is compressed or too large")
		}
		if uint64(len(b)) < grpcHeadBytes+uint64(length) {
			break
		}
		c.user.message(s, b[grpcHeadBytes:grpcHeadBytes+length])
		b = b[grpcHeadBytes+length:]
	}
	switch {
	case !gathered:
		s.partial = append(s.partial, b...)
	case len(b) < len(s.partial): // Else nothing was whole yet, and all stays where it is.
		s.partial = s.partial[:copy(s.partial, b)]
	}
	return nil
}

func (c *conn) handleHeaders(flags byte, id uint32, payload []byte) error {
	b, err := unpadded(flags, payload)
	if err != nil {
		return err
	}
	if flags&flagEndHeaders == 0 {
		c.parts, c.partsOf = append(c.parts[:0], b...), flags
		return nil
	}
	return c.decode(flags, id, b)
}

func (c *conn) handleContinuation(flags byte, id uint32, payload []byte) error {
	if c.parts = append(c.parts, payload...); len(c.parts) > headersMax {
		return errors.New("endless headers")
	}
	if flags&flagEndHeaders == 0 {
		return nil
	}
	return c.decode(c.partsOf, id, c.parts)
}

// take remembers a header.
func (f *fields) take(h hpack.HeaderField) {
	switch h.Name {
	case ":status":
		f.http = h.Value
	case "grpc-status":
		f.grpc = h.Value
	case "grpc-message":
		f.text = h.Value
	}
}

// decode reads a block of headers, whatever stream it belongs to: the table
// that it changes belongs to the connection.
func (c *conn) decode(flags byte, id uint32, block []byte) error {
	c.fields = fields{}
	if _, err := c.decoder.Write(block); err != nil {
		return err
	}
	if err := c.decoder.Close(); err != nil {
		return err
	}
	f := c.fields
	switch {
	case f.http != "" && f.http != "200":
		return c.end(id, fmt.Errorf("HTTP status %s: not a server of the etcd protocol?", f.http))
	case flags&flagEndStream == 0:
		return nil
	case f.grpc == "0":
		return c.end(id, nil)
	case f.text != "":
		if text, err := url.PathUnescape(f.text); err == nil {
			f.text = text
		}
		return c.end(id, errors.New(f.text))
	}
	return c.end(id, errors.New("gRPC status "+strconv.Quote(f.grpc)))
}

// end ends a stream.
func (c *conn) end(id uint32, cause error) error {
	s := c.streams[id]
	if s == nil {
		return nil
	}
	delete(c.streams, id)
	s.id = 0
	s.unsent = s.unsent[:0]
	c.user.closed(s, cause)
	return c.openWaiting()
}
