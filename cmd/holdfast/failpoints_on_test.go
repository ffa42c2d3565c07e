//go:build failpoints

package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestFailpointsAreServedOnLoopbackAlone(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "localhost:0", "192.0.2.1:0", "nonsense"} {
		var out, errs bytes.Buffer
		code := run([]string{"--data-dir", t.TempDir(), "--log-level=error", "--failpoints-listen", address}, nil, &out, &errs)
		if code != exitFailed || !strings.Contains(errs.String(), "--failpoints-listen") {
			t.Errorf("%s: %d: %s", address, code, errs.String())
		}
	}
}

func TestTheVersionSaysThatThisBuildIsForTests(t *testing.T) {
	if !strings.Contains(version(), "for tests alone") {
		t.Error(version())
	}
}
