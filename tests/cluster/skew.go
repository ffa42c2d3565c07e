package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// skewVariable names the file that tells a skewed member how wrong it is.
const skewVariable = "HOLDFAST_TEST_SKEW"

// skewedClock takes the place of internal/clock/real.go. Nothing else of the
// product may read the time (internal/tidy sees to that), so this skews all of
// it; the standard library's own use, as in TLS, stays right. The monotonic
// reading is dropped: whoever measures with the wall clock sees it jump.
const skewedClock = `package clock

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func Real() Clock { return real{start: time.Now()} }

type real struct{ start time.Time }

var skew struct {
	sync.Mutex
	read time.Time
	by   time.Duration
}

func (real) Wall() time.Time {
	skew.Lock()
	defer skew.Unlock()
	now := time.Now()
	if now.Sub(skew.read) > 20*time.Millisecond {
		skew.read = now
		if b, err := os.ReadFile(os.Getenv("` + skewVariable + `")); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
				skew.by = time.Duration(n)
			}
		}
	}
	return now.Round(0).Add(skew.by)
}

func (c real) Mono() time.Duration { return time.Since(c.start) }

func (real) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

func (real) NewTicker(d time.Duration) Ticker { return ticker{time.NewTicker(d)} }

func (real) After(d time.Duration) <-chan time.Time { return time.After(d) }

type ticker struct{ *time.Ticker }

func (t ticker) C() <-chan time.Time { return t.Ticker.C }
`

// BuildSkewed builds a holdfast into dir whose wall clock Skew sets, under a
// name that nobody takes for the real one.
func BuildSkewed(ctx context.Context, module, dir string) (string, error) {
	program := filepath.Join(dir, "holdfast-skewed")
	module, err := filepath.Abs(module)
	if err != nil {
		return "", err
	}
	source, overlay := filepath.Join(dir, "skewed.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(module, "internal", "clock", "real.go"): source}})
	if err != nil {
		return "", err
	}
	for name, data := range map[string][]byte{source: []byte(skewedClock), overlay: replace} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return "", err
		}
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", program, "./cmd/holdfast")
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with a skewed clock: %w\n%s", err, out)
	}
	return program, nil
}

// skewFile is what a skewed member reads.
func (m *Member) skewFile() string { return filepath.Join(m.c.Dir, m.Name+".skew") }

// UseSkewed makes the next start of the member use a program of BuildSkewed.
func (m *Member) UseSkewed(program string) {
	m.Program = program
	m.Env = append(m.Env, skewVariable+"="+m.skewFile())
}

// Skew sets how far the wall clock of a skewed member is ahead.
func (m *Member) Skew(by time.Duration) error {
	name := m.skewFile() + ".new"
	if err := os.WriteFile(name, []byte(strconv.FormatInt(int64(by), 10)), 0o600); err != nil {
		return err
	}
	return os.Rename(name, m.skewFile())
}
