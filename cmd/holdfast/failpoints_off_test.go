//go:build !failpoints

package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestTheFlagOfFailpointsIsRefusedWithTheMend(t *testing.T) {
	for _, args := range [][]string{{"--failpoints-listen", "127.0.0.1:0"}, {"-failpoints-listen=127.0.0.1:0"}} {
		var out, errs bytes.Buffer
		if code := run(args, nil, &out, &errs); code != exitUsage || !strings.Contains(errs.String(), "--failpoints-listen") ||
			!strings.Contains(errs.String(), "go build -tags failpoints") || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%d: %s", code, errs.String())
		}
	}
}
