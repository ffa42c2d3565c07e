package main

import (
	"bytes"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/contexts"
)

func TestWhatCannotBeIsRefusedWithItsMend(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--scheduler-profile fast", exitFailed, "use spread or binpack"},
		{"--pod-range here", exitFailed, "--pod-range"},
		{"--initial-cluster nonsense", exitFailed, "NAME=URL"},
		{"--log-level loud", exitFailed, "loud"},
		{"", exitFailed, "holdfastctl certs set"},
		{"--nonsense", exitUsage, "unknown flag"},
		{"stray", exitUsage, "unknown command"},
		{"dev --sim-nodes -1", exitUsage, "--sim-nodes"},
		{"dev --listen-api nowhere", exitFailed, "--listen-api"},
	} {
		var out bytes.Buffer
		code := run(t.Context(), strings.Fields(c.args), &out, &out)
		if code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("controlplane %s: exit %d, %q; want %d, %q", c.args, code, out.String(), c.code, c.says)
		}
	}
}

func TestTheContextFileBelongsToWhoCalledSudo(t *testing.T) {
	if os.Geteuid() != 0 { // Then no file can be given away, and SUDO_UID means nothing.
		o, err := ownerOf([]string{"HOME=/home/ann", "SUDO_UID=0"})
		if err != nil || o.home != "/home/ann" || o.uid != -1 {
			t.Errorf("owner %+v, %v", o, err)
		}
		return
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	o, err := ownerOf([]string{"HOME=/root", "SUDO_UID=" + nobody.Uid})
	if err != nil || o.home != nobody.HomeDir {
		t.Fatalf("owner %+v, %v", o, err)
	}
	path := filepath.Join(t.TempDir(), ".holdfast", "config")
	for _, name := range []string{"a", "b"} {
		if err := o.write(path, contexts.Context{Name: name, Servers: []string{"127.0.0.1:1"}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{path, filepath.Dir(path)} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; int(got) != o.uid {
			t.Errorf("%s is of user %d", p, got)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", p, info.Mode())
		}
	}
	f, err := contexts.Read(vfs.OS(), path)
	if err != nil || len(f.Contexts) != 2 || f.CurrentContext != "b" {
		t.Errorf("file %+v, %v", f, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	if err := o.write(path, contexts.Context{Name: "c"}); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link is written through: %v", err)
	}
}
