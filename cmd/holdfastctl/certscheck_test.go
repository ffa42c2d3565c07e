package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCertsCheckTellsProgramsWhenCertificatesEnd(t *testing.T) {
	dir := t.TempDir()
	if stdout, stderr, code := offline(t, "certs", "ca", "--dir", dir, "--validity", "100h"); code != 0 {
		t.Fatal(stdout, stderr)
	}
	stdout, stderr, code := offline(t, "certs", "check", "--dir", dir, "-w", "json")
	var all []expiryJSON
	if err := json.Unmarshal([]byte(stdout), &all); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if code != exitFailed || len(all) != 1 || all[0].Where != filepath.Join(dir, "ca.pem") || !all[0].CA || !all[0].Soon || !strings.Contains(stderr, "end within 30 days") {
		t.Errorf("exit code %d, %+v, %s", code, all, stderr)
	}
}

// The mend names the flag that limits this, which is not that of other commands.
func TestCertsCheckOfAPortThatSaysNothing(t *testing.T) {
	var out, errs bytes.Buffer
	c := &ctl{in: strings.NewReader(""), out: &out, err: &errs, dial: func(context.Context, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		return ours, nil
	}}
	start := time.Now()
	code := c.run(t.Context(), []string{"certs", "check", "mute:1", "--dial-timeout", "50ms"})
	if code != exitConnection || !strings.Contains(errs.String(), "mute:1: it takes connections and says nothing for 50ms") || strings.Contains(errs.String(), "--command-timeout") {
		t.Errorf("exit code %d after %v: %s", code, time.Since(start), &errs)
	}
}
