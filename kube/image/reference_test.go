package image

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func TestNamesOfImagesAreReadAsDockerReadsThem(t *testing.T) {
	hash := "sha256:" + strings.Repeat("0a", 32)
	for text, want := range map[string]string{
		"nginx":                              "docker.io/library/nginx:latest",
		"nginx:1.27":                         "docker.io/library/nginx:1.27",
		"team/app":                           "docker.io/team/app:latest",
		"docker.io/nginx":                    "docker.io/library/nginx:latest",
		"index.docker.io/team/app:v1":        "docker.io/team/app:v1",
		"localhost/app":                      "localhost/app:latest",
		"localhost:5000/app":                 "localhost:5000/app:latest",
		"127.0.0.1:5000/a/b/c:X_y.z-1":       "127.0.0.1:5000/a/b/c:X_y.z-1",
		"[::1]:5000/app":                     "[::1]:5000/app:latest",
		"quay.io/team/app@" + hash:           "quay.io/team/app@" + hash,
		"quay.io/team/app:v1@" + hash:        "quay.io/team/app@" + hash,
		"a--b/c__d/e.f":                      "docker.io/a--b/c__d/e.f:latest",
		"registry.example.com:443/deep/path": "registry.example.com:443/deep/path:latest",
	} {
		got, err := Parse(text)
		if err != nil || got.String() != want {
			t.Errorf("%q is %v, error %v, want %s", text, got, err, want)
		}
		if again, err := Parse(got.String()); err != nil || again.String() != want {
			t.Errorf("%q read again is %v, error %v", got, again, err)
		}
	}
	for _, text := range []string{
		"", " ", "Nginx", "nginx:", "nginx:a b", "nginx:.x", "nginx@", "nginx@sha256:12", "nginx@md5:" + strings.Repeat("0", 32), "nginx@" + strings.ToUpper(hash),
		"/nginx", "nginx/", "a//b", "../b", "a/../b", "a/.b", "a_.b", "-a", "http://a/b", "a/b?c", "localhost:x/app", "localhost:123456/a", "a\x00b", "ü",
		strings.Repeat("a", 256), "nginx:" + strings.Repeat("a", 129), "[::1/app", "ho_st.com/app", "builtin/Demo",
	} {
		got, err := Parse(text)
		if !errors.Is(err, ErrName) || !errors.Is(err, runtime.ErrImage) {
			t.Errorf("%q is %v, error %v", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("nginx:1@sha256:00")
	f.Add("localhost:5000/a/b")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again.String() != r.String() {
			t.Errorf("%q is %q, then %q, error %v", text, r, again, err)
		}
		if strings.Contains(r.Repository, "..") || strings.ContainsAny(r.Name(), " \\%?#\x00") {
			t.Errorf("%q has the repository %q", text, r.Repository)
		}
	})
}

func TestLoginsAreFoundByRegistryTheClosestFirst(t *testing.T) {
	logins, err := ParseLogins([]byte(`{"auths": {
		"https://index.docker.io/v1/": {"auth": "dXNlcjpwYTpzcw=="},
		"ghcr.io": {"username": "all", "password": "1"},
		"ghcr.io/team": {"username": "team", "password": "2"},
		"localhost:5000": {"username": "l", "password": "3"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for image, want := range map[string]string{
		"nginx": "user pa:ss", "ghcr.io/team/app": "team 2,all 1", "ghcr.io/teams/app": "all 1", "localhost:5000/x": "l 3", "quay.io/x/y": "",
	} {
		ref, err := Parse(image)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range logins.For(ref) {
			got = append(got, l.User+" "+l.Password)
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%s gets %q, want %q", image, got, want)
		}
	}
	if logins, err := ParseLogins([]byte(`{"ghcr.io": {"username": "old", "password": "form"}}`)); err != nil || len(logins) != 1 || logins[0].User != "old" {
		t.Errorf("a .dockercfg is %v, error %v", logins, err)
	}
	for _, wrong := range []string{"", "secret", `{"auths": 3}`, `{"auths": {"a": {"auth": "secret"}}}`} {
		if _, err := ParseLogins([]byte(wrong)); err == nil || strings.Contains(err.Error(), "secret\"") {
			t.Errorf("%q: error %v", wrong, err)
		}
	}
}
