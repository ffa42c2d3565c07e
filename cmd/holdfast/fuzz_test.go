package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// FuzzFlags parses any command line and environment and judges what it says. A
// flag wins over a variable, and ours over etcd's.
func FuzzFlags(f *testing.F) {
	f.Add("--name=a\x00--data-dir\x00x\x00--heartbeat-interval=50", "ETCD_ELECTION_TIMEOUT=500\x00HOLDFAST_NAME=b")
	f.Add("--listen-client-urls=http://127.0.0.1:1,https://[::1]:2\x00--initial-cluster=a=http://h:1,a=http://h:2", "")
	f.Add("--auto-compaction-mode=revision\x00--auto-compaction-retention=1h\x00--quota-backend-bytes=-1", "ETCD_MAX_TXN_OPS=0")
	f.Add("--cert-file=x\x00--client-cert-auth\x00--strict-reconfig-check=false\x00--auto-tls", "HOLDFAST_PRE_VOTE=maybe")
	f.Fuzz(func(t *testing.T, line, environment string) {
		args, environ := strings.Split(line, "\x00"), strings.Split(environment, "\x00")
		o, err := parse(args, environ, io.Discard)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("an error without a word")
			}
			return
		}
		o.cfg.Logger = hclog.NewNullLogger()
		_ = o.cfg.Validate()
		again, err := parse(append(slices.Clone(args), "--name=last"), environ, io.Discard)
		if err == nil && again.cfg.Name != "last" {
			t.Errorf("the last --name is %q", again.cfg.Name)
		}
	})
}
