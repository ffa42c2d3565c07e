package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/websocket"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/proto/gateway"
	gw "github.com/holdfast-db/holdfast/proto/gateway/etcdserverpb"
	electiongw "github.com/holdfast-db/holdfast/proto/gateway/v3electionpb"
	lockgw "github.com/holdfast-db/holdfast/proto/gateway/v3lockpb"
)

// jsonGateway answers JSON on /v3 by calls over the connection inside the
// process, so that all that is true of calls is true of it: guard, limits,
// metrics. The connection is made by the first request, and shows no
// certificate: whose name a caller's certificate carries means nothing here.
type jsonGateway struct {
	ends context.Context // Of the server: the HTTP server knows nothing of a WebSocket any more.
	mux  *runtime.ServeMux
	conn *grpc.ClientConn

	sockets chan struct{} // One for each WebSocket.
}

// streamRoutes are those whose clients send more than one message.
var streamRoutes = []string{"/v3/watch", "/v3/lease/keepalive"}

func (s *Server) newGateway() (*jsonGateway, error) {
	conn, err := s.DialInside()
	if err != nil {
		return nil, fmt.Errorf("JSON gateway: %w", err)
	}
	g := &jsonGateway{ends: s.group.Context(), conn: conn, sockets: make(chan struct{}, webSocketsMax)}
	json := &boundedJSON{
		JSONPb: runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		},
		max: 2 * (s.cfg.RequestBytesMax + receiveOverheadBytes), // Base64 takes a third more, and names their part.
	}
	g.mux = runtime.NewServeMux(runtime.WithMarshalerOption(runtime.MIMEWildcard, json))
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		gw.RegisterKVHandler, gw.RegisterWatchHandler, gw.RegisterLeaseHandler, gw.RegisterClusterHandler,
		gw.RegisterMaintenanceHandler, gw.RegisterAuthHandler, lockgw.RegisterLockHandler, electiongw.RegisterElectionHandler,
	} {
		if err := register(context.Background(), g.mux, conn); err != nil {
			return nil, errors.Join(fmt.Errorf("JSON gateway: %w", err), conn.Close())
		}
	}
	return g, nil
}

// ServeHTTP implements http.Handler.
func (g *jsonGateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if websocket.IsWebSocketUpgrade(r) {
		g.upgrade(w, r)
		return
	}
	if slices.Contains(streamRoutes, r.URL.Path) {
		http.NewResponseController(w).EnableFullDuplex() // HTTP/2 is by nature, and says that it can not.
	}
	g.mux.ServeHTTP(w, r)
}

// boundedJSON reads no message that no call could carry: it would be in memory
// before anything could refuse it.
type boundedJSON struct {
	runtime.JSONPb
	max int
}

var errJSONTooLarge = errors.New("etcdserver: request is too large")

// NewDecoder implements runtime.Marshaler.
func (m *boundedJSON) NewDecoder(r io.Reader) runtime.Decoder {
	bounded := &boundedReader{r: r}
	d := m.JSONPb.NewDecoder(bounded)
	return runtime.DecoderFunc(func(v any) error {
		bounded.left = m.max
		return d.Decode(v)
	})
}

type boundedReader struct {
	r    io.Reader
	left int // Of the message that is being read.
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errJSONTooLarge
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// upgrader takes pages of any origin, as the protocol does: without a token in
// their hands they can do no more than anybody.
var upgrader = websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}

// bearer begins the only thing that a page may say beside the URL: its token.
const bearer = "Bearer"

