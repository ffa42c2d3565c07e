package main

import (
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/server"
)

func TestUsersAndTheirPasswordsSurviveARestore(t *testing.T) {
	tt := newTerminal(t, func(c *server.Config) { c.BcryptCost = 4 })
	tt.must("user", "add", "root:secret")
	tt.must("user", "add", "alice:wonder")
	tt.must("role", "add", "r")
	tt.must("role", "grant-permission", "r", "readwrite", "a")
	tt.must("user", "grant-role", "alice", "r")
	tt.must("auth", "enable")
	tt.must("put", "a", "1", "--user", "alice:wonder")
	if _, stderr, code := tt.run(0, "", "snapshot", "save", "s.db", "--user", "alice:wonder"); code == 0 || !strings.Contains(stderr, "permission denied") {
		t.Errorf("a snapshot for alice: code %d, %s", code, stderr)
	}
	tt.must("snapshot", "save", "s.db", "--user", "root:secret")
	tt.must("user", "delete", "alice", "--user", "root:secret")
	before := tt.must("auth", "status")

	m := tt.cluster.Members[0]
	tt.must("snapshot", "restore", "s.db", "--data-dir", "r", "--name", m.Config.Name,
		"--initial-cluster", m.Config.Name+"="+peerURL, "--initial-advertise-peer-urls", peerURL)
	m.Stop()
	m.Config.DataDir = "r"
	m.Start()
	m.WaitReady()
	if got := tt.must("get", "a", "--user", "alice:wonder"); got != "a\n1\n" {
		t.Errorf("alice reads %q", got)
	}
	if _, stderr, code := tt.run(0, "", "get", "a"); code == 0 || !strings.Contains(stderr, "user name is empty") {
		t.Errorf("without a user: code %d, %s", code, stderr)
	}
	if after := tt.must("auth", "status"); after != "Authentication Status: true\nAuthRevision: 8\n" || before != "Authentication Status: true\nAuthRevision: 9\n" {
		t.Errorf("before %q, after %q", before, after)
	}
}
