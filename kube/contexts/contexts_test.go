package contexts

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
)

func TestContextsAreKeptBesideEachOther(t *testing.T) {
	path := Path(t.TempDir())
	for _, c := range []Context{{Name: "a", Servers: []string{"h:1"}}, {Name: "b", Servers: []string{"h:2"}}, {Name: "a", Servers: []string{"h:3"}}} {
		f, err := Read(vfs.OS(), path)
		if err != nil {
			t.Fatal(err)
		}
		f.Set(c)
		if err := f.Write(vfs.OS(), path); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Read(vfs.OS(), path)
	if err != nil || len(f.Contexts) != 2 {
		t.Fatalf("file %+v, %v", f, err)
	}
	if c, err := f.Get(""); err != nil || c.Name != "a" || c.Servers[0] != "h:3" {
		t.Errorf("current context %+v, %v", c, err)
	}
	if _, err := f.Get("c"); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "a, b") {
		t.Errorf("no such context: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestAFileWithAnUnknownKeyIsRefusedByName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte("contexts:\n- name: a\n  server: h:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(vfs.OS(), path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "server") {
		t.Errorf("error %v", err)
	}
}

func TestCertificatesAreReadFromFilesOrFromTheContext(t *testing.T) {
	dir := t.TempDir()
	s := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: dir}
	ca, _, err := s.CreateAuthority(pki.AuthorityRequest{CommonName: "ca"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Issue(ca, "admin", pki.Request{Profile: pki.Client, CommonName: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	named := Context{CertificateAuthority: filepath.Join(dir, "ca.pem"), ClientCertificate: w.Cert, ClientKey: w.Key}
	inside := Context{CertificateAuthorityData: ca.Roots(), ClientCertificateData: w.Pair.Cert, ClientKeyData: w.Pair.Key}
	for _, c := range []Context{named, inside} {
		got, err := c.TLS(vfs.OS())
		if err != nil || len(got.Certificates) != 1 || got.RootCAs == nil {
			t.Errorf("TLS %+v, %v", got, err)
		}
	}
	inside.ClientKeyData = []byte("nonsense")
	if _, err := inside.TLS(vfs.OS()); err == nil {
		t.Error("a key that is none is taken")
	}
}
