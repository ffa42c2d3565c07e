package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-db/holdfast/statemachine/alarm"
)

// clientHTTP is what the client URLs answer to plain HTTP.
func (s *Server) clientHTTP() http.Handler {
	mux := s.metricsHTTP()
	if s.gateway != nil {
		mux.Handle("/v3/", s.gateway)
		mux.HandleFunc("/openapi.json", openAPI)
	}
	if s.cfg.EnablePprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return s.access(mux)
}

// metricsHTTP is what the metrics URLs answer.
func (s *Server) metricsHTTP() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/health", s.health)
	mux.HandleFunc("/version", s.version)
	return mux
}

// peerHTTP is what the peer URLs answer to plain HTTP.
func (s *Server) peerHTTP() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/version", s.version)
	mux.HandleFunc("/members", s.membersHTTP)
	return mux
}

type healthAnswer struct {
	Health string `json:"health"`
	Reason string `json:"reason"`
}

// health answers 200 when this member can serve, and 503 with the reason when
// it can not. exclude=NOSPACE passes over that alarm, serializable=true asks
// for no quorum.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	answer := healthAnswer{Health: "true", Reason: s.unhealthy(r)}
	status := http.StatusOK
	if answer.Reason != "" {
		answer.Health, status = "false", http.StatusServiceUnavailable
	}
	writeJSON(w, status, answer)
}

func (s *Server) unhealthy(r *http.Request) string {
	excluded := r.URL.Query()["exclude"]
	for _, a := range s.replica.Machine.Alarms.List(alarm.None) {
		name := map[alarm.Kind]string{alarm.NoSpace: "NOSPACE", alarm.Corrupt: "CORRUPT"}[a.Kind]
		if name != "" && !contains(excluded, name) {
			return "ALARM " + name
		}
	}
	if s.node.Status().Leader == 0 {
		return "RAFT NO LEADER"
	}
	if r.URL.Query().Get("serializable") == "true" {
		return ""
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.timeout())
	defer cancel()
	if err := s.linearize(ctx); err != nil {
		return "RANGE ERROR:" + toWire(err).Error()
	}
	return ""
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if strings.EqualFold(v, s) {
			return true
		}
	}
	return false
}

func (s *Server) version(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	cluster := "not_decided"
	if c := s.replica.Machine.Cluster(); c != nil {
		cluster = c.Version
	}
	writeJSON(w, http.StatusOK, map[string]string{
		"etcdserver":  s.cfg.ProtocolVersion,
		"etcdcluster": cluster,
		"storage":     storageVersion,
	})
}

type memberJSON struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name"`
	ClientURLs []string `json:"clientURLs"`
}

func (s *Server) membersHTTP(w http.ResponseWriter, _ *http.Request) {
	list := []memberJSON{}
	for _, m := range s.replica.Machine.Members.List() {
		list = append(list, memberJSON{m.Id, m.PeerUrls, m.IsLearner, m.Name, m.ClientUrls})
	}
	w.Header().Set("X-Etcd-Cluster-ID", s.id.Cluster.String())
	writeJSON(w, http.StatusOK, list)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // A client that went away is no error of ours.
}

// majorMinor of a version: clusters are told apart by no more.
func majorMinor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return version
	}
	return parts[0] + "." + parts[1] + ".0"
}
