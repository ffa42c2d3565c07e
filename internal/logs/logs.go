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
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// Formats of a line.
const (
	JSON    = "json"
	Console = "console" // For people.
)

// New returns a logger that writes to w.
func New(w io.Writer, level, format string, c clock.Clock) (hclog.InterceptLogger, error) {
	l := hclog.LevelFromString(level)
	if l == hclog.NoLevel {
		return nil, fmt.Errorf("--log-level is %q: use debug, info, warn or error", level)
	}
	if format != JSON && format != Console {
		return nil, fmt.Errorf("--log-format is %q: use json or console", format)
	}
	log := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: l})
	log.RegisterSink(&sink{w: w, clock: c, level: l, console: format == Console})
	return log, nil
}

type sink struct {
	clock   clock.Clock
	level   hclog.Level
	console bool

	mu  sync.Mutex
	w   io.Writer
	buf bytes.Buffer
}

// Accept implements hclog.SinkAdapter.
func (s *sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	if level < s.level {
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
