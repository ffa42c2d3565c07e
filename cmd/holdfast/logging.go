package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/holdfast-db/holdfast/internal/logs"
	"github.com/holdfast-db/holdfast/internal/task"
)

// Places of --log-outputs that are no files.
const (
	toDefault = "default"
	toStderr  = "stderr"
	toStdout  = "stdout"
	toJournal = "systemd/journal"
)

// rotation is --log-rotation-config-json.
type rotation struct {
	MaxSize    int  `json:"maxsize"` // Megabytes.
	MaxAge     int  `json:"maxage"`  // Days; 0: kept whatever their age.
	MaxBackups int  `json:"maxbackups"`
	LocalTime  bool `json:"localtime"`
	Compress   bool `json:"compress"`
}

// logOutput opens where logs go.
func (o *options) logOutput(stdout, stderr io.Writer) (io.Writer, error) {
	outputs := o.logOutputs
	if len(outputs) == 0 {
		outputs = []string{toDefault}
	}
	if len(outputs) > 1 && slices.Contains(outputs, toDefault) {
		return nil, fmt.Errorf("--log-outputs is %s: name stderr in place of default beside others", strings.Join(outputs, ","))
	}
	r, err := o.rotation(outputs)
	if err != nil {
		return nil, err
	}
	var all []io.Writer
	for i, name := range outputs {
		if slices.Contains(outputs[:i], name) {
			continue
		}
		w, err := openOutput(name, r, stdout, stderr)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return tee(all), nil
}

func openOutput(name string, r *rotation, stdout, stderr io.Writer) (io.Writer, error) {
	switch name {
	case toDefault, toStderr, toJournal: // A service manager reads stderr for its journal.
		return stderr, nil
	case toStdout:
		return stdout, nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--log-outputs: %w", err)
	}
	if r == nil {
		return f, nil
	}
	if err := f.Close(); err != nil { // It can be written. The rotation opens it itself.
		return nil, fmt.Errorf("--log-outputs: %w", err)
	}
	return &lumberjack.Logger{
		Filename: name, MaxSize: r.MaxSize, MaxAge: r.MaxAge, MaxBackups: r.MaxBackups, LocalTime: r.LocalTime, Compress: r.Compress,
	}, nil
}

// rotation is nil unless it is enabled.
func (o *options) rotation(outputs []string) (*rotation, error) {
	if !o.rotateLogs {
		return nil, nil
	}
	files := 0
	for _, name := range outputs {
		if !slices.Contains([]string{toDefault, toStderr, toStdout, toJournal}, name) {
			files++
		}
	}
	if files != 1 {
		return nil, errors.New("--enable-log-rotation needs one file among --log-outputs")
	}
	r := &rotation{}
	d := json.NewDecoder(strings.NewReader(o.rotationConfig))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("--log-rotation-config-json: %w: use keys maxsize, maxage, maxbackups, localtime and compress", err)
	}
	if r.MaxSize < 0 || r.MaxAge < 0 || r.MaxBackups < 0 {
		return nil, errors.New("--log-rotation-config-json: a number is negative: use 0 for no limit")
	}
	return r, nil
}

// tee writes each line everywhere; one place that fails is no reason for the
// others to go without.
type tee []io.Writer

// Write implements io.Writer.
func (t tee) Write(b []byte) (int, error) {
	var errs []error
	for _, w := range t {
		_, err := w.Write(b)
		errs = append(errs, err)
	}
	return len(b), errors.Join(errs...)
}

// switchLevel changes to debug at a SIGUSR1, and back at the next.
func switchLevel(ctx context.Context, log *logs.Log) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	usual := log.Level()
	g := task.New(ctx)
	g.Go("log level", func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-signals:
			}
			next := hclog.Debug
			if log.Level() == next {
				next = usual
			}
			log.SetLevel(hclog.Info) // So that this line is there in any case.
			log.Info("log level changes, as SIGUSR1 came", "level", next.String())
			log.SetLevel(next)
		}
	})
	return func() {
		signal.Stop(signals)
		g.Stop()
		_ = g.Wait() // It has no failures.
	}
}
