package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

func TestWrongArgumentsAreNamedOnOneLine(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "holdfast.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "--config-file=" + path
	}
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"unknown flag":    {[]string{"--qqqqzzzz"}, exitUsage, "no flag --qqqqzzzz: see holdfast --help"},
		"misspelt flag":   {[]string{"--listen-client-url=x"}, exitUsage, "did you mean --listen-client-urls?"},
		"word left out":   {[]string{"--advertise-urls=x"}, exitUsage, "did you mean --advertise-client-urls?"},
		"became a gate":   {[]string{"--experimental-initial-corrupt-check=true"}, exitUsage, "it is --feature-gates=InitialCorruptCheck=true now"},
		"became another":  {[]string{"--experimental-enable-lease-checkpoint"}, exitUsage, "it is --feature-gates=LeaseCheckpoint=true now"},
		"no experiment":   {[]string{"--experimental-watch-progress-notify-interval=5s"}, exitUsage, "did you mean --watch-progress-notify-interval?"},
		"bad number":      {[]string{"--heartbeat-interval", "soon"}, exitUsage, "heartbeat-interval"},
		"argument":        {[]string{"start"}, exitUsage, `"start" is not a flag`},
		"refused":         {[]string{"--unsafe-no-fsync"}, exitUsage, "--unsafe-no-fsync is refused: a write that is answered"},
		"no file":         {[]string{"--config-file=/does/not/exist"}, exitFailed, "--config-file: open /does/not/exist"},
		"no YAML":         {[]string{file("name: [")}, exitFailed, "not YAML"},
		"no keys":         {[]string{file("- name")}, exitFailed, "not a list of KEY: VALUE"},
		"bad value":       {[]string{file("max-txn-ops: many")}, exitFailed, `max-txn-ops is "many": use a whole number`},
		"group for value": {[]string{file("name: {a: b}")}, exitFailed, "name: a group of KEY: VALUE"},
		"value for group": {[]string{file("peer-transport-security: yes")}, exitFailed, "peer-transport-security is not a group"},
		"refused in file": {[]string{file("unsafe-no-fsync: true")}, exitUsage, "--unsafe-no-fsync is refused"},
		"feature":         {[]string{"--feature-gates=FastLeaseKeepAlives=true"}, exitFailed, "did you mean FastLeaseKeepAlive?"},
		"no feature":      {[]string{"--feature-gates=FastLeaseKeepAlive"}, exitFailed, "NAME=true"},
		"half a feature":  {[]string{"--feature-gates=LeaseCheckpointPersist=true"}, exitFailed, "needs LeaseCheckpoint"},
		"bad level":       {[]string{"--log-level=loud"}, exitFailed, "--log-level"},
		"bad URL":         {[]string{"--listen-client-urls=http://x", "--advertise-client-urls=http://x:1"}, exitFailed, "--listen-client-urls"},
		"bad timing":      {[]string{"--election-timeout=100"}, exitFailed, "--election-timeout"},
		"nothing there":   {[]string{"--name=a", "--force-new-cluster", "--data-dir=" + t.TempDir()}, exitFailed, "--force-new-cluster: collect"},
		"frozen":          {[]string{"--name=a", "--data-dir=" + frozenDir(t)}, exitFailed, "frozen for a recovery: a test; finish with"},
		"half a service":  {[]string{"--discovery-token=t"}, exitFailed, "--discovery-endpoints and --discovery-token go together"},
		"no password":     {[]string{"--discovery-token=t", "--discovery-endpoints=h:1", "--discovery-user=u"}, exitFailed, "needs --discovery-password"},
		"no such file":    {[]string{"--discovery-token=t", "--discovery-endpoints=h:1", "--discovery-cacert=/does/not/exist"}, exitFailed, "--discovery-endpoints: "},
		"two ways":        {[]string{"--discovery-token=t", "--discovery-endpoints=h:1", "--initial-cluster=default=http://localhost:2380"}, exitFailed, "--initial-cluster and --discovery-token all name the first members"},
		"join by token":   {[]string{"--discovery-token=t", "--discovery-endpoints=h:1", "--initial-cluster-state=existing"}, exitFailed, "joins one that runs"},
		"not in cluster":  {[]string{"--name=a", "--initial-cluster=b=http://localhost:1", "--data-dir=" + t.TempDir()}, exitFailed, "--initial-cluster"},
	} {
		var out, errs bytes.Buffer
		if code := run(c.args, nil, &out, &errs); code != c.code {
			t.Errorf("%s: exit code %d, want %d", name, code, c.code)
		}
		var said []string
		for line := range strings.Lines(errs.String()) {
			if !strings.HasPrefix(line, "{") { // The log begins when it is known where to.
				said = append(said, line)
			}
		}
		if len(said) != 1 || !strings.Contains(said[0], c.want) {
			t.Errorf("%s: %q does not say %q on one line", name, errs.String(), c.want)
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
		[]string{"ETCD_NAME=c", "ETCD_DATA_DIR=etcd", "HOLDFAST_DATA_DIR=ours", "ETCD_ELECTION_TIMEOUT=5000", "ETCD_UNKNOWN=1", "ETCD_WAL_DIR="}, nil)
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
}

