package raftnode

import (
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/assert"
)

// raftLogger passes on what Raft says. It talks in sentences and about every
// step of an election, so all but its errors are for debugging: changes that
// matter are logged by Node. Where it finds its rules broken it wants to panic;
// Core.guard turns that into an ordered stop.
type raftLogger struct{ to hclog.Logger }

func (l raftLogger) Debug(v ...any) {
	if l.to.IsTrace() {
		l.to.Trace("raft", "says", fmt.Sprint(v...))
	}
}

func (l raftLogger) Debugf(format string, v ...any) {
	if l.to.IsTrace() {
		l.to.Trace("raft", "says", fmt.Sprintf(format, v...))
	}
}

func (l raftLogger) Info(v ...any) {
	if l.to.IsDebug() {
		l.to.Debug("raft", "says", fmt.Sprint(v...))
	}
}

func (l raftLogger) Infof(format string, v ...any) {
	if l.to.IsDebug() {
		l.to.Debug("raft", "says", fmt.Sprintf(format, v...))
	}
}

func (l raftLogger) Warning(v ...any)                 { l.Info(v...) }
func (l raftLogger) Warningf(format string, v ...any) { l.Infof(format, v...) }

func (l raftLogger) Error(v ...any) { l.to.Warn("raft", "says", fmt.Sprint(v...)) }

func (l raftLogger) Errorf(format string, v ...any) {
	l.to.Warn("raft", "says", fmt.Sprintf(format, v...))
}

func (l raftLogger) Fatal(v ...any)                 { assert.Failf("%s", fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(format string, v ...any) { assert.Failf(format, v...) }
func (l raftLogger) Panic(v ...any)                 { assert.Failf("%s", fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any) { assert.Failf(format, v...) }
