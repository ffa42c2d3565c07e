package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestWhatCannotBeIsRefusedWithItsMend(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("theirs/members", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--scheduler-profile fast", exitFailed, "use spread or binpack"},
		{"--pod-range here", exitFailed, `--pod-range is "here": give an address and its bits`},
		{"--pod-range 10.0.0.0/30", exitFailed, "subnets of /24"},
		{"--pod-range fd00::/64", exitFailed, "it is an IPv4 range"},
		{"--service-range 10.0.0.0/31", exitFailed, "at least 16 addresses"},
		{"--service-range 10.244.9.0/24", exitFailed, "choose ranges that do not overlap"},
		{"--name=", exitFailed, "--name is empty"},
		{"--authority-dir theirs", exitFailed, "--authority-dir"},
		{"--initial-cluster nonsense", exitFailed, "NAME=URL"},
		{"--listen-api 0.0.0.0:6443 --initial-cluster default=https://localhost:2380,b=https://b:2380", exitFailed, "give --advertise-api"},
		{"--initial-cluster default=https://localhost:2380,b=https://b:2380", exitFailed, "give --advertise-api"},
		{"--advertise-api a:6443 --initial-cluster default=https://localhost:2380,b=https://b:2380", exitFailed, "holdfastctl certs set"},
		{"--initial-cluster default=https://localhost:2380,b=https://127.0.0.1:2382", exitFailed, "holdfastctl certs set"},
		{"--listen-api [::]:6443 --initial-cluster-state existing", exitFailed, "give --advertise-api"},
		{"--listen-api :6443 --advertise-api 0.0.0.0:6443", exitFailed, "--advertise-api"},
		{"--advertise-api nowhere", exitFailed, "--advertise-api"},
		{"--listen-api 0.0.0.0:6443", exitFailed, "holdfastctl certs set"},
		{"--log-level loud", exitFailed, "loud"},
		{"", exitFailed, "holdfastctl certs set"},
		{"--nonsense", exitUsage, "unknown flag"},
		{"stray", exitUsage, "unknown command"},
		{"dev --runtime sim --nodes -1", exitUsage, "--nodes"},
		{"dev --runtime process --nodes 2", exitUsage, "use --runtime sim"},
		{"dev --runtime docker", exitUsage, "use native, process or cri"},
		{"dev --runtime cri", exitUsage, "--cri-socket"},
		{"dev --runtime sim --data-dir theirs", exitFailed, "name another with --data-dir"},
		{"dev --listen-api nowhere", exitFailed, "--listen-api"},
		{"dev --runtime sim --node-name a", exitUsage, "--node-name and --node-ip"},
		{"dev remove --runtime process --data-dir theirs", exitFailed, "no cluster for trials has run with --data-dir theirs"},
		{"dev remove --runtime process --data-dir absent", exitFailed, "no cluster for trials"},
	} {
		var out bytes.Buffer
		code := run(t.Context(), strings.Fields(c.args), &out, &out)
		if code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("controlplane %s: exit %d, %q; want %d, %q", c.args, code, out.String(), c.code, c.says)
		}
	}
}
