package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatCannotBeIsRefusedWithItsMend(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--runtime native", exitFailed, "runtime native is not built yet"},
		{"--runtime cri", exitFailed, "use --runtime sim"},
		{"--runtime docker", exitUsage, "use sim"},
		{"", exitUsage, "--server is missing"},
		{"--server nowhere", exitUsage, "is no host:port"},
		{"--server a:1 --count 0", exitUsage, "use 1 to"},
		{"--server a:1 --count 5", exitUsage, "system:fleet:PREFIX"},
		{"--server a:1 --cpu much", exitUsage, "--cpu"},
		{"--server a:1 --pods 0", exitUsage, "--pods"},
		{"--server a:1 --node-name UPPER", exitFailed, "lower case"},
		{"--server a:1 --token nonsense", exitFailed, "join token"},
		{"--sever a:1", exitUsage, "unknown flag"},
		{"--server a:1 --cert none", exitFailed, "none.pem"},
	} {
		var out bytes.Buffer
		code := run(t.Context(), append(strings.Fields(c.args), "--dir="+filepath.Join(t.TempDir(), "k")), &out)
		if code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("kubelet %s: exit %d, %q; want %d, %q", c.args, code, out.String(), c.code, c.says)
		}
	}
}