func TestThePageOfFlagsIsTheTable(t *testing.T) {
	var page bytes.Buffer
	writePage(&page)
	golden.File(t, "../../docs/flags.md", page.String())
}

func TestHelpNamesEveryFlag(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"--help"}, nil, &out, &errs); code != 0 {
		t.Fatalf("%d: %s", code, &errs)
	}
	for _, r := range allRows() {
		if !strings.Contains(out.String(), "  --"+r.name) || !strings.Contains(out.String(), r.help()) {
			t.Errorf("--help does not have %s: %s", r.name, r.help())
		}
	}
}

func TestDefaultsAreValues(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range allRows() {
		if seen[r.name] {
			t.Errorf("%s has two rows", r.name)
		}
		seen[r.name] = true
		for _, value := range []string{r.startValue(), r.example} {
			if err := newSetting(&r, &options{}).Set(value); err != nil && value != "" {
				t.Errorf("%s does not take %q: %v", r.name, value, err)
			}
		}
		if r.example == "" || r.example == r.initial {
			t.Errorf("%s has no example beside its default", r.name)
		}
		if (r.state == accepted || r.state == refused) && r.why == "" {
			t.Errorf("%s is %s without a reason", r.name, r.state)
		}
		if (r.state == done) != (r.at != nil) && r.state != accepted {
			t.Errorf("%s is %s: where does its value go?", r.name, r.state)
		}
	}
}

// TestEachFlagDoesWhatItsRowSays gives each flag as flag, variable and key of a
// file. What those that are done do is shown where it is done.
func TestEachFlagDoesWhatItsRowSays(t *testing.T) {
	for _, r := range allRows() {
		if r.name == "config-file" || r.name == "version" {
			continue // Shown by tests of their own.
		}
		file := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, "%s: %q\n", r.name, r.example), 0o600); err != nil {
			t.Fatal(err)
		}
		for how, given := range map[string]struct{ args, environ []string }{
			"flag":             {[]string{"--" + r.name + "=" + r.example}, nil},
			"our variable":     {nil, []string{"HOLDFAST_" + environName(r.name) + "=" + r.example}},
			"etcd's variable":  {nil, []string{"ETCD_" + environName(r.name) + "=" + r.example}},
			"key of a file":    {[]string{"--config-file=" + file}, nil},
			"file by variable": {nil, []string{"ETCD_CONFIG_FILE=" + file}},
		} {
			o, err := parse(given.args, given.environ, io.Discard)
			checkRow(t, r, how, o, err)
		}
	}
}

