package etcd

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// The files in testdata/v1 were written by etcd 3.7.3 and by Debian's 3.4.23:
// a lease of 3000 s with ID 100; a=1 with it, b=1, a=2 with it, c=1; b deleted.
// snapshot.db is what 'snapshot save' got; member/ was copied under the running
// server, whose database knew nothing of it yet, and zeroes at the ends are cut.
func TestWhatRealEtcdsHaveWrittenIsRead(t *testing.T) {
	for _, version := range []string{"3.4", "3.7"} {
		for _, source := range []string{"snapshot.db", ""} {
			from := filepath.Join("testdata", "v1", "etcd-"+version, source)
			if source == "" { // Its database gets locked, which leaves no trace but is a write.
				copied := t.TempDir()
				copyFolder(t, from, copied, "member/snap/db", "member/wal/0000000000000000-0000000000000000.wal")
				from = copied
			}
			to := filepath.Join(t.TempDir(), "out.snap")
			report, err := Import(t.Context(), testConfig(), from, to)
			if err != nil {
				t.Fatalf("%s %s: %v", version, source, err)
			}
			list, k := keysOf(t, to)
			text := ""
			for _, row := range list {
				kv := &mvccpb.KeyValue{}
				if err := kv.UnmarshalVT([]byte(row)); err != nil {
					t.Fatal(err)
				}
				text += fmt.Sprintf("%s=%s %d %d %d %d; ", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
			}
			if want := "a=2 2 4 2 100; c=1 5 5 1 0; "; text != want || k.Header.Revision != 6 || report.Leases != 1 {
				t.Errorf("%s %q: revision %d, %s, %+v", version, source, k.Header.Revision, text, report)
			}
			if (report.FromLog > 0) != (source == "") || report.Hashed != (source != "") {
				t.Errorf("%s %q: %+v", version, source, report)
			}
		}
	}
}

func copyFolder(t *testing.T, from, to string, files ...string) {
	t.Helper()
	for _, name := range files {
		writeFile(t, filepath.Join(to, name), readFile(t, filepath.Join(from, name)))
	}
}

func TestEachFlippedByteOfADatabaseUnderAHashIsFound(t *testing.T) {
	whole := readFile(t, filepath.Join("testdata", "v1", "etcd-3.4", "snapshot.db"))
	cfg := testConfig()
	for at := 0; at < len(whole); at += 31 {
		path := filepath.Join(t.TempDir(), "db")
		b := append([]byte{}, whole...)
		b[at] ^= 0x20
		writeFile(t, path, b)
		db, err := openDatabase(t.Context(), &cfg, path)
		if err == nil {
			db.close()
			t.Fatalf("byte %d of %d", at, len(whole))
		}
		if !strings.Contains(err.Error(), path) {
			t.Fatalf("byte %d: the error does not name the file: %v", at, err)
		}
	}
}
