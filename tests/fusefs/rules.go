//go:build linux

package fusefs

import (
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// The operations that rules name.
const (
	Read   = "read"
	Write  = "write"
	Sync   = "sync"   // Of a file or a folder.
	Size   = "size"   // Truncate and allocate.
	Create = "create" // Of a file or a folder.
	Rename = "rename"
	Remove = "remove"
	Any    = "any"
)

// Rule says what happens to some calls.
type Rule struct {
	Match string        // Glob on the base name; empty means all.
	Op    string        // One of the operations; empty means any.
	Err   syscall.Errno // What the call returns. 0: it succeeds.
	Delay time.Duration // Before it is carried out.
	Short bool          // A write writes half, and tells; with Err the call after it fails.
	After int           // So many calls pass first.
	Times int           // So many are hit, then none. 0: all.
}

type rule struct {
	Rule
	seen  int
	hits  int
	short bool // The write before was cut, this one fails.
}

// Set replaces all rules.
func (f *FS) Set(rules ...Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
	for _, r := range rules {
		f.rules = append(f.rules, &rule{Rule: r})
	}
}

// verdict is what the rules say about one call.
type verdict struct {
	err   syscall.Errno
	short bool
	off   bool // There is no power: err is set, and the call leaves no trace.
}

// judge counts a call, lets it wait, and tells its fate. A rename has two names.
func (f *FS) judge(op string, names ...string) verdict {
	f.mu.Lock()
	f.counters[op]++
	f.counters[op+" "+filepath.Base(names[0])]++
	var v verdict
	var delay time.Duration
	for _, r := range f.rules {
		if !r.covers(op, names) {
			continue
		}
		if r.seen++; r.seen <= r.After || r.Times > 0 && r.hits >= r.Times {
			continue
		}
		delay = max(delay, r.Delay)
		switch {
		case r.Short && op == Write && !r.short:
			v.short, r.short = true, r.Err != 0
			f.counters["short write"]++
			continue // The hit is the failure after it.
		case r.Err != 0:
			v.err = r.Err
			f.counters["failed "+op]++
		}
		r.short = false
		r.hits++
	}
	if delay > 0 {
		f.counters["slow "+op]++
	}
	f.mu.Unlock()
	// A signal does not end the wait: the runtime of the caller sends itself
	// signals all the time.
	time.Sleep(delay)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off && op != Read {
		return verdict{err: syscall.EIO, off: true}
	}
	return v
}

func (r *rule) covers(op string, names []string) bool {
	if r.Op != "" && r.Op != Any && r.Op != op {
		return false
	}
	return r.Match == "" || slices.ContainsFunc(names, func(name string) bool {
		ok, err := filepath.Match(r.Match, filepath.Base(name))
		return ok && err == nil
	})
}
