// Package guest_test runs the native runtime's conformance on a machine that has cgroups
// of version 2 only, whatever this machine has: Debian's kernel in an emulated machine,
// whose only program is the test.
package guest_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// timeMax is for an emulated machine, which is many times slower than a real one. Hardware
// virtualization is not asked for: where this machine is virtual itself it may hang.
const timeMax = 10 * time.Minute

func TestNativeRuntimeOnCgroupsOfVersion2(t *testing.T) {
	kernel, modules := needGuest(t)
	dir := t.TempDir()
	build(t, dir, "test", "test", "-c", "-ldflags=-s -w", "./kube/runtime/native")
	build(t, dir, "inside", "build", "-ldflags=-s -w", "./kube/runtime/conformance/inside")
	build(t, dir, "init", "build", "-ldflags=-s -w", "./tests/kube/guest/init")
	files := []file{{"init", filepath.Join(dir, "init")}, {"test", filepath.Join(dir, "test")}, {"inside", filepath.Join(dir, "inside")}}
	for _, m := range modules {
		files = append(files, file{"modules/" + filepath.Base(m), m})
	}
	must(t, os.WriteFile(filepath.Join(dir, "initrd"), archive(t, files), 0o600))
	out := boot(t, kernel, filepath.Join(dir, "initrd"), "-test.v", "-test.run=EveryEngine", "-test.timeout=3m30s", "-test.parallel=4")
	passed, failed := 0, 0
	for _, line := range out {
		if strings.Contains(line, "--- PASS: ") {
			passed++
		}
		if strings.Contains(line, "--- FAIL: ") {
			failed++
		}
	}
	t.Logf("%d passed, %d failed", passed, failed)
	if !slices.Contains(out, "guest: exit code 0") || failed > 0 || passed < 50 || !slices.ContainsFunc(out, isVersion2) {
		t.Errorf("the guest said\n%s", strings.Join(out, "\n"))
	}
}

func isVersion2(line string) bool {
	return strings.HasPrefix(line, "guest: cgroups of version 2 with") && strings.Contains(line, " memory") && strings.Contains(line, " pids")
}

// needGuest finds the kernel and the modules that it lacks otherwise.
func needGuest(t *testing.T) (kernel string, modules []string) {
	t.Helper()
	kernels, _ := filepath.Glob("/boot/vmlinuz-*")
	_, err := exec.LookPath("qemu-system-x86_64")
	why := ""
	switch {
	case err != nil:
		why = "qemu-system-x86_64 is not installed (Debian: qemu-system-x86)"
	case len(kernels) == 0:
		why = "there is no kernel in /boot (Debian: linux-image-amd64)"
	default:
		kernel = slices.Max(kernels)
		if modules, _ = filepath.Glob("/lib/modules/" + strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-") + "/kernel/fs/overlayfs/overlay.ko"); len(modules) == 1 {
			return kernel, modules
		}
		why = "the kernel " + kernel + " has no module overlay.ko"
	}
	if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
	return "", nil
}

// build makes a static program: the guest has no libraries.
func build(t *testing.T, dir, name, command string, args ...string) {
	t.Helper()
	last := len(args) - 1
	args = append([]string{command}, slices.Insert(args, last, "-o", filepath.Join(dir, name))...)
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join("..", "..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
}

// file is one of the archive, and where it comes from.
type file struct{ name, from string }

// archive packs files as the kernel unpacks them at its start: cpio, "newc".
func archive(t *testing.T, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	inode := 0
	add := func(name string, mode int, text []byte) {
		inode++
		pad := func() {
			for b.Len()%4 != 0 {
				b.WriteByte(0)
			}
		}
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", inode, mode, 0, 0, 1, 0, len(text), 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name + "\x00")
		pad()
		b.Write(text)
		pad()
	}
	add("modules", 0o040755, nil)
	add("dev", 0o040755, nil)
	for _, f := range files {
		text, err := os.ReadFile(f.from)
		must(t, err)
		add(f.name, 0o100755, text)
	}
	add("TRAILER!!!", 0, nil)
	return b.Bytes()
}

// boot runs the guest until it turns itself off, and returns what its console said.
func boot(t *testing.T, kernel, initrd string, args ...string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048", "-display", "none", "-nic", "none", "-no-reboot",
		"-monitor", "none", "-serial", "stdio", "-kernel", kernel, "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all mitigations=off guest="+strings.Join(args, ","))
	in, err := cmd.StdinPipe() // Open, or the console hangs up.
	must(t, err)
	defer in.Close()
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = cmd.Stdout
	must(t, cmd.Start())
	said := lines(t, out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("qemu: %v", err)
	}
	return said
}

// lines reads what is said, and passes it on at once for whoever waits.
func lines(t *testing.T, r io.Reader) []string {
	var all []string
	for in := bufio.NewScanner(r); in.Scan(); {
		all = append(all, strings.TrimSpace(in.Text()))
		fmt.Fprintln(t.Output(), all[len(all)-1])
	}
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
