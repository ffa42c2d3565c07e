package context

import (
	"os"
	"os/user"
	"path/filepath"
	"testing"
)

func TestUnderSudoTheFileIsThatOfWhoCalledIt(t *testing.T) {
	someone, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOME": "/roots", "SUDO_UID": someone.Uid}
	want := "/roots/.holdfast/config" // Who is not root only says so.
	if os.Geteuid() == 0 {
		want = filepath.Join(someone.HomeDir, ".holdfast", "config")
	}
	if got, err := DefaultPath(func(k string) string { return env[k] }); err != nil || got != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	for _, uid := range []string{"0", "", "x", "99999999"} {
		env["SUDO_UID"] = uid
		if got, err := DefaultPath(func(k string) string { return env[k] }); err != nil || got != "/roots/.holdfast/config" {
			t.Errorf("SUDO_UID=%q: %s, %v", uid, got, err)
		}
	}
}

func TestOnlyWhatIsInAHomeIsGivenToItsOwner(t *testing.T) {
	for path, want := range map[string]bool{
		"/people/ann/.holdfast/config": true, "/people/ann": false, "/people/anna/config": false, "/etc/config": false, "/people/ann/../bob/config": false,
	} {
		if got := within("/people/ann", path); got != want {
			t.Errorf("%s: %t", path, got)
		}
	}
}
