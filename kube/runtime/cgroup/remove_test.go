package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// groups makes folders, which are removed as groups are, but for the files in groups.
func groups(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func there(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func TestWhatIsInTheWayOfOneGroupKeepsNoOtherAndIsNotTriedAgain(t *testing.T) {
	dir := groups(t, "a/stuck", "a/z/y", "b/c")
	if err := os.WriteFile(filepath.Join(dir, "a/stuck/file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := Remove([]string{filepath.Join(dir, "absent"), filepath.Join(dir, "a"), filepath.Join(dir, "b")}, func() bool { t.Error("tried again"); return false })
	if !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("got %v", err)
	}
	for name, want := range map[string]bool{"a": true, "a/stuck": true, "a/z": false, "b": false} {
		if there(filepath.Join(dir, name)) != want {
			t.Errorf("%s is there: %v", name, !want)
		}
	}
}

func TestABusyGroupIsTriedAgainAsLongAsItsOwnerWaits(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test needs root, to mount")
	}
	dir := groups(t, "a/busy", "a/z")
	busy := filepath.Join(dir, "a/busy")
	if err := unix.Mount("tmpfs", busy, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(busy, unix.MNT_DETACH) }()
	if err := Remove([]string{filepath.Join(dir, "a")}, func() bool { return false }); !errors.Is(err, unix.EBUSY) || there(filepath.Join(dir, "a/z")) {
		t.Errorf("got %v", err)
	}
	err := Remove([]string{filepath.Join(dir, "a")}, func() bool { return unix.Unmount(busy, 0) == nil })
	if err != nil || there(filepath.Join(dir, "a")) {
		t.Errorf("got %v", err)
	}
}
