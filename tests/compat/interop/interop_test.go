package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

func restore37(t *testing.T, file, dir string) {
	t.Helper()
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: file, Name: etcdName, OutputDataDir: dir,
		PeerURLs: []string{"http://127.0.0.1:2380"}, InitialCluster: etcdName + "=http://127.0.0.1:2380", InitialClusterToken: "interop",
	})
	if err != nil {
		t.Fatal(err)
	}
}

func restore34(t *testing.T, file, dir string) {
	t.Helper()
	cmd := exec.Command(need(t, "etcdctl", "etcd-client"), "snapshot", "restore", file, "--name", etcdName, "--data-dir", dir,
		"--initial-cluster", etcdName+"=http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380")
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("etcdctl snapshot restore: %v\n%s", err, out)
	}
}

// etcds are the oldest and the newest that we exchange data with.
var etcds = []etcd{{"3.7", start37, restore37}, {"3.4", start34, restore34}}

func TestASnapshotOfEtcdIsServedWithEqualKeys(t *testing.T) {
	for _, e := range etcds {
		t.Run(e.version, func(t *testing.T) {
			source := e.start(t, filepath.Join(t.TempDir(), "data"))
			source.fill()
			want := source.contents()
			dir := t.TempDir()
			saved, imported := filepath.Join(dir, "etcd.db"), filepath.Join(dir, "imported.snap")
			source.save(saved)
			if out := ctl(t, "snapshot", "import", saved, imported); strings.Contains(out, "Warning") {
				t.Errorf("a snapshot with its hash: %s", out)
			}
			ctl(t, "snapshot", "status", imported)
			ours := holdfastOn(t, imported)
			equal(t, ours.contents(), want)
			oldRevision(t, ours)
		})
	}
}

func TestADataDirectoryOfEtcdIsServedWithEqualKeys(t *testing.T) {
	for _, e := range etcds {
		t.Run(e.version, func(t *testing.T) {
			source := e.start(t, filepath.Join(t.TempDir(), "data"))
			source.fill()
			want := source.contents()
			dir := t.TempDir()
			if out, err := exec.Command(member.Program(t, "holdfastctl"), "snapshot", "import", source.dir, filepath.Join(dir, "no.snap")).CombinedOutput(); err == nil ||
				!strings.Contains(string(out), "an etcd runs on it") {
				t.Errorf("import of a directory in use: %v, %s", err, out)
			}
			// As kill -9 leaves it: nothing of this is in the database yet.
			if err := os.CopyFS(filepath.Join(dir, "copy"), os.DirFS(source.dir)); err != nil {
				t.Fatal(err)
			}
			imported := filepath.Join(dir, "imported.snap")
			if out := ctl(t, "snapshot", "import", filepath.Join(dir, "copy"), imported); !strings.Contains(out, "entries came from the log") {
				t.Errorf("nothing came from the log: %s", out)
			}
			equal(t, holdfastOn(t, imported).contents(), want)
		})
	}
}

func TestAnExportIsRestoredByEtcdAndServedWithEqualKeys(t *testing.T) {
	for _, e := range etcds {
		t.Run(e.version, func(t *testing.T) {
			m := member.New(t, member.Config{})
			m.Start()
			source := &side{t: t, conn: dial(t, m.Client)}
			source.fill()
			want := source.contents()
			dir := t.TempDir()
			saved, exported := filepath.Join(dir, "ours.snap"), filepath.Join(dir, "etcd.db")
			source.save(saved)
			ctl(t, "snapshot", "export", saved, exported, "--format", "etcd", "--etcd-version", e.version)
			restored := filepath.Join(dir, "restored")
			e.restore(t, exported, restored)
			etcd := e.start(t, restored)
			equal(t, etcd.contents(), want)
			oldRevision(t, etcd)
			etcd.put("goes on", "at the next revision", 0)
			source.put("goes on", "at the next revision", 0)
			equal(t, etcd.contents(), source.contents())
		})
	}
}

func equal(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("line %d is\n%.200s\nnot\n%.200s", i, g[i], w[i])
		}
	}
	t.Fatalf("%d lines, not %d", len(g), len(w))
}

// oldRevision must be answered as compacted, not with something else.
func oldRevision(t *testing.T, s *side) {
	t.Helper()
	_, err := pb.NewKVClient(s.conn).Range(s.ctx(), &pb.RangeRequest{Key: []byte("key-07"), Revision: 200})
	if got := status.Convert(err).Message(); !strings.Contains(fmt.Sprint(got), "required revision has been compacted") {
		t.Errorf("a read of an old revision: %v", err)
	}
}