func checkRow(t *testing.T, r row, how string, o *options, err error) {
	t.Helper()
	switch r.state {
	case refused:
		if err == nil || !strings.Contains(err.Error(), "--"+r.name) || !strings.Contains(err.Error(), r.why) {
			t.Errorf("%s by %s is %s: %v", r.name, how, r.state, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%s by %s: %v", r.name, how, err)
		return
	}
	noted := slices.ContainsFunc(o.warnings, func(w warning) bool { return slices.Contains(w.args, any(r.name)) })
	if noted != (r.state == accepted) {
		t.Errorf("%s by %s is %s, in the log: %v", r.name, how, r.state, noted)
	}
	if r.state == accepted {
		return
	}
	plain := &options{}
	flagSet(plain)
	if got, was := reflect.ValueOf(r.at(o)).Elem().Interface(), reflect.ValueOf(r.at(plain)).Elem().Interface(); reflect.DeepEqual(got, was) {
		t.Errorf("%s by %s is still %v", r.name, how, got)
	}
}

func TestAFlagIsNotRefusedItsDefault(t *testing.T) {
	for _, r := range allRows() {
		if r.state != refused {
			continue
		}
		if _, err := parse([]string{"--" + r.name + "=" + r.startValue()}, nil, io.Discard); err != nil && r.startValue() != "" {
			t.Error(err)
		}
	}
}

func TestTheConfigurationFileIsEtcds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd.conf.yml")
	if err := os.WriteFile(path, []byte(`
name: 'a'
data-dir: d
wal-dir:
snapshot-count: 10000
heartbeat-interval: 100
election-timeout: 1000
quota-backend-bytes: 9007199254740993
listen-peer-urls: http://localhost:2380
listen-client-urls: http://localhost:2379,http://127.0.0.1:4
watch-progress-notify-interval: 600000000001
warning-unary-request-duration: 2s
strict-reconfig-check: false
enable-v2: true
nmae: b
client-transport-security:
  cert-file: c
  key-file: k
  client-cert-auth: true
  trusted-ca-file: ca
  auto-tls: false
peer-transport-security:
  cert-file: pc
  key-file: pk
feature-gates: LeaseCheckpoint=true
`), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"--config-file", path, "--name=of-the-flag"}, []string{"ETCD_MAX_TXN_OPS=7"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := o.cfg
	if c.Name != "a" || c.DataDir != "d" || c.QuotaBytes != 9007199254740993 || c.WatchProgressInterval != 600000000001 || c.SlowRequest != 2*time.Second ||
		c.StrictReconfigCheck || c.ClientTLS.CertFile != "c" || !c.ClientTLS.ClientCertAuth || c.ClientTLS.CAFile != "ca" || c.PeerTLS.KeyFile != "pk" || c.TxnOpsMax != 128 ||
		len(c.ListenClientURLs) != 2 {
		t.Errorf("%+v", c)
	}
	var notes []string
	for _, w := range o.warnings {
		notes = append(notes, fmt.Sprint(w.text, w.args))
	}
	all := strings.Join(notes, "\n")
	for _, want := range []string{"enable-v2", "nmae nearest name", "ignored [max-txn-ops name]", "snapshot-count", "LeaseCheckpoint"} {
		if !strings.Contains(all, want) {
			t.Errorf("no note of %s in\n%s", want, all)
		}
	}
}

// The groups have keys that are not the rest of a flag's name, and some of them say
// who is let in.
func TestGroupsOfTheConfigurationFileReachTheirFlags(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd.conf.yml")
	if err := os.WriteFile(path, []byte(`
client-transport-security:
  {cert-file: c, key-file: k, trusted-ca-file: a, client-cert-auth: true, auto-tls: true, allowed-cn: [o, m], allowed-hostname: [h], crl-file: l}
peer-transport-security:
  {cert-file: pc, key-file: pk, client-cert-file: pd, client-key-file: pe, trusted-ca-file: pa, client-cert-auth: true, auto-tls: true, allowed-cn: [pn], allowed-hostname: [ph], crl-file: pl, skip-client-san-verification: false}
socket-options:
  {reuse-port: true}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"--config-file", path}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ got, want tlsFiles }{
		"client": {o.cfg.ClientTLS, tlsFiles{CertFile: "c", KeyFile: "k", CAFile: "a", ClientCertAuth: true, Auto: true, AllowedNames: []string{"o", "m"}, AllowedHosts: []string{"h"}, CRLFile: "l"}},
		"peer": {o.cfg.PeerTLS, tlsFiles{CertFile: "pc", KeyFile: "pk", ClientCertFile: "pd", ClientKeyFile: "pe", CAFile: "pa", ClientCertAuth: true, Auto: true,
			AllowedNames: []string{"pn"}, AllowedHosts: []string{"ph"}, CRLFile: "pl"}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %+v", name, c.got)
		}
	}
	if !o.cfg.SocketReusePort {
		t.Error("socket-options are not read")
	}
	for _, w := range o.warnings {
		if strings.Contains(w.text, "not known") {
			t.Errorf("%s %v", w.text, w.args)
		}
	}
}

func TestHelpIsAskedForByShortFormsToo(t *testing.T) {
	for _, arg := range []string{"-h", "-help", "--help"} {
		if _, err := parse([]string{arg}, nil, io.Discard); !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

func TestFeaturesAreReadByName(t *testing.T) {
	o, err := parse([]string{"--feature-gates=StopGRPCServiceOnDefrag=true,FastLeaseKeepAlive=true"}, nil, io.Discard)
	if err != nil || !o.cfg.AwayOnDefragment || len(o.warnings) > 0 {
		t.Errorf("%v, %+v", err, o)
	}
	for _, f := range features() {
		_, err := parse([]string{fmt.Sprintf("--feature-gates=LeaseCheckpoint=true,%s=%t", f.name, !f.initial)}, nil, io.Discard)
		if err != nil {
			t.Errorf("%s is %s: %v", f.name, f.state, err)
		}
		if _, err := parse([]string{fmt.Sprintf("--feature-gates=%s=%t", f.name, f.initial)}, nil, io.Discard); err != nil {
			t.Errorf("%s at its default: %v", f.name, err)
		}
	}
}

// Two that lie beside each other may be swapped, and each still change something.
func TestFlagsReachTheSettingTheyAreNamedFor(t *testing.T) {
	o, err := parse([]string{
		"--snapshot-catchup-entries=7", "--memory-mlock",
		"--grpc-keepalive-min-time=1s", "--grpc-keepalive-interval=2s", "--grpc-keepalive-timeout=3s",
	}, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	c := o.cfg
	if c.SnapshotCatchUpEntries != 7 || !o.lockMemory || c.KeepAliveMinTime != time.Second || c.KeepAliveInterval != 2*time.Second || c.KeepAliveTimeout != 3*time.Second {
		t.Errorf("%+v", o)
	}
}
