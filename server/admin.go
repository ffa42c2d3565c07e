package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"syscall"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
)

// openAdmin opens the socket in the data directory, by which an operator on this
// host asks a member that may have no quorum, and so serves no client. Without it
// the member runs as well.
func (s *Server) openAdmin() {
	path := filepath.Join(s.cfg.DataDir, recovery.SocketName)
	l, err := s.listenAdmin(path)
	if err != nil {
		s.log.Warn("no socket for recover collect: this member must be stopped to be collected from; a shorter --data-dir mends a path that is too long", "path", path, "error", err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+recovery.FactsPath, s.adminFacts)
	mux.HandleFunc("POST "+recovery.FreezePath, s.adminFreeze)
	s.admin = s.newHTTP(mux)
	s.group.Go("admin http", func(context.Context) error { return serving(s.admin.Serve(l)) })
}

func (s *Server) listenAdmin(path string) (net.Listener, error) {
	if len(path) > socketPathMax {
		return nil, errSocketPath
	}
	if err := s.removeSocket(path); err != nil { // Of a process that was killed: we hold the directory's lock.
		return nil, err
	}
	var failed error
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		// Before it has a name: nobody else ever reaches it. Where a system does not
		// take that, the folder's own mode keeps others out.
		return raw.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
	}}
	l, err := c.Listen(context.Background(), "unix", path)
	if failed != nil {
		s.log.Debug("the mode of the socket is that of the folder", "error", failed)
	}
	return l, err
}

var errSocketPath = errors.New("path of a socket is too long")

// adminFacts tells what this member holds.
func (s *Server) adminFacts(w http.ResponseWriter, r *http.Request) {
	m, err := s.facts(r.Context())
	var text []byte
	if err == nil {
		text, err = recovery.EncodeFacts(&recovery.Facts{Members: []recovery.Member{*m}})
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if _, err := w.Write(text); err != nil {
		s.log.Debug("facts were not taken", "error", err)
	}
}

// facts of this member. The state is looked at before the log, which holds it.
func (s *Server) facts(ctx context.Context) (*recovery.Member, error) {
	st, now := s.replica.Store().Applied(), s.node.Status()
	x := &snapshot.Examined{
		Position: st.Position, Term: st.Term, Time: st.Time, Digest: st.Digest, Revision: st.Revision, Compacted: st.Compacted,
		Cluster: st.Cluster, Timeline: st.Timeline, Conf: &raftpb.ConfState{}, Facts: s.replica.Machine.Cluster(),
	}
	if err := proto.Unmarshal(st.ConfState, x.Conf); err != nil {
		return nil, err
	}
	x.Members = append(x.Members, s.replica.Machine.Members.List()...)
	src := recovery.Source{DataDir: s.cfg.DataDir, WALDir: s.cfg.WALDir}
	var err error
	if src.DataDir, err = filepath.Abs(src.DataDir); err == nil && src.WALDir != "" {
		src.WALDir, err = filepath.Abs(src.WALDir)
	}
	if err != nil {
		return nil, err
	}
	return recovery.CollectRunning(ctx, recovery.Config{FS: s.cfg.FS, Clock: s.cfg.Clock, Logger: s.log}, recovery.Running{
		Source: src, Identity: s.id, State: x, Log: s.wal, Term: now.Term, Commit: now.Commit, Leader: now.Leader,
	})
}

// adminFreeze ends this member, and keeps it from starting: so it votes for
// nobody and appends nothing until a plan is applied or the freeze lifted.
func (s *Server) adminFreeze(w http.ResponseWriter, r *http.Request) {
	by, err := io.ReadAll(http.MaxBytesReader(w, r.Body, recovery.FreezeReasonMax))
	if err == nil && len(by) == 0 {
		err = errFreezeReason
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.dir.Freeze(string(by)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
	if err := http.NewResponseController(w).Flush(); err != nil { // Now: who stops closes this connection.
		s.log.Warn("could not answer that this member is frozen", "error", err)
	}
	s.log.Warn("this member is frozen for a recovery and stops", "by", string(by))
	s.fail(datadir.ErrFrozen)
}

var errFreezeReason = errors.New("the body must say for whose sake this member is frozen")
