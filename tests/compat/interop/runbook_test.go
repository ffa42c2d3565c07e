package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// block is a piece of shell on a page. One that is marked "start" runs on.
var block = regexp.MustCompile("(?ms)^```sh( start)?\n(.*?)^```$")

func TestTheMigrationRunbook(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(member.Root(), "docs", "operations", "migrate-from-etcd.md"))
	if err != nil {
		t.Fatal(err)
	}
	need(t, "etcdctl", "etcd-client")
	source := start34(t, filepath.Join(t.TempDir(), "data"))
	source.fill()
	want := source.contents()
	m := member.New(t, member.Config{})
	vars := append(os.Environ(), "ETCD=http://"+source.conn.Target()[len("passthrough:///"):], "NAME="+m.Name,
		"PEER=http://"+m.Peer, "CLIENT=http://"+m.Client, "CLUSTER="+m.Name+"=http://"+m.Peer,
		"PATH="+filepath.Dir(member.Program(t, "holdfastctl"))+":"+os.Getenv("PATH"))
	member.Program(t, "holdfast")
	dir := filepath.Dir(m.DataDir)
	blocks := block.FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 6 {
		t.Fatalf("%d blocks of shell on the page, expected 6", len(blocks))
	}
	for _, b := range blocks {
		cmd := exec.Command("bash", "-euc", b[2])
		cmd.Dir, cmd.Env = dir, vars
		if b[1] != "" {
			// The line itself, but with an end and a log that the test knows of.
			args := strings.Fields(os.Expand(strings.ReplaceAll(b[2], `"`, ""), lookup(vars)))
			if args[0] != "holdfast" {
				t.Fatalf("a start of %s", args[0])
			}
			m.StartWith(dir, args[1:]...)
			ours := &side{t: t, conn: dial(t, m.Client)}
			equal(t, ours.contents(), want)
			continue
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s\n%v\n%s", b[2], err, out)
		}
	}
	equal(t, start34(t, filepath.Join(dir, "back.etcd")).contents(), want)
}

func lookup(vars []string) func(string) string {
	return func(name string) string {
		for i := len(vars) - 1; i >= 0; i-- {
			if value, ok := strings.CutPrefix(vars[i], name+"="); ok {
				return value
			}
		}
		return fmt.Sprintf("$%s", name)
	}
}
