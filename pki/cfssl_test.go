package pki_test

import (
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
)

func testdata(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "cfssl", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func exampleSigning(t *testing.T) pki.Signing {
	t.Helper()
	s, ignored, err := pki.ParseSigning(testdata(t, "ca-config.json"), "ca-config.json")
	if err != nil || len(ignored) > 0 {
		t.Fatal(ignored, err)
	}
	return *s
}

func exampleCSR(t *testing.T, name string) *pki.CSRFile {
	t.Helper()
	c, ignored, err := pki.ParseCSRFile(testdata(t, name), name)
	if err != nil || len(ignored) > 0 {
		t.Fatal(ignored, err)
	}
	return c
}

// facts are what two certificates of the same request have in common.
func facts(cert *x509.Certificate) map[string]any {
	hosts := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	slices.Sort(hosts)
	return map[string]any{
		"subject": cert.Subject.String(), "hosts": strings.Join(hosts, " "), "usage": cert.KeyUsage, "extended usage": cert.ExtKeyUsage,
		"authority": cert.IsCA, "path length": cert.MaxPathLen, "zero": cert.MaxPathLenZero, "key": cert.PublicKeyAlgorithm,
		"crl": strings.Join(cert.CRLDistributionPoints, " "),
	}
}

// The files by-cfssl-*.pem were made by cfssl 1.6.5 of the JSON beside them.
func TestTheFilesOfCfsslGiveTheCertificatesThatCfsslGives(t *testing.T) {
	f := newFixture(t, pki.ECDSA)
	f.store.Dir = "other"
	ca, w, err := f.store.CreateAuthority(exampleCSR(t, "ca-csr.json").AuthorityRequest())
	f.ok(err)
	compare := func(name string, ours *pki.Pair) {
		want := parse(t, &pki.Pair{Cert: testdata(t, "by-cfssl-"+name+".pem")})
		got := parse(t, ours)
		for fact, value := range facts(want) {
			if want.IsCA && fact == "hosts" {
				continue // cfssl leaves the DNS names of an authority out, and its addresses in.
			}
			if !reflect.DeepEqual(facts(got)[fact], value) {
				t.Errorf("%s: %s is %v, cfssl's %v", name, fact, facts(got)[fact], value)
			}
		}
		wantLife, life := want.NotAfter.Sub(want.NotBefore), got.NotAfter.Sub(f.clock.Wall())
		if (wantLife - life).Abs() > time.Minute {
			t.Errorf("%s lives for %v, cfssl's for %v", name, life, wantLife)
		}
	}
	compare("ca", w.Pair)
	signing := exampleSigning(t)
	for _, name := range []string{"default", "server", "client", "kubernetes", "issuing"} {
		profile := pki.Profile(name)
		if name == "default" {
			profile = ""
		}
		terms, err := signing.Terms(profile)
		f.ok(err)
		w, err := f.store.Issue(ca, name, exampleCSR(t, "web-csr.json").Request(profile, terms))
		f.ok(err)
		compare(name, w.Pair)
	}
}

func TestWhatIsWrongInAFileOfCfsslIsNamedByItsPath(t *testing.T) {
	signing := func(profile string) string { return `{"signing": {"profiles": {"p": ` + profile + `}}}` }
	config := func(data []byte) ([]string, error) {
		_, ignored, err := pki.ParseSigning(data, "x.json")
		return ignored, err
	}
	request := func(data []byte) ([]string, error) {
		_, ignored, err := pki.ParseCSRFile(data, "x.json")
		return ignored, err
	}
	for _, c := range []struct {
		read func([]byte) ([]string, error)
		text string
		want string
	}{
		{config, ``, "x.json:1: not JSON"},
		{config, "{\n\n\"signing\": {]", "x.json:3: not JSON"},
		{config, `{} {}`, "something follows"},
		{config, `{}`, "signing: is missing"},
		{config, strings.Repeat("[", 100), "nested deeper"},
		{config, signing(`{"usages": ["signing"], "expiry": "5y"}`), `signing.profiles.p.expiry: "5y" is no duration`},
		{config, signing(`{"usages": ["signing"], "expiry": "-1h"}`), `"-1h" is no duration`},
		{config, signing(`{"usages": ["sever auth"]}`), `signing.profiles.p.usages[0]: there is no usage "sever auth"`},
		{config, signing(`{"usages": "signing"}`), "usages: must be a list"},
		{config, signing(`{"expiry": "1h"}`), "usages: is missing"},
		{config, signing(`{"usages": ["signing"], "expiry": "1h", "expiry": "2h"}`), "p.expiry: given twice"},
		{config, signing(`{"usages": ["signing"], "expires": "1h"}`), "p.expires: there is no such field"},
		{config, signing(`{"usages": ["signing"], "copy_extensions": true}`), "p.copy_extensions: not supported"},
		{config, signing(`{"usages": ["signing"], "ca_constraint": {"is_ca": true}}`), `an authority needs "cert sign"`},
		{config, signing(`{"usages": ["cert sign"], "ca_constraint": {"is_ca": "yes"}}`), "must be true or false"},
		{config, signing(`7`), "p: must be an object"},
		{request, `{"hosts": ["a"]}`, "CN: is missing"},
		{request, `{"cn": "a"}`, "cfssl calls it CN"},
		{request, `{"CN": "a", "key": {"algo": "rsa", "size": 1024}}`, "2048 to 8192 bits"},
		{request, `{"CN": "a", "key": {"algo": "dsa"}}`, `key type "dsa"`},
		{request, `{"CN": "a", "key": {"algo": "rsa", "size": "2048"}}`, "key.size: must be a whole number"},
		{request, `{"CN": "a", "hosts": ["https://a:1"]}`, "hosts[0]: "},
		{request, `{"CN": "a", "names": [{"Country": "DE"}]}`, "names[0].Country: there is no such field"},
		{request, `{"CN": "a", "names": [null]}`, "names[0]: must be an object"},
		{request, `{"CN": "a", "ca": {"pathlen": 1, "pathlenzero": true}}`, "ca.pathlen: is 1"},
	} {
		if _, err := c.read([]byte(c.text)); !errors.Is(err, pki.ErrRequest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n\twant %q\n\tgot  %v", c.text, c.want, err)
		}
	}
	ignored, err := config([]byte(signing(`{"usages": ["signing"], "auth_key": "k"}`)))
	if err != nil || !slices.Equal(ignored, []string{"signing.profiles.p.auth_key"}) {
		t.Errorf("ignored %q, %v", ignored, err)
	}
	ignored, err = request([]byte(`{"CN": "a", "hosts": [""], "key": {"algo": "ed25519", "size": 0}}`))
	if err != nil || len(ignored) > 0 {
		t.Errorf("no hosts as in cfssl's examples: %q, %v", ignored, err)
	}
}

func FuzzReadingFilesOfCfsslNeverPanics(f *testing.F) {
	for _, name := range []string{"ca-config.json", "ca-csr.json", "web-csr.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", "cfssl", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, _, err := pki.ParseSigning(data, "f"); err == nil {
			for name, terms := range s.Profiles {
				if terms.Validity <= 0 || terms.KeyUsage == 0 && len(terms.ExtKeyUsage) == 0 {
					t.Errorf("profile %q is good for nothing: %+v", name, terms)
				}
			}
		}
		if c, _, err := pki.ParseCSRFile(data, "f"); err == nil && strings.TrimSpace(c.CommonName) == "" {
			t.Error("a request without a name")
		}
	})
}

