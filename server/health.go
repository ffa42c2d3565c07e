package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/statemachine/alarm"
)

type healthAnswer struct {
	Health string `json:"health"`
	Reason string `json:"reason"`
}

// health answers 200 when this member can serve, and 503 with the reason when
// it can not. exclude=NOSPACE passes over that alarm, serializable=true asks
// for no quorum.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	answer := healthAnswer{Health: "true", Reason: s.unhealthy(r)}
	code := http.StatusOK
	if answer.Reason == "" {
		s.metrics.healthGood.Add(1)
	} else {
		s.metrics.healthBad.Add(1)
		s.log.Warn("/health answers false", "reason", answer.Reason)
		answer.Health, code = "false", http.StatusServiceUnavailable
	}
	writeJSON(w, code, answer)
}

func (s *Server) unhealthy(r *http.Request) string {
	excluded := r.URL.Query()["exclude"]
	for _, a := range s.replica.Machine.Alarms.List(alarm.None) {
		name := map[alarm.Kind]string{alarm.NoSpace: "NOSPACE", alarm.Corrupt: "CORRUPT"}[a.Kind]
		if name != "" && !slices.Contains(excluded, name) {
			return "ALARM " + name
		}
	}
	serializable := r.URL.Query().Get("serializable") == "true"
	if !serializable && s.node.Status().Leader == 0 {
		return "RAFT NO LEADER"
	}
	if err := s.canRead(r.Context(), serializable); err != nil {
		return "RANGE ERROR:" + said(err)
	}
	return ""
}

// said is an error in the words of the protocol, without those of gRPC: probes
// know them so.
func said(err error) string { return status.Convert(toWire(err)).Message() }

// canRead tells whether a client could read here: at once, or after asking the
// quorum.
func (s *Server) canRead(ctx context.Context, serializable bool) error {
	if s.fenced.Load() {
		return errCorrupt
	}
	store, err := s.replica.Use()
	if err != nil {
		return err
	}
	store.Release()
	if serializable {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	return s.linearize(ctx)
}

// probe is one thing that /livez or /readyz looks at.
type probe struct {
	name string
	look func(ctx context.Context) error
}

// addProbes serves /livez and /readyz, and a page below them for each probe.
func (s *Server) addProbes(mux *http.ServeMux) {
	local := probe{"serializable_read", func(ctx context.Context) error { return s.probeRead(ctx, true) }}
	for kind, probes := range map[string][]probe{ //tidy:ordered they are only registered
		"livez": {local},
		"readyz": {
			{"data_corruption", s.probeCorruption},
			{"linearizable_read", func(ctx context.Context) error { return s.probeRead(ctx, false) }},
			{"non_learner", s.probeVote},
			local,
		},
	} {
		mux.HandleFunc("/"+kind, onlyGET(func(w http.ResponseWriter, r *http.Request) {
			excluded := r.URL.Query()["exclude"]
			s.answerProbes(w, r, kind, slices.DeleteFunc(slices.Clone(probes), func(p probe) bool { return slices.Contains(excluded, p.name) }))
		}))
		for _, p := range probes {
			mux.HandleFunc("/"+kind+"/"+p.name, onlyGET(func(w http.ResponseWriter, r *http.Request) {
				s.answerProbes(w, r, kind, []probe{p})
			}))
		}
	}
}

// answerProbes says "ok", with a line for each probe if asked to be verbose, or
// 503 with all lines.
func (s *Server) answerProbes(w http.ResponseWriter, r *http.Request, kind string, probes []probe) {
	var lines strings.Builder
	failed := false
	for _, p := range probes {
		err := p.look(r.Context())
		s.metrics.probed(kind, p.name, err == nil)
		if err == nil {
			fmt.Fprintf(&lines, "[+]%s ok\n", p.name)
			continue
		}
		failed = true
		fmt.Fprintf(&lines, "[-]%s failed: %v\n", p.name, err)
	}
	if failed {
		s.log.Warn("a health check fails", "path", r.URL.Path, "reason", lines.String())
		http.Error(w, lines.String(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Query().Has("verbose") {
		fmt.Fprint(w, lines.String())
	}
	fmt.Fprint(w, "ok\n")
}

func (s *Server) probeRead(ctx context.Context, serializable bool) error {
	if err := s.canRead(ctx, serializable); err != nil {
		return errors.New(said(err))
	}
	return nil
}

func (s *Server) probeCorruption(context.Context) error {
	for _, a := range s.replica.Machine.Alarms.List(alarm.Corrupt) {
		return fmt.Errorf("alarm activated: CORRUPT, of member %s", a.Member)
	}
	return nil
}

// errNoVote is a sentence of etcd that probes are known to look for.
var errNoVote = errors.New("not supported for learner")

func (s *Server) probeVote(context.Context) error {
	if s.learner() {
		return errNoVote
	}
	return nil
}
