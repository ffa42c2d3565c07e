package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"

	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Logs are rotated as other engines do it. A runtime writes on until it is looked at, so
// that a file may be longer by what is written in that time.
const (
	logLookEvery = 5 * time.Second
	logBytesMax  = 10 << 20
	logFilesMax  = 5
)

// rotate looks after the logs of what runs.
func (e *Engine) rotate(ctx context.Context) error {
	for {
		if err := e.pause(ctx, logLookEvery); err != nil {
			return err
		}
		// After a restart nothing is known of what runs, until somebody lists it.
		if _, err := e.List(ctx); err != nil {
			continue // The runtime is away; watch says so.
		}
		e.mu.Lock()
		logs := maps.Clone(e.mu.logs)
		e.mu.Unlock()
		for id, log := range logs {
			info, err := os.Stat(log)
			if err != nil || info.Size() < logBytesMax {
				continue
			}
			if err := e.rotateOne(ctx, id, log); err != nil && ctx.Err() == nil {
				e.log.Warn("a log cannot be rotated and grows on", "log", log, "error", err)
			}
		}
	}
}

// rotateOne renames a log to .1, that to .2, and so on, and lets the runtime begin another.
func (e *Engine) rotateOne(ctx context.Context, id, log string) error {
	for n := logFilesMax - 1; n > 0; n-- {
		from := log
		if n > 1 {
			from = fmt.Sprint(log, ".", n-1)
		}
		if err := os.Rename(from, fmt.Sprint(log, ".", n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	_, err := e.runtime.ReopenContainerLog(ctx, &api.ReopenContainerLogRequest{ContainerId: id})
	if err == nil {
		return nil
	}
	if _, _, again := e.running(ctx, idOf("-", id)); errors.Is(again, runtime.ErrNotRunning) || errors.Is(again, runtime.ErrNotFound) {
		return nil // It has ended meanwhile, and writes no more.
	}
	// Else the runtime writes on into what has another name now.
	return errors.Join(refine(err), os.Rename(log+".1", log))
}
