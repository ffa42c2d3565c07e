//go:build linux

package native_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func TestLinksOfAnImageLeadNowhereOutside(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	outside, volume := t.TempDir(), t.TempDir()
	write(t, filepath.Join(volume, "f"), "volume\n")
	for name, to := range map[string]string{"abs": outside, "up": "../../../../../../../../.." + outside, "etc/hosts": filepath.Join(outside, "hosts")} {
		if err := os.Symlink(to, filepath.Join(n.layer, name)); err != nil {
			t.Fatal(err)
		}
	}
	spec := n.sh("u1", "c", "cat /abs/data/f /up/deep/f; grep -c localhost /etc/hosts")
	spec.Mounts = []runtime.Mount{{Source: volume, Target: "/abs/data"}, {Source: volume, Target: "/up/deep"}}
	c, got := n.run(spec)
	if c.ExitCode != 0 || got != "volume\nvolume\n2\n" {
		t.Errorf("%+v\n%s", c, got)
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("made outside: %v", left)
	}
}

func TestWorkingFolderCannotBeOneOfTheNode(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	for fd := range 16 {
		spec := n.sh("u1", "c", "cat ../../../../../../etc/shadow; cat /proc/self/cwd/../../../etc/shadow; pwd")
		spec.WorkingDir = fmt.Sprintf("/proc/self/fd/%d", fd)
		spec.Attempt = fd
		spec.Log = strings.Replace(spec.Log, "0.log", strconv.Itoa(fd)+".log", 1)
		id, err := n.Start(t.Context(), spec)
		if err != nil {
			continue // As it should: no folder, or none of the container.
		}
		if n.untilExit(id); strings.Contains(n.log(spec), "root:") {
			t.Errorf("descriptor %d leads to the node:\n%s", fd, n.log(spec))
		}
	}
}

