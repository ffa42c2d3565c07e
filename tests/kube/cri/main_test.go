// Package cri_test runs pods on the containerd of Debian, in namespaces of its own:
// with the suite that all engines pass, and what only this engine has.
package cri_test

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideVariable is of the environment of the process that runs the tests. It is the name
// of the node, and so that of its cgroup.
const insideVariable = "HOLDFAST_CRI_TEST_NODE"

// TestMain runs the tests in a process with a network, mounts and process numbers of its
// own: containerd makes interfaces, network namespaces below /run/netns and processes that
// outlive it, and none of that shall touch the machine. All of it ends with that process;
// only cgroups are removed afterwards.
func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) != "" {
		if err := settle(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if missing() != "" {
		os.Exit(m.Run()) // The tests say why they cannot.
	}
	b := make([]byte, 4)
	rand.Read(b)
	node := "cri-test-" + hex.EncodeToString(b)
	runtime.LockOSThread() // The signal at the end is sent when this thread ends.
	// Cases wait more than they work. What the command line says counts more.
	cmd := exec.Command("/proc/self/exe", append([]string{"-test.parallel=6"}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), insideVariable+"="+node)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Run()
	removeCgroups("holdfast-" + node)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// settle makes the new namespaces usable.
func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	wire := netlink.NewVeth(netlink.LinkAttrs{Name: "wire"})
	wire.PeerName = "nowhere"
	if err := netlink.LinkAdd(wire); err != nil {
		return err
	}
	at, _ := netlink.ParseAddr(nodeAddress + "/24")
	return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(wire, at), netlink.LinkSetUp(wire))
}

// nodeAddress is that of the machine that these tests have to themselves.
const nodeAddress = "192.0.2.1"

// missing is what this machine lacks for a runtime; empty: nothing.
func missing() string {
	if os.Getuid() != 0 {
		return "this test needs root: containerd makes namespaces"
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc", "ctr"} {
		if _, err := exec.LookPath(name); err != nil {
			return name + " is not installed (Debian: containerd, runc)"
		}
	}
	if _, err := os.Stat(plugins + "/ptp"); err != nil {
		return "the plugins of CNI are not installed (Debian: containernetworking-plugins)"
	}
	return ""
}

// plugins is where Debian has those of CNI.
const plugins = "/usr/lib/cni"

func need(t *testing.T) {
	t.Helper()
	why := missing()
	if why == "" {
		return
	}
	if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// removeCgroups removes those of a node in all hierarchies, from below.
func removeCgroups(node string) {
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + node)
	tops = append(tops, "/sys/fs/cgroup/"+node)
	for _, top := range tops {
		var dirs []string
		filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.HasPrefix(path, top) {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			if err := os.Remove(dir); err != nil {
				fmt.Fprintln(os.Stderr, "left:", err)
			}
		}
	}
}
