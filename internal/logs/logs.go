// Package logs writes log lines as operators of etcd know them: one JSON object
// a line with level, ts, caller and msg, then the fields.
//
// It is a sink behind hclog, so that everything else knows only hclog.
package logs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// Formats of a line.
const (
	JSON    = "json"
	Console = "console" // For people.
)

// Log is a logger whose level can be changed while it is used.
type Log struct {
	hclog.InterceptLogger
	sink *sink
}

// New returns a logger that writes to w.
func New(w io.Writer, level, format string, c clock.Clock) (*Log, error) {
	l, err := parseLevel(level)
	if err != nil {
		return nil, err
	}
	if format != JSON && format != Console {
		return nil, fmt.Errorf("--log-format is %q: use json or console", format)
	}
	s := &sink{w: w, clock: c, console: format == Console}
	s.level.Store(int32(l))
	log := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: l})
	log.RegisterSink(s)
	return &Log{log, s}, nil
}

// parseLevel knows etcd's names. What is above an error ends the process, and
// so is told in any case.
func parseLevel(level string) (hclog.Level, error) {
	switch level {
	case "dpanic", "panic", "fatal":
		return hclog.Error, nil
	}
	if l := hclog.LevelFromString(level); l != hclog.NoLevel {
		return l, nil
	}
	return hclog.NoLevel, fmt.Errorf("--log-level is %q: use debug, info, warn or error", level)
}

// SetLevel changes what is written from now on, by all that were made of this
// logger.
func (l *Log) SetLevel(level hclog.Level) { l.sink.level.Store(int32(level)) }

// Level is what is written now.
func (l *Log) Level() hclog.Level { return hclog.Level(l.sink.level.Load()) }

// GetLevel implements hclog.Logger.
func (l *Log) GetLevel() hclog.Level { return l.Level() }

type sink struct {
	clock   clock.Clock
	level   atomic.Int32
	console bool

	mu  sync.Mutex
	w   io.Writer
	buf bytes.Buffer
}

// Accept implements hclog.SinkAdapter.
func (s *sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	if level < hclog.Level(s.level.Load()) {
		return
	}
	caller := callSite()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Reset()
	ts := s.clock.Wall().UTC().Format("2006-01-02T15:04:05.000000Z")
	if s.console {
		fmt.Fprintf(&s.buf, "%s %-5s %s", ts, strings.ToUpper(level.String()), msg)
		for i := 0; i+1 < len(args); i += 2 {
			fmt.Fprintf(&s.buf, " %v=%v", args[i], plain(args[i+1]))
		}
	} else {
		s.buf.WriteString(`{"level":`)
		s.value(level.String())
		s.buf.WriteString(`,"ts":"` + ts + `","caller":`)
		s.value(caller)
		s.buf.WriteString(`,"msg":`)
		s.value(msg)
		for i := 0; i+1 < len(args); i += 2 {
			s.buf.WriteByte(',')
			s.value(fmt.Sprint(args[i]))
			s.buf.WriteByte(':')
			s.value(plain(args[i+1]))
		}
		s.buf.WriteByte('}')
	}
	s.buf.WriteByte('\n')
	s.w.Write(s.buf.Bytes()) // There is nowhere to say that logging failed.
}

func (s *sink) value(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		b, _ = json.Marshal(fmt.Sprint(v))
	}
	s.buf.Write(b)
}

// plain is a value as people want to read it.
func plain(v any) any {
	switch v := v.(type) {
	case error:
		return v.Error()
	case time.Duration:
		return v.String()
	case fmt.Stringer:
		return v.String()
	case hclog.Format:
		if len(v) > 0 {
			return fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...)
		}
	}
	return v
}

// callSite is the first caller outside of logging itself.
func callSite() string {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if !strings.Contains(f.Function, "hashicorp/go-hclog") {
			return filepath.Base(filepath.Dir(f.File)) + "/" + filepath.Base(f.File) + fmt.Sprintf(":%d", f.Line)
		}
		if !more {
			return "unknown"
		}
	}
}