// openssl is the judge that is not ours.
func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("this test needs openssl: install it")
	}
	out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
	return string(out), err
}

func TestOpenSSLAcceptsEachOfASetForItsUseAndNoOther(t *testing.T) {
	dir := t.TempDir()
	store := pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: dir, Requests: true}
	ca, _, err := store.CreateAuthority(pki.AuthorityRequest{CommonName: "test CA"})
	if err != nil {
		t.Fatal(err)
	}
	req := pki.SetRequest{Hosts: []string{"10.0.0.1", "db1.example.com"}, Nodes: []pki.Node{{Name: "n1", Hosts: []string{"10.0.0.7"}}}, Signing: exampleSigning(t)}
	all, err := store.Set(ca, req)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	for name, want := range map[string]struct{ server, client, subject string }{
		"server":             {"yes", "no", "CN = holdfast server"},
		"peer":               {"yes", "yes", "CN = holdfast peer"},
		"client":             {"no", "yes", "CN = client"},
		"apiserver":          {"yes", "yes", "CN = system:apiserver"},
		"kube-proxy":         {"no", "yes", "O = system:node-proxier, CN = system:kube-proxy"},
		"admin":              {"no", "yes", "O = system:masters, CN = admin"},
		"scheduler":          {"no", "yes", "CN = system:scheduler"},
		"controllers":        {"no", "yes", "CN = system:controllers"},
		"kubelet-client-n1":  {"no", "yes", "O = system:nodes, CN = system:node:n1"},
		"kubelet-serving-n1": {"yes", "no", "O = system:nodes, CN = system:node:n1"},
	} {
		for purpose, good := range map[string]string{"sslserver": want.server, "sslclient": want.client} {
			out, err := openssl(t, "verify", "-CAfile", file("ca.pem"), "-purpose", purpose, file(name+".pem"))
			if (err == nil) != (good == "yes") {
				t.Errorf("%s as %s: want %s\n%s", name, purpose, good, out)
			}
		}
		out, err := openssl(t, "x509", "-in", file(name+".pem"), "-noout", "-subject", "-nameopt", "space_eq,sep_comma_plus_space", "-checkend", "157679000")
		if err != nil || !strings.Contains(out, want.subject) {
			t.Errorf("%s: want %q, valid for five years\n%s", name, want.subject, out)
		}
		if out, err := openssl(t, "req", "-in", file(name+".csr"), "-noout", "-verify"); err != nil {
			t.Errorf("%s.csr: %s", name, out)
		}
	}
	if len(all) != 10 {
		t.Errorf("%d pairs, 10 are checked", len(all))
	}
	again, err := store.Set(ca, req)
	if err != nil || slices.ContainsFunc(again, func(w *pki.Written) bool { return !w.Kept }) {
		t.Errorf("a set that is there is left as it is: %v", err)
	}
}
