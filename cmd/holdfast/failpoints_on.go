//go:build failpoints

package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"

	"github.com/holdfast-db/holdfast/internal/fail"
	"github.com/holdfast-db/holdfast/internal/task"
)

const failpointsVersion = " with failpoints, for tests alone"

var unbuilt []string

// failpoints says where to listen.
type failpoints struct{ address string }

func (f *failpoints) failpointFlags(fs *flag.FlagSet) {
	fs.StringVar(&f.address, "failpoints-listen", "", "loopback `address` for HTTP that arms failpoints, in this build for tests alone")
}

// serveFailpoints listens on loopback alone: whoever reaches it may kill the
// process.
func (o *options) serveFailpoints() (stop func(), err error) {
	o.cfg.Logger.Warn("this build has failpoints and is for tests alone")
	if o.address == "" {
		return func() {}, nil
	}
	host, _, err := net.SplitHostPort(o.address)
	if err != nil {
		return nil, fmt.Errorf("--failpoints-listen: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("--failpoints-listen %s: only a loopback address such as 127.0.0.1 is allowed", o.address)
	}
	l, err := net.Listen("tcp", o.address)
	if err != nil {
		return nil, fmt.Errorf("--failpoints-listen: %w", err)
	}
	o.cfg.Logger.Info("listening for failpoints", "address", l.Addr().String())
	web := &http.Server{Handler: fail.Handler()}
	g := task.New(context.Background())
	g.Go("failpoints", func(context.Context) error { return web.Serve(l) })
	return func() { _ = web.Close() }, nil // The end of Serve is no news.
}
