package main

import (
	"bytes"
	"os"
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
		{"--version", 0, ""},
		{"--nonsense", exitUsage, "Run 'kubelet --help'"},
		{"remove --nonsense", exitUsage, "Run 'kubelet remove --help'"},
		{"--server a:1 --runtime docker", exitUsage, "use native, process or cri"},
		{"--server a:1 --runtime cri", exitUsage, "give --cri-socket"},
		{"--server a:1 --runtime process --count 5", exitUsage, "use --runtime sim"},
		{"--server a:1 --runtime process --cpu 64", exitUsage, "--reserve"},
		{"--server a:1 --runtime sim --node-ip 10.0.0.1", exitUsage, "--node-ip"},
		{"--server a:1 --runtime process --node-ip here", exitUsage, "give --node-ip"},
		{"--server a:1 --runtime process --reserve gold=1", exitUsage, "use cpu, memory"},
		{"--server a:1 --runtime process --reserve cpu=much", exitUsage, "--reserve"},
		{"--server a:1 --runtime process --node-labels a/b/c=d", exitUsage, "label a/b/c=d"},
		{"", exitUsage, "--server is missing"},
		{"--server nowhere", exitUsage, "is no host:port"},
		{"--server a:1 --count 0", exitUsage, "use 1 to"},
		{"--server a:1 --count 5", exitUsage, "system:fleet:PREFIX"},
		{"--server a:1 --runtime sim --cpu much", exitUsage, "--cpu"},
		{"--server a:1 --pods 0", exitUsage, "--pods"},
		{"--server a:1 --node-name UPPER", exitFailed, "lower case"},
		{"--server a:1 --token nonsense", exitFailed, "join token"},
		{"--sever a:1", exitUsage, "unknown flag"},
		{"--server a:1 --cert none", exitFailed, "none.pem"},
		{"--server a:1 --cert none --node-name a", exitUsage, "--node-name goes with one node"},
		{"--server a:1 --cert none --token x", exitUsage, "--token goes with one node"},
		{"--server a:1 --runtime sim --zones -1", exitUsage, "--zones is -1"},
		{"--server a:1 --runtime process --pod-range x", exitUsage, "give an address and its bits"},
		{"--server a:1 --runtime process --service-range 10.244.7.0/24", exitUsage, "would have the same addresses"},
		{"--server a:1 --runtime sim --token-file /dev/null", exitFailed, "/dev/null is empty"},
		{"remove", exitFailed, "no kubelet has run"},
	} {
		var out bytes.Buffer
		code := run(t.Context(), append(strings.Fields(c.args), "--dir="+filepath.Join(t.TempDir(), "k")), &out)
		if code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("kubelet %s: exit %d, %q; want %d, %q", c.args, code, out.String(), c.code, c.says)
		}
	}
}

// A folder that is misspelt is no kubelet's, and stays as it is.
func TestRemoveLeavesFoldersAloneThatNoKubeletHad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "notes")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{dir, file, filepath.Join(dir, "absent")} {
		var out bytes.Buffer
		if code := run(t.Context(), []string{"remove", "--runtime=process", "--dir=" + arg}, &out); code != exitFailed || !strings.Contains(out.String(), "no kubelet has run with --dir "+arg) {
			t.Errorf("%s: exit %d, %q", arg, code, out.String())
		}
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"--server=a:1", "--runtime=process", "--node-ip=127.0.0.1", "--dir=" + file}, &out); code != exitUsage || !strings.Contains(out.String(), "is a file") {
		t.Errorf("a file: exit %d, %q", code, out.String())
	}
	found, err := os.ReadDir(dir)
	if err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
}
