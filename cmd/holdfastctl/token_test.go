package main

import (
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/kube/token"
)

func TestATokenIsPrintedOnceListedWithoutItsSecretAndRevoked(t *testing.T) {
	tt := newTerminal(t, nil)
	tt.must("certs", "ca")
	text := tt.must("token", "create", "--node", "n1", "--description", "rack 7", "--ttl", "1h")
	made, err := token.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(text, ".")[2]
	for _, form := range []string{"simple", "table", "json"} {
		list := tt.must("token", "list", "-w", form)
		if !strings.Contains(list, made.ID) || !strings.Contains(list, "rack 7") || strings.Contains(list, secret) {
			t.Errorf("%s: %s", form, list)
		}
	}
	tt.must("token", "revoke", strings.TrimSpace(text)) // Whoever has the whole token need not take it apart.
	if list := tt.must("token", "list"); list != "" {
		t.Errorf("still there: %s", list)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"token", "revoke", made.ID}, exitFailed, "no such token"},
		{[]string{"token", "revoke", "x"}, exitArguments, "8 letters"},
		{[]string{"token", "create", "--uses", "-1"}, exitArguments, "1 to 1000 times"},
		{[]string{"token", "create", "--node", "A"}, exitArguments, "lower case"},
		{[]string{"token", "create", "--dir", "nowhere"}, exitFailed, "--dir"},
	} {
		if _, stderr, code := tt.run(0, "", c.args...); code != c.code || !strings.Contains(stderr, c.want) || strings.Contains(stderr, secret) {
			t.Errorf("%q: code %d, %s", c.args, code, stderr)
		}
	}
}

func TestCertificatesThatEndSoonMakeTheCheckFail(t *testing.T) {
	tt := newTerminal(t, nil)
	tt.must("certs", "ca", "--dir", "c")
	tt.must("certs", "server", "--dir", "c")
	if out := tt.must("certs", "check", "--dir", "c"); strings.Count(out, "days left") != 2 {
		t.Errorf("list: %s", out)
	}
	tt.must("certs", "client", "--dir", "c", "--validity", "700h")
	stdout, stderr, code := tt.run(0, "", "certs", "check", "--dir", "c")
	if code != exitFailed || !strings.Contains(stdout, "c/client.pem  CN=client  (SOON, 29 days left)") || !strings.Contains(stderr, "1 of 3") {
		t.Errorf("code %d\n%s%s", code, stdout, stderr)
	}
	if _, stderr, code := tt.run(0, "", "certs", "check", "m0.test:2379"); code != exitConnection || !strings.Contains(stderr, "m0.test:2379") {
		t.Errorf("a server without TLS: code %d, %s", code, stderr)
	}
	if _, stderr, code := tt.run(0, "", "certs", "check", "--dir", "."); code != exitFailed || !strings.Contains(stderr, "no certificates") {
		t.Errorf("an empty folder: code %d, %s", code, stderr)
	}
}

func TestAnAuthorityIsRotatedFromTheCommandLine(t *testing.T) {
	tt := newTerminal(t, nil)
	tt.must("certs", "set", "--hosts", "10.0.0.1", "--node", "n1=10.0.0.7,n1.example.com")
	if again := tt.must("certs", "set", "--hosts", "10.0.0.1", "--node", "n1", "--node", "n2"); strings.Count(again, "written ") != 6 || strings.Count(again, "there ") != 10 {
		t.Errorf("a node more: %s", again)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"certs rotate-ca status", 0, "not rotating"},
		{"certs rotate-ca sign", exitArguments, "begin one"},
		{"certs rotate-ca begin", 0, "the old authority signs"},
		{"certs rotate-ca finish", exitArguments, "one at a time"},
		{"certs rotate-ca sign", 0, "the new authority signs"},
		{"certs renew", 0, "written server.pem"},
		{"certs rotate-ca finish", 0, "only the new authority is trusted"},
		{"certs rotate-ca back", 0, "the new authority signs"},
		{"certs issue --profile nope --cn x", exitArguments, `profile "nope"`},
		{"certs issue --profile client --csr nowhere.json", exitFailed, "nowhere.json"},
		{"certs issue --profile client --cn x --csr ca.csr", exitArguments, "give one of them"},
		{"certs issue --profile client --csr ca.csr", exitArguments, "certs sign --request"},
		{"certs issue --profile client --cn bob --organization ops --name bob", 0, "written bob.csr"},
		{"certs sign --request bob.csr --name again", 0, "written again.pem"},
		{"certs sign --request bob.pem", exitArguments, "is it a request"},
		{"certs sign", exitArguments, "--request"},
		{"certs renew ../x", exitArguments, "cannot name"},
	} {
		stdout, stderr, code := tt.run(0, "", strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("%s: code %d\n%s%s", c.args, code, stdout, stderr)
		}
	}
}