func TestRootOfAContainerHasNoneOfTheNode(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", `
		try() { "$@" >/dev/null 2>&1 && echo "could: $*"; }
		try mount -t tmpfs none /tmp
		try umount /proc
		try unshare -m true
		try unshare -U true
		try touch /proc/sys/kernel/hostname
		try sh -c 'echo x >/proc/sysrq-trigger'
		try sh -c 'echo 1 >/sys/kernel/mm/ksm/run'
		try sh -c 'dd if=/proc/kcore bs=1 count=1 | grep -q .'
		try dmesg
		try hostname other
		mknod /tmp/disk b 254 0 && try dd if=/tmp/disk of=/dev/null bs=1 count=1
		mknod /dev/disk b 254 0 && try dd if=/dev/disk of=/dev/null bs=1 count=1
		mknod /dev/shm/disk b 254 0 && try dd if=/dev/shm/disk of=/dev/null bs=1 count=1
		ls /sys/firmware | wc -l
		cat /proc/1/oom_score_adj
		echo end`)
	spec.Security.MayGainPrivileges = true
	c, got := n.run(spec)
	if c.ExitCode != 0 || strings.Contains(got, "could") || !strings.HasPrefix(got, "0\n") || !strings.HasSuffix(got, "end\n") {
		t.Errorf("%+v\n%s", c, got)
	}
}

func TestCapabilitiesAndFilterFollowTheSpec(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	for i, c := range []struct {
		change func(s *runtime.Security)
		want   string
	}{
		{func(*runtime.Security) {}, "CapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n"},
		{func(s *runtime.Security) { s.MayGainPrivileges = true }, "CapBnd:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n"},
		{func(s *runtime.Security) { s.DropCapabilities = []string{"ALL"} }, "CapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"},
		{func(s *runtime.Security) {
			s.DropCapabilities, s.AddCapabilities, s.UnfilteredSyscalls = []string{"ALL"}, []string{"NET_ADMIN", "CAP_CHOWN"}, true
		}, "CapBnd:\t0000000000001001\nNoNewPrivs:\t1\nSeccomp:\t0\n"},
	} {
		spec := n.sh("u1", "c", `grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status`)
		spec.Name = "c" + strconv.Itoa(i)
		spec.Log = strings.Replace(spec.Log, "/c/", "/"+spec.Name+"/", 1)
		c.change(&spec.Security)
		if _, got := n.run(spec); got != c.want {
			t.Errorf("got\n%swant\n%s", got, c.want)
		}
	}
}

func TestVolumeAtProcDoesNotSayWhichCapabilitiesThereAre(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	volume := t.TempDir()
	write(t, filepath.Join(volume, "cap_last_cap"), "0\n")
	spec := n.sh("u1", "c", `cat /proc/sys/kernel/cap_last_cap; grep CapBnd /proc/self/status`)
	spec.Security.MayGainPrivileges = true
	spec.Mounts = []runtime.Mount{{Source: volume, Target: "/proc/sys/kernel"}}
	if _, got := n.run(spec); got != "0\nCapBnd:\t00000000a80425fb\n" {
		t.Errorf("got\n%s", got)
	}
}

func TestPodHasANetworkOfItsOwnThatCanBeDialled(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", `ip addr | grep -c UP; echo up; while :; do echo hello | nc -l -p 8080; done`)
	n.start(spec)
	n.waitLog(spec, "up")
	if got := n.log(spec); got != "1\nup\n" {
		t.Errorf("interfaces: %s", got)
	}
	var got []byte
	deadline := time.Now().Add(time.Minute)
	for !bytes.Equal(got, []byte("hello\n")) && time.Now().Before(deadline) {
		conn, err := n.Dial(t.Context(), "u1", 8080)
		if err != nil {
			continue // It does not listen yet.
		}
		got = make([]byte, 6)
		_, _ = conn.Read(got)
		conn.Close()
	}
	if string(got) != "hello\n" {
		t.Errorf("read %q", got)
	}
	if conn, err := net.DialTimeout("tcp", "127.0.0.1:8080", time.Second); err == nil {
		conn.Close()
		t.Error("the port is the node's")
	}
}

func TestProgramOfASupervisorIsReadOnlyForItsContainers(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	link := fmt.Sprintf("/proc/%d/exe", supervisorOf(t, n, "u1"))
	if fd, err := unix.Open(link, unix.O_WRONLY, 0); err == nil {
		unix.Close(fd)
		t.Error("opened for writing")
	}
}

func TestVolumeThatIsReadOnlyIsSoAllTheWayDown(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	volume := t.TempDir()
	write(t, filepath.Join(volume, "f"), "x\n")
	spec := n.sh("u1", "c", `exec 2>&1; cat /v/f; echo y >/v/f; touch /v/g; echo z >/w/f && cat /v/f; mknod /w/disk b 254 0; dd if=/w/disk of=/dev/null count=1; mount | grep -c ' /v '`)
	spec.Mounts = []runtime.Mount{{Source: volume, Target: "/v", ReadOnly: true}, {Source: volume, Target: "/w"}}
	_, got := n.run(spec)
	want := "x\nsh: can't create /v/f: Read-only file system\ntouch: /v/g: Read-only file system\nz\ndd: can't open '/w/disk': Permission denied\n1\n"
	if got != want {
		t.Errorf("got\n%s", got)
	}
}

// A mount that is read-only does not keep a device from being written, so that it is closed.
func TestOnlyADeviceThatIsAskedForCanBeOpened(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	dir := t.TempDir()
	made := filepath.Join(dir, "made")
	if err := unix.Mknod(made, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(made, 0o666); err != nil {
		t.Fatal(err)
	}
	spec := n.sh("u1", "c", `for d in /asked /ro /plain /folder/made; do if echo x 2>/dev/null >$d; then echo "$d opens"; fi; done; mknod /node c 1 3 && ! echo x 2>/dev/null >/node && echo closed`)
	spec.Mounts = []runtime.Mount{
		{Source: made, Target: "/asked", Device: true}, {Source: made, Target: "/ro", Device: true, ReadOnly: true},
		{Source: made, Target: "/plain"}, {Source: dir, Target: "/folder", Device: true},
	}
	if c, got := n.run(spec); got != "/asked opens\nclosed\n" {
		t.Errorf("%+v\n%s", c, got)
	}
}

func TestGroupOfAPodThatNobodyKnowsIsRemovedAtTheNextStart(t *testing.T) {
	n := newNode(t)
	n.open("u1")
	spec := n.sh("u1", "c", "echo up; sleep 60")
	id := n.start(spec)
	n.waitLog(spec, "up")
	stray := strings.Replace(groupsOf(t, n, "podu1")[0], "podu1", "podstray", 1)
	if err := os.MkdirAll(filepath.Join(stray, "c.0"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.restart()
	if _, err := os.Stat(stray); !os.IsNotExist(err) {
		t.Errorf("%s is there: %v", stray, err)
	}
	if c := n.find(id); c.Phase != runtime.Running {
		t.Errorf("the pod that is known: %+v", c)
	}
}

// groupsOf are the groups of a pod, in all hierarchies.
func groupsOf(t *testing.T, n *node, pod string) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"/sys/fs/cgroup/*/holdfast-", "/sys/fs/cgroup/holdfast-"} {
		found, _ := filepath.Glob(pattern + n.name + "/*/" + pod)
		all = append(all, found...)
	}
	if len(all) == 0 {
		t.Fatal("the pod has no groups")
	}
	return all
}
