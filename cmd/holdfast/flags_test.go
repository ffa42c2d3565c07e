package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

func TestWrongArgumentsAreNamedOnOneLine(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"unknown flag":   {[]string{"--nope"}, exitUsage, "-nope: see holdfast --help"},
		"bad number":     {[]string{"--heartbeat-interval", "soon"}, exitUsage, "heartbeat-interval"},
		"argument":       {[]string{"start"}, exitUsage, `"start" is not a flag`},
		"not there yet":  {[]string{"--auto-tls"}, exitUsage, "--auto-tls is not supported by this version"},
		"bad level":      {[]string{"--log-level=loud"}, exitFailed, "--log-level"},
		"bad URL":        {[]string{"--listen-client-urls=http://x", "--advertise-client-urls=http://x:1"}, exitFailed, "--listen-client-urls"},
		"bad timing":     {[]string{"--election-timeout=100"}, exitFailed, "--election-timeout"},
		"nothing there":  {[]string{"--name=a", "--force-new-cluster", "--data-dir=" + t.TempDir()}, exitFailed, "--force-new-cluster: collect"},
		"frozen":         {[]string{"--name=a", "--data-dir=" + frozenDir(t)}, exitFailed, "frozen for a recovery: a test; finish with"},
		"not in cluster": {[]string{"--name=a", "--initial-cluster=b=http://localhost:1", "--data-dir=" + t.TempDir()}, exitFailed, "--initial-cluster"},
	} {
		var out, errs bytes.Buffer
		if code := run(c.args, nil, &out, &errs); code != c.code {
			t.Errorf("%s: exit code %d, want %d", name, code, c.code)
		}
		if got := errs.String(); !strings.Contains(got, c.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q does not say %q on one line", name, got, c.want)
		}
	}
}

func frozenDir(t *testing.T) string {
	t.Helper()
	path := t.TempDir()
	dir, err := datadir.Open(vfs.OS(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dir.Freeze("a test"), dir.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagsComeInAllFormsAndFromTheEnvironment(t *testing.T) {
	o, err := parse([]string{"-name", "a", "--name=b", "--strict-reconfig-check=false", "--listen-peer-urls", "http://h:1, http://h:2"},
		[]string{"ETCD_NAME=c", "ETCD_DATA_DIR=etcd", "HOLDFAST_DATA_DIR=ours", "ETCD_ELECTION_TIMEOUT=5000", "ETCD_UNKNOWN=1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := o.cfg
	if c.Name != "b" || c.DataDir != "ours" || c.StrictReconfigCheck || c.ElectionTimeout != 5*time.Second || !slices.Equal(c.ListenPeerURLs, []string{"http://h:1", "http://h:2"}) {
		t.Fatalf("%+v", c)
	}
	if _, err := parse(nil, []string{"ETCD_MAX_TXN_OPS=many"}, nil); err == nil || !strings.Contains(err.Error(), "ETCD_MAX_TXN_OPS") {
		t.Fatalf("a bad variable: %v", err)
	}
}

func TestTheVersionTellsTheProtocolAndOurOwn(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"--version"}, nil, &out, &errs); code != 0 || !strings.HasPrefix(out.String(), "etcd Version: 3.7.") || !strings.Contains(out.String(), "holdfast Version: ") {
		t.Fatalf("%d: %s%s", code, &out, &errs)
	}
	out.Reset()
	if code := run([]string{"--help"}, nil, &out, &errs); code != 0 || !strings.Contains(out.String(), "-initial-cluster") {
		t.Fatalf("%d: %s", code, &out)
	}
}
