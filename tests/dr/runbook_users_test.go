package dr

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// cfssl are the files of the page that its commands read.
var cfssl = map[string]string{
	"ca-config.json": `{"signing": {"default": {"expiry": "8760h"}, "profiles": {"www": {"usages": ["signing", "server auth"], "expiry": "8760h"}}}}`,
	"ca-csr.json":    `{"CN": "an authority", "key": {"algo": "ecdsa", "size": 256}, "names": [{"O": "example"}]}`,
	"web-csr.json":   `{"CN": "web", "hosts": ["web.example"], "key": {"algo": "rsa", "size": 2048}}`,
}

var joinToken = regexp.MustCompile(`(?m)^holdfast\.(\w{8})\.`)

func TestTheRunbookForCertificatesThatAreMade(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	certs := filepath.Join(c.Dir, "certs")
	p := openPage(t, c, "certificates.md", "Make", "A node joins")
	p.Names = []string{"/etc/holdfast/certs", certs}
	for name, text := range cfssl {
		if err := os.WriteFile(filepath.Join(p.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out := p.Types(0); !strings.Contains(out, "kubelet-serving-n1.pem") || strings.Contains(out, "/ca.pem") {
		t.Error("not what is missing, and that alone")
	}
	if out := p.Types(0); !strings.Contains(out, "certs/web.pem") {
		t.Error("no certificate from cfssl's files")
	}
	token := joinToken.FindStringSubmatch(p.Types(0))
	if token == nil {
		t.Fatal("no token is printed")
	}
	p.Names = append(p.Names, "revoke ID", "revoke "+token[1])
	p.Types(0)
	if out, err := c.Members[0].Ctl(t.Context(), "token", "list"); err != nil || strings.Contains(out, token[1]) {
		t.Errorf("the token is there still: %s %v", out, err)
	}
}

func TestTheRunbookForUsers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	p := openPage(t, c, "users.md")
	p.Names = []string{"add root", "add root:toor", "add alice", "add alice:hers"} // Else they are asked for.
	p.Types(0)
	as := func(user string, args ...string) error {
		_, err := c.Members[0].Ctl(t.Context(), append([]string{"--user=" + user}, args...)...)
		return err
	}
	if _, err := c.Members[0].Ctl(t.Context(), "get", "/app/x"); err == nil {
		t.Error("nobody reads")
	}
	if err := as("alice:hers", "put", "/app/x", "1"); err != nil {
		t.Error(err)
	}
	if err := as("alice:hers", "put", "/other", "1"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("alice writes elsewhere: %v", err)
	}
	if err := as("root:toor", "auth", "disable"); err != nil {
		t.Error(err)
	}
}
