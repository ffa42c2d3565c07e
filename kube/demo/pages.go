package demo

import (
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/kube/api"
)

// failure is on for good, or for a time.
type failure struct {
	on    bool
	until time.Duration // By Mono; 0: for good.
}

func (f failure) at(now time.Duration) bool { return f.on && (f.until == 0 || now < f.until) }

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.home)
	mux.HandleFunc("/headers", s.headers)
	mux.HandleFunc("/burn", s.burn)
	mux.HandleFunc("/eat", s.eat)
	mux.HandleFunc("/wait", s.wait)
	mux.HandleFunc("/exit", s.leave)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { s.health(w, r, &s.mu.unhealthy, false) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) { s.health(w, r, &s.mu.unable, true) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Pod", s.who.Pod)
		if strings.HasSuffix(r.URL.Path, "z") && r.Method == http.MethodGet {
			mux.ServeHTTP(w, r) // Probes are neither counted nor told.
			return
		}
		s.mu.Lock()
		s.mu.requests++
		s.mu.Unlock()
		began := s.clock.Mono()
		mux.ServeHTTP(w, r)
		s.logf("%s %s from %s in %v", r.Method, r.URL.Path, r.RemoteAddr, (s.clock.Mono() - began).Round(time.Microsecond))
	})
}

// state is what / shows.
type state struct {
	identity
	Version  string  `json:"version"`
	Colour   string  `json:"colour"`
	Requests int64   `json:"requests"`
	Seconds  float64 `json:"seconds"` // Since the start.
}

func (s *server) home(w http.ResponseWriter, r *http.Request) {
	st := state{
		identity: s.who, Version: s.options.version, Colour: s.options.colour, Requests: s.count(),
		Seconds: (s.clock.Mono() - s.began).Round(time.Millisecond).Seconds(),
	}
	rows := [][2]string{
		{"pod", st.Pod}, {"namespace", st.Namespace}, {"node", st.Node}, {"address", st.Address}, {"version", st.Version}, {"colour", st.Colour},
		{"requests", strconv.FormatInt(st.Requests, 10)}, {"uptime", strconv.FormatFloat(st.Seconds, 'f', 1, 64) + " s"},
	}
	rows = slices.DeleteFunc(rows, func(row [2]string) bool { return row[1] == "" })
	accept := r.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "application/json"):
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(st)
	case strings.Contains(accept, "text/html"):
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html><title>%s</title><body style=\"background:%s;font:1.5em sans-serif;color:white;text-shadow:0 0 4px black\"><table>",
			html.EscapeString(st.Pod), html.EscapeString(st.Colour))
		for _, row := range rows {
			fmt.Fprintf(w, "<tr><td>%s<td><b>%s</b>", html.EscapeString(row[0]), html.EscapeString(row[1]))
		}
		fmt.Fprintln(w, "</table>")
	default:
		for _, row := range rows {
			fmt.Fprintf(w, "%-10s %s\n", row[0], row[1])
		}
	}
}

func (s *server) headers(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s %s\nHost: %s\nRemote: %s\n", r.Method, r.RequestURI, r.Proto, r.Host, r.RemoteAddr)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, value := range r.Header[name] {
			fmt.Fprintf(w, "%s: %s\n", name, value)
		}
	}
}

func (s *server) health(w http.ResponseWriter, r *http.Request, f *failure, ready bool) {
	now := s.clock.Mono()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		set, err := failureOf(r.FormValue("fail"), now)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		*f = set
		s.mu.Unlock()
		fmt.Fprintln(w, "as you like it")
		return
	}
	s.mu.Lock()
	bad, stopping := f.at(now), s.mu.stopping && ready
	s.mu.Unlock()
	switch {
	case bad:
		http.Error(w, "told to fail", http.StatusServiceUnavailable)
	case stopping:
		http.Error(w, "stopping", http.StatusServiceUnavailable)
	default:
		fmt.Fprintln(w, "ok")
	}
}

func failureOf(text string, now time.Duration) (failure, error) {
	if on, err := strconv.ParseBool(text); err == nil {
		return failure{on: on}, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return failure{}, fmt.Errorf("fail=%q: use true, false or a time such as 30s", text)
	}
	return failure{on: true, until: now + d}, nil
}

// seconds reads how long something should take.
func seconds(r *http.Request, otherwise float64) (time.Duration, error) {
	n := otherwise
	if text := r.FormValue("seconds"); text != "" {
		var err error
		if n, err = strconv.ParseFloat(text, 64); err != nil || !(n >= 0 && n <= secondsMax) {
			return 0, fmt.Errorf("seconds=%q: use 0 to %d", text, secondsMax)
		}
	}
	return time.Duration(n * float64(time.Second)), nil
}

func (s *server) wait(w http.ResponseWriter, r *http.Request) {
	d, err := seconds(r, 5)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case <-s.clock.After(d):
		fmt.Fprintf(w, "waited %v\n", d)
	case <-r.Context().Done():
	}
}

func (s *server) eat(w http.ResponseWriter, r *http.Request) {
	q, err := api.ParseQuantity(r.FormValue("memory"))
	bytes := q.Value()
	if err != nil || bytes < 0 || bytes > eatBytesMax {
		http.Error(w, fmt.Sprintf("memory=%q: use 0 to 16Gi, such as 100Mi", r.FormValue("memory")), http.StatusBadRequest)
		return
	}
	d, err := seconds(r, 0)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if bytes == 0 {
		s.mu.Lock()
		clear(s.mu.eaten)
		s.mu.Unlock()
		debug.FreeOSMemory()
		fmt.Fprintln(w, "all given back")
		return
	}
	// Random enough not to be merged or compressed, and each page touched.
	meal := make([]byte, bytes)
	for i := 0; i < len(meal); i += 512 {
		meal[i] = byte(i>>9) | 1
	}
	s.mu.Lock()
	s.mu.eatenLast++
	key := s.mu.eatenLast
	s.mu.eaten[key] = meal
	total := 0
	for _, m := range s.mu.eaten {
		total += len(m)
	}
	s.mu.Unlock()
	if d > 0 {
		s.clock.AfterFunc(d, func() {
			s.mu.Lock()
			delete(s.mu.eaten, key)
			s.mu.Unlock()
			debug.FreeOSMemory()
		})
	}
	fmt.Fprintf(w, "holds %s\n", resource.NewQuantity(int64(total), resource.BinarySI))
}

func (s *server) leave(w http.ResponseWriter, r *http.Request) {
	code := 0
	if text := r.FormValue("code"); text != "" {
		var err error
		if code, err = strconv.Atoi(text); err != nil || code < 0 || code > 255 {
			http.Error(w, fmt.Sprintf("code=%q: use 0 to 255", text), http.StatusBadRequest)
			return
		}
	}
	fmt.Fprintf(w, "exit with %d\n", code)
	select {
	case s.exit <- code:
	default: // Told already.
	}
}
