package blobstore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

func TestURLsAreRefusedWithTheMendAndWithoutSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ url, want string }{
		{"", "no scheme"},
		{"/backups", "no scheme"},
		{"backups/archive", "no scheme"},
		{"ftp://host/x", `scheme "ftp" is not known`},
		{"file://backups/x", "three slashes"},
		{"file:backups", "begin at the root"},
		{"file:///backups?x=1", "has no settings"},
		{"file:///backups#1", "%23"},
		{"file:///no/such/folder", "make it or mount it"},
		{"file://" + file, "name a folder"},
		{"file:///a\x7f", "invalid control character"},
		{"s3://key:hunter2@bucket/x", "user or password"},
		{"s3://key:hunter2@bucket:x/y?secret-access-key=hunter2", "invalid port"},
	} {
		s, err := blobstore.Open(t.Context(), c.url, blobstore.Config{})
		if err == nil {
			s.Close()
			t.Errorf("%s was opened", c.url)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", c.url, err)
		}
	}
}

func TestS3URLsAreRefusedWithTheMendAndWithoutSecrets(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"s3:///prefix", "bucket is missing"},
		{"s3://bucket/a//b", "prefix"},
		{"s3://bucket/../b", "prefix"},
		{"s3://bucket/a?regoin=x", "these are: region"},
		{"s3://bucket/a?region=", "empty or given twice"},
		{"s3://bucket/a?region=a&region=b", "empty or given twice"},
		{"s3://bucket/a?path-style=yes", "neither true nor false"},
		{"s3://bucket/a?endpoint=host:9000", "https://host:port"},
		{"s3://bucket/a?endpoint=http://me:hunter2@host", "https://host:port"},
		{"s3://bucket/a?secret-access-key=hunter2", "belong together"},
		{"s3://bucket/a?access-key-id=me", "belong together"},
		{"s3://bucket/a?session-token=hunter2", "needs both"},
		{"s3://bucket/a?secret-access-key=hunter2%zz", "%25"},
		{"s3://bucket/a?secret-access-key=hunter2;x", "name=value"},
	} {
		_, err := blobstore.Open(t.Context(), c.url, blobstore.Config{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "s3://") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", c.url, err)
		}
	}
}

// FuzzNames: what is allowed as a name stays within the folder of a store, and
// is the same to everybody.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"a/b", "../a", "a/../..", "/a", "a//b", "a/./b", "~lock", "a\x00", "..a/b.."} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if blobstore.CheckName(name) != nil {
			return
		}
		if !filepath.IsLocal(name) || filepath.Clean(name) != name || strings.ContainsAny(name, "~\\:%\x00") {
			t.Errorf("%q is allowed", name)
		}
	})
}
