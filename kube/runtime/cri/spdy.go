package cri

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/moby/spdystream"

	"github.com/holdfast-db/holdfast/internal/task"
)

// protocol is the form of streams that all runtimes of today speak: the exit code is
// told as JSON on a stream of its own, sizes of terminals likewise.
const protocol = "v4.channel.k8s.io"

const answerBytesMax = 4 << 10 // Of what a streaming server says when it refuses.

// session is a connection to the streaming server of the runtime.
type session struct {
	conn  *spdystream.Connection
	serve *task.Group
}

// connect opens the address that the runtime gave for one command.
func connect(ctx context.Context, address string) (*session, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, nil)
	if err != nil {
		return nil, fmt.Errorf("streaming server of the runtime: %w", err)
	}
	if request.URL.Scheme != "http" {
		return nil, fmt.Errorf("streaming server of the runtime at %s: want http on loopback: turn its TLS off (containerd: enable_tls_streaming)", request.URL.Host)
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "SPDY/3.1")
	request.Header.Set("X-Stream-Protocol-Version", protocol)
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", request.URL.Host)
	if err != nil {
		return nil, fmt.Errorf("streaming server of the runtime: %w", err)
	}
	// The answer may be late; nothing else would end the wait for it.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	conn, err := upgrade(raw, request)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("streaming server of the runtime: %w", err), raw.Close(), ctx.Err())
	}
	s := &session{conn: conn, serve: task.New(context.WithoutCancel(ctx))} // Ends with the connection.
	s.serve.Go("cri-spdy", func(context.Context) error {
		conn.Serve(spdystream.NoOpStreamHandler)
		return nil
	})
	return s, nil
}

func upgrade(raw net.Conn, request *http.Request) (*spdystream.Connection, error) {
	if err := request.Write(raw); err != nil {
		return nil, err
	}
	in := bufio.NewReader(raw)
	answer, err := http.ReadResponse(in, request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, answerBytesMax)) // As much as there is.
		return nil, fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(text)))
	}
	// Frames may have come with the answer.
	return spdystream.NewConnection(&buffered{raw, in}, false)
}

// buffered is a connection of which some was read already.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// stream opens one of a kind: error, stdin, stdout, stderr or resize.
func (s *session) stream(kind string) (*spdystream.Stream, error) {
	stream, err := s.conn.CreateStream(http.Header{"Streamtype": []string{kind}}, nil, false)
	if err == nil {
		err = stream.Wait()
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", kind, err)
	}
	return stream, nil
}

// close ends everything. Reads end with it.
func (s *session) close() {
	s.conn.Close()
	_ = s.serve.Wait() // It has no error to tell.
}
