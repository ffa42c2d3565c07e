package ctl

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// What only reads is asked of the same three members, with TLS by variables.
func TestAClusterIsShownTheSame(t *testing.T) {
	t.Parallel()
	c := member.StartCluster(t, 3, member.SlowElections)
	env := []string{
		noEndpoint, "ETCDCTL_ENDPOINTS=" + strings.Join(c.Endpoints(), ","),
		"ETCDCTL_CACERT=" + c.Certs.CA, "ETCDCTL_CERT=" + c.Certs.Client, "ETCDCTL_KEY=" + c.Certs.ClientKey,
	}
	var steps []step
	for _, args := range []string{
		"endpoint health", "endpoint status", "endpoint hashkv", "endpoint status --cluster", "endpoint health --cluster",
		"endpoint hashkv --cluster",
	} {
		steps = append(steps, step{args: args, env: env})
	}
	for _, args := range []string{"defrag", "defrag --cluster", "snapshot save s.db"} {
		steps = append(steps, step{args: args, env: env, once: true})
	}
	theirs := &side{t: t, program: etcdTool(t, "etcdctl"), dir: t.TempDir()}
	us := &side{t: t, program: ours(t, "etcdctl"), dir: t.TempDir()}
	list := newDifferences(nil)
	list.unordered = true
	compare(t, theirs, us, list, steps)
}

func TestCheckDatascalePrintsTheSame(t *testing.T) {
	t.Parallel()
	theirs, us := newSide(t, etcdTool(t, "etcdctl")), newSide(t, ours(t, "etcdctl"))
	compare(t, theirs, us, newDifferences(nil), []step{
		{args: "check datascale --prefix=scale/ --auto-compact --auto-defrag", once: true},
		{args: "get scale/ --prefix", once: true}, // Nothing is left.
	})
}

// Both mirrors leave the same at the destination, which asks for a password.
func TestMakeMirrorCopiesTheSame(t *testing.T) {
	t.Parallel()
	var left []string
	for _, program := range []string{etcdTool(t, "etcdctl"), ours(t, "etcdctl")} {
		from, to := newSide(t, program), newSide(t, program, "--bcrypt-cost", "4")
		must := func(s *side, st step) string {
			t.Helper()
			out := s.run(st, "simple")
			if out.code != 0 || out.err != nil {
				t.Fatalf("%s: %v %s", st.args, out.err, out.stderr)
			}
			return out.stdout
		}
		puts := ""
		for i := range 100 {
			puts += fmt.Sprintf("put a/%03d old\n", i)
		}
		must(from, step{args: "txn", stdin: "\n" + puts + "\n\n"})
		must(from, step{args: "put z 1"})
		must(to, step{args: "user add root:secret"})
		must(to, step{args: "auth enable"})

		cmd := exec.Command(program, "make-mirror", to.endpoint, "--prefix=a/", "--dest-prefix=b/", "--max-txn-ops=7", "--dest-user=root", "--dest-password=secret")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "ETCDCTL_ENDPOINTS=" + from.endpoint}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		read := step{args: "get --prefix --user=root:secret -w simple", words: []string{"get", "", "--prefix", "--user=root:secret"}}
		await := func(keys int) string {
			t.Helper()
			for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
				got := must(to, read)
				if strings.Count(got, "b/") == keys {
					return got
				}
				if time.Since(start) > patience {
					t.Fatalf("%d keys never came: %d", keys, strings.Count(got, "b/"))
				}
			}
		}
		await(100)
		must(from, step{args: "del a/ a/050 --range"})
		must(from, step{args: "put a/999 new"})
		left = append(left, await(51))
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // etcd's is killed by that.
	}
	if left[0] != left[1] {
		t.Errorf("etcdctl's mirror has\n%s\nours\n%s", left[0], left[1])
	}
}