// upgrade carries a stream over a WebSocket: each message from the client is
// one of the request, each line of the answer one message to it.
func (g *jsonGateway) upgrade(w http.ResponseWriter, r *http.Request) {
	select {
	case g.sockets <- struct{}{}:
		defer func() { <-g.sockets }()
	default:
		http.Error(w, "There are too many WebSockets on this member: close some, or ask another one.", http.StatusServiceUnavailable)
		return
	}
	var answer http.Header
	token := r.Header.Get("Authorization")
	if p := r.Header.Get("Sec-WebSocket-Protocol"); strings.HasPrefix(p, bearer) {
		answer = http.Header{"Sec-Websocket-Protocol": {bearer}}
		_, token, _ = strings.Cut(p, ",")
		token = bearer + " " + strings.TrimSpace(token)
	}
	conn, err := upgrader.Upgrade(w, r, answer)
	if err != nil {
		return // It has told the client.
	}
	defer conn.Close()
	defer context.AfterFunc(g.ends, func() { conn.Close() })()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	body, messages := io.Pipe()
	request := r.Clone(ctx)
	request.Method, request.Body, request.Header = http.MethodPost, body, http.Header{}
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	// Nobody waits for the group: reading ends when conn is closed.
	task.New(ctx).Go("websocket", func(context.Context) error {
		defer cancel()
		messages.CloseWithError(readMessages(conn, messages))
		return nil
	})
	out := &socketWriter{conn: conn, header: http.Header{}}
	g.mux.ServeHTTP(out, request)
	messages.CloseWithError(io.EOF) // For who reads the request still.
	out.end()
}

func readMessages(conn *websocket.Conn, to io.Writer) error {
	for {
		_, message, err := conn.NextReader()
		if err != nil {
			return io.EOF
		}
		if _, err := io.Copy(to, message); err != nil {
			return err
		}
		if _, err := io.WriteString(to, "\n"); err != nil {
			return err
		}
	}
}

// socketWriter sends each line that is written as a message.
type socketWriter struct {
	conn   *websocket.Conn
	header http.Header
	line   []byte // So far.
}

// Header implements http.ResponseWriter. Nobody sees what is in it.
func (w *socketWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. An answer says by itself whether
// it is an error.
func (w *socketWriter) WriteHeader(int) {}

// Flush implements http.Flusher.
func (w *socketWriter) Flush() {}

func (w *socketWriter) Write(b []byte) (int, error) {
	w.line = append(w.line, b...)
	for {
		line, rest, ok := bytes.Cut(w.line, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		if err := w.send(line); err != nil {
			return 0, err
		}
		w.line = append(w.line[:0], rest...)
	}
}

func (w *socketWriter) send(line []byte) error {
	if len(line) == 0 {
		return nil
	}
	return w.conn.WriteMessage(websocket.TextMessage, line)
}

// end sends what had no end of line, and says goodbye.
func (w *socketWriter) end() {
	if w.send(w.line) == nil {
		w.conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")) // Who is gone does not hear it.
	}
}

// access is what plain HTTP on the client URLs passes: who may come in, under
// which name, and what browsers are told.
func (s *Server) access(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v3beta/"); ok {
			r.URL.Path = "/v3/" + rest
		}
		if host := hostOf(r); r.TLS == nil && !allowed(s.cfg.HostWhitelist, host) {
			s.log.Warn("refused a cleartext HTTP request for a name that is not on the list of hosts", "host", host)
			http.Error(w, fmt.Sprintf("Host %q is not one by which cleartext HTTP may call this member: use https, or name it in --host-whitelist.", host), http.StatusMisdirectedRequest)
			return
		}
		if name := certifiedName(r); name != "" && strings.HasPrefix(r.URL.Path, "/v3/") && s.cfg.ClientTLS.ClientCertAuth && s.authOn() {
			http.Error(w, "With authentication on, JSON is not answered to a certificate that names a user, for it would not act as that user: "+
				"use a certificate without a common name, and send the token of /v3/auth/authenticate as Authorization.", http.StatusBadRequest)
			return
		}
		switch origin := r.Header.Get("Origin"); {
		case allowed(s.cfg.CORS, "*"):
			allowOrigin(w, "*")
		case allowed(s.cfg.CORS, origin):
			allowOrigin(w, origin)
		}
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusOK)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// certifiedName is the common name in the certificate that a request came with.
func certifiedName(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return ""
	}
	return r.TLS.VerifiedChains[0][0].Subject.CommonName
}

// allowed tells whether a list has a name. An empty one, or a star, has all.
func allowed(list []string, name string) bool {
	return len(list) == 0 || slices.Contains(list, "*") || slices.Contains(list, name)
}

func hostOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return r.Host
}

func allowOrigin(w http.ResponseWriter, origin string) {
	w.Header().Add("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
	w.Header().Add("Access-Control-Allow-Origin", origin)
	w.Header().Add("Access-Control-Allow-Headers", "accept, content-type, authorization")
}

func openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(gateway.OpenAPI) // A client that went away is no error of ours.
}
