package ctl

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// URLs that the members advertise, from which their IDs follow.
const (
	peerURL   = "http://peer.test:2380"
	clientURL = "http://client.test:2379"
)

// newSide starts a member for a program.
func newSide(t *testing.T, program string, flags ...string) *side {
	t.Helper()
	m := member.New(t, member.Config{Args: append([]string{
		"--initial-advertise-peer-urls", peerURL, "--advertise-client-urls", clientURL, "--initial-cluster", "m1=" + peerURL,
	}, flags...)})
	m.Start()
	return &side{t: t, program: program, endpoint: m.Client, dir: t.TempDir()}
}

// scenes are sessions of the verbs of etcdctl, each with members of its own.
var scenes = map[string][]step{
	"keys": {
		{args: "put a 1", notIn: "table"},
		{args: "put a 2 --prev-kv", notIn: "table"},
		{args: "put b-{form}", stdin: "from stdin", notIn: "table"},
		{args: "put c --ignore-value", notIn: "table"},
		{args: "put a --ignore-value --ignore-lease", notIn: "table"},
		{args: "put", once: true},
		{args: "put a b --lease=xyz", once: true},
		{args: "put -- -dash -value", once: true},
		{words: []string{"put", "sp ace", "v\xff\"q\""}, notIn: "table"},
		{args: "get a"},
		{args: "get a --hex"},
		{args: "get none"},
		{args: "get a z"},
		{args: "get a --prefix --print-value-only"},
		{args: "get a --from-key --limit=2"},
		{args: "get a --prefix --keys-only"},
		{args: "get a --prefix --count-only"},
		{args: "get a --rev=2"},
		{args: "get a --rev=100000"},
		{args: "get --prefix b --order=DESCEND --sort-by=MODIFY"},
		{args: "get --prefix b --order=descend --sort-by=version --consistency=s"},
		{args: "get --prefix --sort-by=CREATE --min-mod-rev=3 --max-mod-rev=6 b"},
		{args: "get --prefix --min-create-rev=3 --max-create-rev=6 b"},
		{args: "get a --stream"},
		{args: "get b --prefix --stream --print-value-only", once: true},
		{args: "get", once: true},
		{args: "get a b --prefix", once: true},
		{args: "get a --prefix --from-key", once: true},
		{args: "get a --keys-only --count-only", once: true},
		{args: "get a --sort-by=nothing", once: true},
		{args: "get a --order=nothing", once: true},
		{args: "get a --consistency=x", once: true},
		{args: "get a --limit=x", once: true},
		{args: "get a --nonsense", once: true},
		{args: "get a -w nonsense", once: true},
		{args: "nonsense", once: true},
		{args: "txn", stdin: "value(\"a\") = \"2\"\n\nput x \"1\"\nget a\ndel none\n\nput never 1\n\n", notIn: "table"},
		{args: "txn", stdin: "mod(\"a\") > \"100000\"\nversion(\"a\") < \"3\"\ncreate(\"a\") = \"2\"\n\nput never 1\n\ndel x --prev-kv\nget --prefix b\n\n", notIn: "table"},
		{args: "txn -i", stdin: "version(\"a\") != \"0\"\n\nput i 1\n\n\n", notIn: "table"},
		{args: "txn", stdin: "nonsense\n\n\n\n", once: true},
		{args: "txn", stdin: "value(\"a\") ! \"2\"\n\n\n\n", once: true},
		{args: "txn", stdin: "\nnonsense a\n\n\n", once: true},
		{args: "txn argument", once: true},
		{args: "del none"},
		{args: "put d-{form} x", once: true},
		{args: "del d- --prefix --prev-kv", notIn: "table"},
		{args: "put a 3", notIn: "table"},
		{args: "del a --prev-kv", notIn: "table"},
		{args: "del a b --range", notIn: "table"},
		{args: "del zzz --from-key", notIn: "table"},
		{args: "del a b --prefix", once: true},
		{args: "del", once: true},
		{args: "compaction 5", once: true},
		{args: "compaction 5", once: true},
		{args: "compaction 7 --physical", once: true},
		{args: "compaction", once: true},
		{args: "compaction x", once: true},
		{args: "compaction 100000", once: true},
		{args: "compact 8", once: true},
		{args: "get a --rev=2"},
		{args: "txn -i=false", stdin: "lease(\"a\") = \"0\"\n\nget none\n\n\n", once: true},
		{args: "put a b c", once: true},
	},
	"leases": {
		{args: "lease grant 600", notIn: "table protobuf"},
		{args: "lease grant x", once: true},
		{args: "lease grant", once: true},
		{args: "lease grant -1", once: true},
		{args: "put leased 1 --lease={L1}", notIn: "table"},
		{args: "get leased", once: true},
		{args: "get leased -w json", once: true},
		{args: "lease timetolive {L1}"},
		{args: "lease timetolive {L1} --keys"},
		{args: "lease timetolive 123"},
		{args: "lease timetolive xyz", once: true},
		{args: "lease timetolive", once: true},
		{args: "lease keep-alive {L1} --once"},
		{args: "lease keep-alive 123 --once", notIn: "table"},
		{args: "lease keep-alive 123", once: true},
		{args: "lease keep-alive", once: true},
		{args: "lease keep-alive {L1}", lines: 1, once: true},
		{args: "lease list"},
		{args: "lease revoke {L1}", notIn: "table"},
		{args: "lease revoke xyz", once: true},
		{args: "lease revoke", once: true},
		{args: "put leased 1 --lease={L1}", notIn: "table"},
		{args: "lease timetolive {L1}", once: true},
	},
	"watches": {
		{args: "put w/a 1", once: true},
		{args: "put w/a 2", once: true},
		{args: "del w/a", once: true},
		{args: "put w/b x", once: true},
		{args: "watch w/ --prefix --rev=2 --prev-kv", lines: 16, once: true},
		{args: "watch w/ --prefix --rev=2 -w json", lines: 1, once: true},
		{args: "watch w/ --prefix --rev=5 -w fields", lines: 11, once: true},
		{args: "watch w/ x/ --rev=5", lines: 3, once: true},
		{args: "watch w/ --prefix --rev=5 -- echo {form}", lines: 4, once: true},
		{args: "watch w/b --rev=5 --hex", lines: 3, once: true},
		{args: "watch -i", stdin: "watch w/b --rev=5\n", lines: 3, once: true},
		{args: "watch -i", stdin: "nonsense\n", once: true},
		{args: "watch --rev=5", env: []string{"ETCDCTL_WATCH_KEY=w/", "ETCDCTL_WATCH_RANGE_END=w0"}, lines: 3, once: true},
		{args: "watch w/ w0 --prefix", once: true},
		{args: "watch", once: true},
		{args: "watch a --", once: true},
		{args: "compaction 4", once: true},
		{args: "watch w/ --prefix --rev=2", once: true},
	},
	"members": {
		{args: "member list"},
		{args: "member list --hex"},
		{args: "member list --consistency=s", once: true},
		{args: "member list --consistency=x", once: true},
		{args: "member add", once: true},
		{args: "member add n", once: true},
		{args: "member add n http://n.test:2380", once: true},
		{args: "member add n --peer-urls=nonsense", once: true},
		{args: "member remove", once: true},
		{args: "member remove xyz", once: true},
		{args: "member remove 123"},
		{args: "member update 123", once: true},
		{args: "member update 123 --peer-urls=http://n.test:2380"},
		{args: "member update 1adc13696c1af70", once: true},
		{args: "member promote 123"},
		{args: "member promote", once: true},
		{args: "alarm list"},
		{args: "alarm disarm"},
		{args: "endpoint status"},
		{args: "endpoint health"},
		{args: "endpoint hashkv"},
		{args: "endpoint hashkv --rev=100000", once: true},
		{args: "endpoint", once: true},
		{args: "move-leader", once: true},
		{args: "move-leader xyz", once: true},
		{args: "move-leader 123"},
		{args: "move-leader 6607933237004d7c", once: true},
		{args: "defrag", once: true},
		{args: "defrag -w json", once: true},
		{args: "downgrade validate 3.6"},
		{args: "downgrade validate 3.4"},
		{args: "downgrade validate x", once: true},
		{args: "downgrade validate", once: true},
		{args: "downgrade validate 3.6 3.5", once: true},
		{args: "downgrade enable 3.6", once: true},
		{args: "downgrade enable 3.4", once: true},
		{args: "downgrade cancel", once: true},
		{args: "snapshot save s.db", once: true},
		{args: "snapshot save", once: true},
		{args: "snapshot save s.db --endpoints=a:1,b:1", once: true, env: []string{noEndpoint}},
		{args: "version"},
		{args: "completion", once: true},
		{args: "completion nonsense", once: true},
		{args: "options nonsense", once: true},
		{args: "version", env: []string{"ETCDCTL_DIAL_TIMEOUT=1s"}, once: true},
		{args: "put env 1", env: []string{"ETCDCTL_WRITE_OUT=json", "ETCDCTL_HEX=true"}, once: true},
		{args: "get env --hex=true", env: []string{"ETCDCTL_HEX=false"}, once: true},
		{args: "get env --endpoints=nobody.invalid:1 --dial-timeout=100ms --command-timeout=300ms", env: []string{noEndpoint}, once: true},
		{args: "get env --endpoints=127.0.0.1:1", once: true},
		{args: "get env --cert=", once: true},
		{args: "get env --cert=none.pem --key=none.pem", once: true},
		{args: "get env --insecure-transport=false --command-timeout=500ms", once: true},
		{args: "check perf --load=nonsense", once: true},
		{args: "put /etcdctl-check-perf/x 1", once: true},
		{args: "check perf", once: true},
		{args: "check datascale --load=nonsense", once: true},
		{args: "check datascale --prefix=env", once: true},
		{args: "make-mirror", once: true},
		{args: "make-mirror h:1 --dest-prefix=a --no-dest-prefix", once: true},
		// At last: nothing is elected any more when it is there.
		{args: "member add n --peer-urls=http://n.test:2380 --learner", once: true, anyOrder: true},
		{args: "member update {L1} --peer-urls=http://n.test:1", notIn: "fields table protobuf", anyOrder: true},
		{args: "member promote {L1}", notIn: "fields table"},
		{args: "member remove {L1}", once: true},
		{args: "member remove {L1} -w json", once: true},
	},
	"concurrency": {
		{args: "lock", once: true},
		{args: "lock l -- echo held", once: true},
		{args: "lock l -- sh -c false", once: true},
		{words: []string{"lock", "l", "--", "sh", "-c", "exit 7"}, once: true},
		{args: "lock l --ttl=30", lines: 1, once: true},
		{args: "lock l -w table", once: true},
		{args: "elect", once: true},
		{args: "elect e", once: true},
		{args: "elect e me", lines: 2, once: true},
		{args: "elect -l e a b", once: true},
	},
	"users": {
		{args: "user add u-{form}:secret", notIn: "table"},
		{args: "user add u-{form}:secret", once: true},
		{args: "user add p --interactive=false", stdin: "secret\n", once: true},
		{args: "user add n --no-password", once: true},
		{args: "user add m --new-user-password=secret", once: true},
		{args: "user add :x", once: true},
		{args: "user add", once: true},
		{args: "user list"},
		{args: "user get p"},
		{args: "user get none"},
		{args: "user get", once: true},
		{args: "user passwd p --interactive=false", stdin: "other\n", notIn: "table"},
		{args: "user passwd none --interactive=false", stdin: "other\n", once: true},
		{args: "user passwd", once: true},
		{args: "role add r-{form}", notIn: "table"},
		{args: "role add r-{form}", once: true},
		{args: "role add", once: true},
		{args: "role list"},
		{args: "role grant-permission r-simple readwrite /app/ --prefix", notIn: "table"},
		{args: "role grant-permission r-simple read one", notIn: "table"},
		{args: "role grant-permission r-simple write from --from-key", notIn: "table"},
		{args: "role grant-permission r-simple read a b", notIn: "table"},
		{args: "role grant-permission r-simple nonsense a", once: true},
		{args: "role grant-permission r-simple read a b --prefix", once: true},
		{args: "role grant-permission r-simple", once: true},
		{args: "role grant-permission none read a", once: true},
		{args: "role get r-simple"},
		{args: "role get none"},
		{args: "role get", once: true},
		{args: "user grant-role p r-simple", notIn: "table"},
		{args: "user grant-role p none", once: true},
		{args: "user grant-role", once: true},
		{args: "user get p"},
		{args: "user get p --detail"},
		{args: "user revoke-role p r-simple", once: true},
		{args: "user revoke-role p r-simple", once: true},
		{args: "user grant-role p r-simple", once: true},
		{args: "role revoke-permission r-simple one", once: true},
		{args: "role revoke-permission r-simple a b", once: true},
		{args: "role revoke-permission r-simple from --from-key", once: true},
		{args: "role revoke-permission r-simple none", once: true},
		{args: "role revoke-permission", once: true},
		{args: "role delete r-{form}", once: true},
		{args: "role add r-simple", once: true},
		{args: "role grant-permission r-simple readwrite /app/ --prefix", once: true},
		{args: "user grant-role p r-simple", once: true},
		{args: "role delete r-json", once: true},
		{args: "role delete r-fields -w json", once: true},
		{args: "role delete none", once: true},
		{args: "user delete u-{form}", notIn: "table"},
		{args: "user delete u-json", once: true},
		{args: "user delete", once: true},
		{args: "auth status"},
		{args: "auth enable", once: true},
		{args: "user add root:secret", once: true},
		{args: "auth enable", once: true},
		{args: "auth status --user=root:secret"},
		{args: "put /app/x 1 --user=p:other", notIn: "table"},
		{args: "put /app/x 1 --user=p --password=other", notIn: "table"},
		{args: "get /app/ --prefix --user=p:other"},
		{args: "put other 1 --user=p:other", notIn: "table"},
		{args: "get /app/x"},
		{args: "get /app/x --user=p:wrong"},
		{args: "get /app/x", env: []string{"ETCDCTL_USER=p:other"}, once: true},
		{args: "user list --user=p:other", once: true},
		{args: "user get p --user=p:other"},
		{args: "user delete root --user=root:secret", once: true},
		{args: "role get root --user=root:secret"},
		{args: "endpoint health --user=p:other"},
		{args: "auth disable --user=p:other", once: true},
		{args: "auth disable --user=root:secret", once: true},
		{args: "auth disable", once: true},
		{args: "auth nonsense", once: true},
		{args: "get /app/x"},
	},
}

// against plays all scenes with one tool and ours.
func against(t *testing.T, tool string, list *differences) {
	t.Cleanup(func() {
		if !t.Failed() {
			list.all(t)
		}
	})
	us := ours(t, "etcdctl")
	for name, steps := range scenes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			theirs, our := newSide(t, tool, "--bcrypt-cost", "4"), newSide(t, us, "--bcrypt-cost", "4")
			compare(t, theirs, our, list, steps)
			callsOf(t, our.endpoint)
		})
	}
}

func TestEtcdctl37PrintsTheSame(t *testing.T) {
	t.Parallel()
	against(t, etcdTool(t, "etcdctl"), newDifferences(from37))
}

func TestDebiansEtcdctlPrintsTheSame(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("etcdctl")
	if err != nil && os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal("etcdctl is not installed (package etcd-client), and HOLDFAST_REQUIRE_ALL=1")
	}
	if err != nil {
		t.Skip("etcdctl is not installed: install package etcd-client")
	}
	path, err = filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	list := newDifferences(from34)
	list.forms = []string{"simple", "json"} // Those that scripts read; the others were changed since.
	against(t, path, list)
}
