package blobstoretest

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Fault is what a proxy does to a request.
type Fault string

// The faults.
const (
	None     Fault = ""
	Busy     Fault = "busy"     // Answered with 503; the server never hears of it.
	Broken   Fault = "broken"   // Answered with 500; the server never hears of it.
	Refused  Fault = "refused"  // The connection ends; the server never hears of it.
	Hanging  Fault = "hanging"  // No answer; the server never hears of it.
	Lost     Fault = "lost"     // The server acts, and the connection ends without an answer.
	Late     Fault = "late"     // The server acts, and there is no answer.
	Mistaken Fault = "mistaken" // The server acts, and 500 is the answer.
	Cut      Fault = "cut"      // The connection ends amid the answer.
	Slow     Fault = "slow"     // The answer comes in small pieces.
)

// Faults are all of them.
var Faults = []Fault{Busy, Broken, Refused, Hanging, Lost, Late, Mistaken, Cut, Slow}

// Proxy stands between clients and a server of HTTP, and is a bad network when
// told to.
type Proxy struct {
	URL  string
	next *http.Transport

	mu struct {
		sync.Mutex
		choose func(r *http.Request) Fault
		seen   map[Fault]int
	}
}

// startProxy forwards to a socket.
func startProxy(t testing.TB, socket string) *Proxy {
	p := &Proxy{next: &http.Transport{
		DisableKeepAlives: true, // A connection that the server gave up would be a fault that nobody chose.
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
	}}
	p.mu.seen = map[Fault]int{}
	server := httptest.NewServer(http.HandlerFunc(p.serve))
	p.URL = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections() // Hanging requests end.
		server.Close()
		p.next.CloseIdleConnections()
	})
	return p
}

// Choose has f say what happens to each request; nil ends that.
func (p *Proxy) Choose(f func(r *http.Request) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.choose = f
}

// Seen is how often a fault happened.
func (p *Proxy) Seen(f Fault) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.seen[f]
}

// NowAndThen chooses a fault for so many of 1,000 requests: each of them once,
// then those for which no client waits until its patience ends.
func NowAndThen(seed uint64, perMille int) func(*http.Request) Fault {
	var mu sync.Mutex
	chance := rand.New(rand.NewPCG(seed, 0))
	n := 0
	return func(*http.Request) Fault {
		mu.Lock()
		defer mu.Unlock()
		if chance.IntN(1000) >= perMille {
			return None
		}
		if n++; n <= len(Faults) {
			return Faults[n-1]
		}
		f := Faults[chance.IntN(len(Faults))]
		if f == Hanging || f == Late {
			return Busy
		}
		return f
	}
}

// First gives a fault to the first requests of a method.
func First(n int, method string, f Fault) func(*http.Request) Fault {
	var mu sync.Mutex
	return func(r *http.Request) Fault {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 || r.Method != method {
			return None
		}
		n--
		return f
	}
}

func (p *Proxy) choose(r *http.Request) Fault {
	p.mu.Lock()
	choose := p.mu.choose
	p.mu.Unlock()
	f := None
	if choose != nil {
		f = choose(r)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.seen[f]++
	return f
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	fault := p.choose(r)
	switch fault {
	case Busy, Broken:
		io.Copy(io.Discard, r.Body)
		answerError(w, fault)
		return
	case Refused:
		panic(http.ErrAbortHandler) // What net/http wants, to end a connection.
	case Hanging:
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		return
	}
	status, header, body, err := p.forward(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	switch fault {
	case Lost:
		panic(http.ErrAbortHandler)
	case Late:
		<-r.Context().Done()
		return
	case Mistaken:
		answerError(w, Broken)
		return
	}
	for name, values := range header {
		w.Header()[name] = values
	}
	if r.Method != http.MethodHead && status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	switch fault {
	case Cut:
		w.Write(body[:len(body)/2])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case Slow:
		trickle(w, body)
	default:
		w.Write(body)
	}
}

// forward lets a request reach the server whole, whatever becomes of the client.
func (p *Proxy) forward(r *http.Request) (status int, header http.Header, body []byte, err error) {
	sent, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, nil, nil, err
	}
	out := r.Clone(context.WithoutCancel(r.Context()))
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", "server", "" // The header Host stays: it is signed.
	out.Body, out.ContentLength = http.NoBody, int64(len(sent))
	if len(sent) > 0 {
		out.Body = io.NopCloser(bytes.NewReader(sent))
	}
	answer, err := p.next.RoundTrip(out)
	if err != nil {
		return 0, nil, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header, body, err
}

func answerError(w http.ResponseWriter, f Fault) {
	status, code := http.StatusInternalServerError, "InternalError"
	if f == Busy {
		status, code = http.StatusServiceUnavailable, "SlowDown"
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	io.WriteString(w, "<Error><Code>"+code+"</Code><Message>by the proxy</Message></Error>")
}

func trickle(w http.ResponseWriter, body []byte) {
	piece := max(1, len(body)/8)
	for len(body) > 0 {
		n := min(piece, len(body))
		w.Write(body[:n])
		http.NewResponseController(w).Flush()
		body = body[n:]
		<-time.After(5 * time.Millisecond)
	}
}
