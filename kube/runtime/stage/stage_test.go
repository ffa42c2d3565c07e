//go:build linux

package stage

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUserIsWhoTheImageKnows(t *testing.T) {
	passwd := "# users\nroot:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/srv:/bin/sh\nbad:x:many:0::/:\nshort:x:9\n2000:x:0:0:root again:/root:/bin/sh\n"
	group := "root:x:0:\nweb:x:1001:\nextra:x:1005:other,web\nlogs:x:1006:web\n2000:x:0:\n"
	n := func(i int64) *int64 { return &i }
	for _, c := range []struct {
		name   string
		rights Rights
		want   identity
	}{
		{"nobody said: root", Rights{}, identity{0, 0, nil, "/root"}},
		{"by name, with the groups of that name", Rights{ImageUser: "web"}, identity{1000, 1001, []int{1005, 1006}, "/srv"}},
		{"by number, known", Rights{ImageUser: "1000"}, identity{1000, 1001, []int{1005, 1006}, "/srv"}},
		{"by number, unknown", Rights{ImageUser: "77"}, identity{77, 0, nil, "/"}},
		{"with a group, no others", Rights{ImageUser: "web:extra"}, identity{1000, 1005, nil, "/srv"}},
		{"with a group's number", Rights{ImageUser: "77:88"}, identity{77, 88, nil, "/"}},
		{"the spec's user goes without the image's group", Rights{ImageUser: "root:extra", User: n(1000)}, identity{1000, 1001, []int{1005, 1006}, "/srv"}},
		{"the spec's group", Rights{ImageUser: "web", Group: n(5)}, identity{1000, 5, nil, "/srv"}},
		{"a number is not the root whom the image calls so", Rights{User: n(2000), NonRoot: true}, identity{2000, 0, nil, "/"}},
		{"nor is a group's", Rights{User: n(77), Group: n(2000)}, identity{77, 2000, nil, "/"}},
		{"nor is that which the image names", Rights{ImageUser: "2000:2000"}, identity{2000, 2000, nil, "/"}},
		{"supplementary groups come on top", Rights{ImageUser: "web", Groups: []int64{7}}, identity{1000, 1001, []int{1005, 1006, 7}, "/srv"}},
	} {
		got, err := who(&c.rights, passwd, group)
		if err != nil || got.uid != c.want.uid || got.gid != c.want.gid || got.home != c.want.home || !slices.Equal(got.groups, c.want.groups) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
	for name, r := range map[string]Rights{
		"absent": {ImageUser: "absent"}, "group": {ImageUser: "web:absent"}, "number": {ImageUser: "bad"}, "range": {ImageUser: "4294967295"},
		"negative": {User: n(-1)}, "root": {NonRoot: true}, "supplementary": {Groups: []int64{-1}},
	} {
		if got, err := who(&r, passwd, group); err == nil || err.(*Failure).Kind != Invalid {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestCapabilitiesAreTheUsualOnesWithoutSomeAndWithOthers(t *testing.T) {
	for _, c := range []struct {
		add, drop string
		bits      uint64
	}{
		{"", "", 0xa80425fb},
		{"", "ALL", 0},
		{"net_admin CAP_CHOWN", "ALL", 1<<12 | 1},
		{"ALL", "", 1<<41 - 1},
		{"ALL", "CHOWN", 1<<41 - 1},
		{"", "NET_RAW MKNOD", 0xa80425fb &^ (1<<13 | 1<<27)},
	} {
		got, err := Capabilities(strings.Fields(c.add), strings.Fields(c.drop))
		if err != nil || capabilityBits(got) != c.bits {
			t.Errorf("add %q, drop %q: %x, %v", c.add, c.drop, capabilityBits(got), err)
		}
	}
	if _, err := Capabilities([]string{"FLY"}, nil); err == nil {
		t.Error("there is a capability FLY")
	}
}

// ask runs a filter as the kernel does, on its own few instructions.
func ask(t *testing.T, code []unix.SockFilter, arch, call uint32, args ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.LittleEndian.PutUint32(data[offsetCall:], call)
	binary.LittleEndian.PutUint32(data[offsetArch:], arch)
	for i, a := range args {
		binary.LittleEndian.PutUint64(data[offsetArg0+8*i:], a)
	}
	var loaded uint32
	for at := 0; at < len(code); at++ {
		x := code[at]
		var yes bool
		switch x.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			loaded = binary.LittleEndian.Uint32(data[x.K:])
			continue
		case unix.BPF_RET | unix.BPF_K:
			return x.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			yes = loaded == x.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			yes = loaded > x.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			yes = loaded&x.K != 0
		default:
			t.Fatalf("instruction %d: code %x", at, x.Code)
		}
		if yes {
			at += int(x.Jt)
		} else {
			at += int(x.Jf)
		}
	}
	t.Fatal("the filter has no end")
	return 0
}

func TestFilterAnswersEachCallAsItShould(t *testing.T) {
	if machine == 0 {
		t.Skip("no filter for this machine")
	}
	usualBits, admin := capabilityBits(usual), capabilityBits(append([]string{"SYS_ADMIN"}, usual...))
	for _, c := range []struct {
		what string
		caps uint64
		arch uint32
		call uint32
		arg  uint64
		want uint32
	}{
		{"read", usualBits, machine, unix.SYS_READ, 0, allowCall},
		{"execve", usualBits, machine, unix.SYS_EXECVE, 0, allowCall},
		{"setresuid", usualBits, machine, unix.SYS_SETRESUID, 0, allowCall},
		{"mount", usualBits, machine, unix.SYS_MOUNT, 0, denyCall},
		{"mount, with SYS_ADMIN", admin, machine, unix.SYS_MOUNT, 0, allowCall},
		{"bpf, with SYS_ADMIN", admin, machine, unix.SYS_BPF, 0, allowCall},
		{"keyctl, with SYS_ADMIN", admin, machine, unix.SYS_KEYCTL, 0, denyCall},
		{"io_uring", usualBits, machine, unix.SYS_IO_URING_SETUP, 0, denyCall},
		{"init_module", admin, machine, unix.SYS_INIT_MODULE, 0, denyCall},
		{"clone of a thread", usualBits, machine, unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_THREAD, allowCall},
		{"clone with a user namespace", usualBits, machine, unix.SYS_CLONE, unix.CLONE_NEWUSER, denyCall},
		{"clone with a namespace, with SYS_ADMIN", admin, machine, unix.SYS_CLONE, unix.CLONE_NEWNS, allowCall},
		{"clone3", usualBits, machine, unix.SYS_CLONE3, 0, noCall},
		{"personality of linux", usualBits, machine, unix.SYS_PERSONALITY, 0, allowCall},
		{"personality, asked", usualBits, machine, unix.SYS_PERSONALITY, 0xffffffff, allowCall},
		{"personality without randomness", usualBits, machine, unix.SYS_PERSONALITY, 0x40000, denyCall},
		{"socket", usualBits, machine, unix.SYS_SOCKET, unix.AF_INET, allowCall},
		{"socket to the host of this machine", usualBits, machine, unix.SYS_SOCKET, unix.AF_VSOCK, denyCall},
		{"a call that nobody knows yet", usualBits, machine, lastCall + 1, 0, noCall},
		{"a call of the x32 form", usualBits, machine, 0x40000000, 0, noCall},
		{"a call of another machine", usualBits, machine ^ 1, unix.SYS_READ, 0, noCall},
	} {
		if got := ask(t, program(c.caps), c.arch, c.call, c.arg); got != c.want {
			t.Errorf("%s: %x, want %x", c.what, got, c.want)
		}
	}
}
