package server

import (
	"encoding/json"
	"expvar"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// clientHTTP is what the client URLs answer to plain HTTP.
func (s *Server) clientHTTP() http.Handler {
	mux := s.metricsHTTP()
	mux.HandleFunc("/debug/vars", onlyGET(s.vars))
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
	return s.callsToo(s.access(mux))
}

// callsToo answers gRPC of clients that offer HTTP/1.1 in their handshake too and
// so are taken for HTTP. On a port for HTTP alone there are no calls.
func (s *Server) callsToo(next http.Handler) http.Handler {
	if len(s.cfg.ListenClientHTTPURLs) > 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			s.inside.grpc.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// metricsHTTP is what the metrics URLs answer.
func (s *Server) metricsHTTP() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.InstrumentMetricHandler(s.metrics.registry, promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{})))
	mux.HandleFunc("/health", onlyGET(s.health))
	s.addProbes(mux)
	mux.HandleFunc("/version", onlyGET(s.version))
	return mux
}

// peerHTTP is what the peer URLs answer to plain HTTP.
func (s *Server) peerHTTP() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/version", onlyGET(s.version))
	mux.HandleFunc("/members", onlyGET(s.membersHTTP))
	return mux
}

func onlyGET(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		next(w, r)
	}
}

// vars is what the Go runtime says of itself, as JSON, and where Raft stands.
func (s *Server) vars(w http.ResponseWriter, _ *http.Request) {
	st := s.node.Status()
	role := "StateFollower"
	if st.Leader == s.id.Member {
		role = "StateLeader"
	}
	all := map[string]any{
		"file_descriptor_limit": descriptorLimit(),
		"raft.status": map[string]any{
			"id": s.id.Member.String(), "term": uint64(st.Term), "lead": st.Leader.String(),
			"commit": uint64(st.Commit), "applied": uint64(st.Applied), "raftState": role,
		},
	}
	expvar.Do(func(kv expvar.KeyValue) { all[kv.Key] = json.RawMessage(kv.Value.String()) })
	writeJSON(w, http.StatusOK, all)
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
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
