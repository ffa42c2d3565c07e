package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/kube/image"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/cri"
	"github.com/holdfast-db/holdfast/kube/runtime/native"
	"github.com/holdfast-db/holdfast/kube/runtime/process"
)

// engineRetry is between attempts to reach an engine that is another program.
const engineRetry = time.Second

// engine makes the engine. Another program is waited for: machines start in any order.
func (n *node) engine(ctx context.Context, net runtime.Network, changed runtime.Changed) (runtime.Engine, error) {
	dir, log := filepath.Join(n.cfg.Dir, "engine"), n.log.Named("engine")
	switch n.cfg.Kind {
	case Native:
		return native.New(native.Config{Dir: dir, Node: n.cfg.Name, Network: net, Changed: changed, Logger: log, Clock: n.clock})
	case Process:
		return process.New(process.Config{Dir: dir, Changed: changed, Logger: log, Clock: n.clock})
	}
	told := ""
	for {
		e, err := cri.New(ctx, cri.Config{
			Socket: strings.TrimPrefix(n.cfg.Socket, "unix://"), Node: n.cfg.Name, Local: shelf{n.store.Handler(), n.store}, Changed: changed, Clock: n.clock, Logger: log,
		})
		if err == nil {
			return e, nil
		}
		if text := err.Error(); text != told {
			told = text
			log.Warn("the engine does not answer, trying on", "error", err)
		}
		select {
		case <-n.clock.After(engineRetry):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), fmt.Errorf("--cri-socket: %w", err))
		}
	}
}

// shelf is what an engine that fetches images itself gets from this node.
type shelf struct {
	http.Handler
	store *image.Store
}

// Name implements cri.Local.
func (s shelf) Name(_ context.Context, text string) (string, bool) {
	switch text {
	case image.HostRoot:
		return "", false
	case image.Demo: // It is no name of any registry: it would be taken for one of Docker's.
		return demoServed, true
	}
	ref, err := image.Parse(text)
	if err != nil {
		return "", false
	}
	_, here := s.store.Present(text)
	return servedAs(ref), here
}

// demoServed is builtin/demo in the registry of a node.
const demoServed = image.Demo + ":latest"

// servedAs is any other image there.
func servedAs(ref image.Reference) string { return strings.TrimPrefix(image.ServedAs("", ref), "/") }
