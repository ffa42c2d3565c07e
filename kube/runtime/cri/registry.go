package cri

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/http"

	"golang.org/x/sys/unix"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/internal/task"
)

// registry is where the runtime pulls the node's own images. Runtimes take plain HTTP
// from 127.0.0.1; a password that only they are told keeps others on the node out, for
// an image may be nobody else's business.
type registry struct {
	address  string
	password string
	server   *http.Server
}

const registryUser = "holdfast"

// A port is part of the names that images have in the runtime, which forgets none: it is
// the same at each start of a node, if nobody else has it by then.
const (
	portMin = 20_000 // Below those of services and of clients.
	ports   = 10_000
)

func serve(node string, local Local, tasks *task.Group) (*registry, error) {
	listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", portMin+crc32.ChecksumIEEE([]byte(node))%ports))
	if errors.Is(err, unix.EADDRINUSE) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, err
	}
	r := &registry{address: listener.Addr().String(), password: rand.Text()}
	r.server = &http.Server{Handler: r.guard(local)}
	tasks.Go("cri-registry", func(context.Context) error {
		if err := r.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return r, nil
}

func (r *registry) guard(local Local) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		user, password, _ := q.BasicAuth()
		if user != registryUser || subtle.ConstantTimeCompare([]byte(password), []byte(r.password)) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="holdfast"`)
			http.Error(w, "for the container runtime only", http.StatusUnauthorized)
			return
		}
		local.ServeHTTP(w, q)
	})
}

func (r *registry) ref(name string) string { return r.address + "/" + name }

func (r *registry) login() *api.AuthConfig {
	return &api.AuthConfig{Username: registryUser, Password: r.password}
}

func (r *registry) close() { r.server.Close() }
