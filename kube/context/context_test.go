package context_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	kubecontext "github.com/holdfast-db/holdfast/kube/context"
)

func none(string) string { return "" }

func dev() kubecontext.Context {
	return kubecontext.Context{Name: "dev", Server: []string{"127.0.0.1:6443"}, CA: "ca.pem", Cert: "admin.pem", Key: "admin-key.pem"}
}

func TestWhatIsSavedIsLoadedAndIsOnePersonsAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "config")
	c := &kubecontext.Config{Current: "dev"}
	c.Set(dev())
	shop := dev()
	shop.Name, shop.Namespace = "shop", "shop"
	c.Set(shop)
	if err := c.Save(vfs.OS(), path, none); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	got, err := kubecontext.Load(vfs.OS(), path)
	if err != nil {
		t.Fatal(err)
	}
	x, err := got.Context("")
	if err != nil || x.Name != "dev" || x.Home() != "default" {
		t.Errorf("current is %+v, %v", x, err)
	}
	x, err = got.Context("shop")
	if err != nil || x.Home() != "shop" {
		t.Errorf("shop is %+v, %v", x, err)
	}
	if _, err = got.Context("prod"); !errors.Is(err, kubecontext.ErrUnknown) || err.Error() != `context "prod": there is no such context; there are dev, shop` {
		t.Error(err)
	}
}

func TestAFileThatIsWrongIsRefusedByName(t *testing.T) {
	const begin = "version: 1\ncontexts:\n- name: dev\n"
	const files = "  ca: ca.pem\n  cert: c.pem\n  key: k.pem\n"
	for text, want := range map[string]string{
		"":                                    "version 0: this program reads version 1",
		"version: 2\n":                        "version 2: this program reads version 1",
		"version: 1\nusers: []\n":             "yaml: unmarshal errors:\n  line 2: field users not found in type context.Config",
		begin + files:                         `context "dev": server names no host:port`,
		begin + "  server: [here]\n" + files:  `context "dev": server "here" is no host:port`,
		begin + "  server: ['a:1']\n":         `context "dev": ca is missing: a path, or the PEM text`,
		"version: 1\ncontexts:\n- server: []": "contexts[0]: it has no name",
		begin + "  server: ['a:1']\n" + files + "- name: dev\n  server: ['a:1']\n" + files: `context "dev" stands there twice`,
	} {
		path := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := kubecontext.Load(vfs.OS(), path)
		if !errors.Is(err, kubecontext.ErrFormat) || err.Error() != path+": not a file of contexts: "+want {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
}

func TestFilesOfAContextThatAreNotThereAreNamed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config")
	if _, err := kubecontext.Load(vfs.OS(), path); !errors.Is(err, kubecontext.ErrNoFile) {
		t.Error(err)
	}
	c := &kubecontext.Config{Current: "dev"}
	c.Set(dev())
	if err := c.Save(vfs.OS(), path, none); err != nil {
		t.Fatal(err)
	}
	loaded, err := kubecontext.Load(vfs.OS(), path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = loaded.Contexts[0].Dial(vfs.OS(), clock.Real())
	want := `context "dev": the context cannot be used: ca: ` + filepath.Join(dir, "ca.pem") + " does not exist"
	if !errors.Is(err, kubecontext.ErrFiles) || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestTheEnvironmentSaysWhereTheFileIs(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"HOME": "/people/ann"}, "/people/ann/.holdfast/config"},
		{map[string]string{"HOME": "/people/ann", "HOLDFAST_CONFIG": "/etc/x"}, "/etc/x"},
		{map[string]string{}, ""},
	} {
		got, err := kubecontext.DefaultPath(func(k string) string { return c.env[k] })
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%v: %q, %v", c.env, got, err)
		}
	}
}
