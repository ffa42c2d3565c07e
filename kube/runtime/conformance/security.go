package conformance

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Numbers of capabilities, as in capability.h.
const (
	capChown     = 0
	capNetAdmin  = 12
	capNetRaw    = 13
	capSysAdmin  = 21
	capSysModule = 16
)

// has reports whether a set of capabilities as in /proc/self/status has one.
func (s *scene) has(r *report, set string, capability int) bool {
	s.Helper()
	n, err := strconv.ParseUint(r.Status[set], 16, 64)
	s.ok(err)
	return n>>capability&1 == 1
}

func securityCases() []test {
	user := func(c *runtime.ContainerSpec) {
		c.Security.User, c.Security.Group, c.Security.Groups = number[int64](4321), number[int64](5432), []int64{7, 8}
	}
	without := func(c *runtime.ContainerSpec) { c.Security.DropCapabilities = []string{"ALL"} }
	return []test{
		{name: "a container runs as the user and with the groups that it names", isolated: true, demand: user, run: func(s *scene) {
			r := s.reports(user)
			s.equal("user and group", fmt.Sprint(r.UID, r.GID), "4321 5432")
			for _, g := range []int{7, 8} {
				if !slices.Contains(r.Groups, g) {
					s.Errorf("groups %v without %d", r.Groups, g)
				}
			}
			s.equal("effective capabilities", r.Status["CapEff"], "0000000000000000")
		}},
		{name: "a container runs as the user of its image", isolated: true, run: func(s *scene) {
			r := s.reports(func(c *runtime.ContainerSpec) { c.Image = s.setup.Images.WithUser })
			s.equal("user and group", fmt.Sprint(r.UID, r.GID), "1234 2345")
			r = s.reports(func(c *runtime.ContainerSpec) { c.Image = s.setup.Images.WithName })
			s.equal("user and group by name", fmt.Sprint(r.UID, r.GID), "777 888")
		}},
		{name: "a container that must not be root is refused as root", isolated: true, run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "wait")
			c.Security.NonRoot = true
			_, err := s.engine.Start(s.ctx, c)
			s.wraps(err, runtime.ErrInvalid)
			c.Image = s.setup.Images.WithUser
			s.ready(c)
		}},
		{name: "a container has the usual capabilities and no others", isolated: true, run: func(s *scene) {
			r := s.reports(func(*runtime.ContainerSpec) {})
			for _, set := range []string{"CapEff", "CapBnd"} {
				s.equal(set+" has CHOWN", s.has(r, set, capChown), true)
				for _, c := range []int{capSysAdmin, capSysModule, capNetAdmin} {
					s.equal(fmt.Sprint(set, " has ", c), s.has(r, set, c), false)
				}
			}
		}},
		{name: "capabilities are dropped", isolated: true, demand: without, run: func(s *scene) {
			r := s.reports(without)
			for _, set := range []string{"CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"} {
				s.equal(set, r.Status[set], "0000000000000000")
			}
		}},
	}
}

func privilegeCases() []test {
	with := func(c *runtime.ContainerSpec) { c.Security.AddCapabilities = []string{"NET_ADMIN"} }
	readOnly := func(c *runtime.ContainerSpec) { c.Security.ReadOnlyRoot = true }
	return []test{
		{name: "one capability is dropped and another added", isolated: true, demand: with, run: func(s *scene) {
			r := s.reports(func(c *runtime.ContainerSpec) {
				with(c)
				c.Security.DropCapabilities = []string{"NET_RAW"}
			})
			s.equal("NET_ADMIN", s.has(r, "CapEff", capNetAdmin), true)
			s.equal("NET_RAW", s.has(r, "CapBnd", capNetRaw), false)
			s.equal("CHOWN", s.has(r, "CapEff", capChown), true)
		}},
		{name: "a container that lacks a capability cannot do what it permits", isolated: true, run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "call", "chown", "/tmp")
			s.equal("with it", s.output(pod, c), "done\n")
			c = s.spec(pod, "call", "chown", "/tmp")
			s.named(pod, c, "without", 0)
			c.Security.DropCapabilities = []string{"CHOWN"}
			s.equal("exit code without it", s.ended(pod, s.start(c)).ExitCode, 1)
		}},
		{name: "a process gains no privileges unless it may", isolated: true, run: func(s *scene) {
			s.equal("no_new_privs", s.reports(func(*runtime.ContainerSpec) {}).Status["NoNewPrivs"], "1")
			s.equal("no_new_privs where it may", s.reports(func(c *runtime.ContainerSpec) { c.Security.MayGainPrivileges = true }).Status["NoNewPrivs"], "0")
		}},
		{name: "system calls are filtered unless it is not wanted", isolated: true, run: func(s *scene) {
			s.equal("the filter", s.reports(func(*runtime.ContainerSpec) {}).Status["Seccomp"], "2")
			s.equal("the filter where it is not wanted", s.reports(func(c *runtime.ContainerSpec) { c.Security.UnfilteredSyscalls = true }).Status["Seccomp"], "0")
			pod := s.pod()
			c := s.spec(pod, "call", "keyctl")
			s.equal("exit code of keyctl", s.ended(pod, s.start(c)).ExitCode, 1)
			c = s.spec(pod, "call", "keyctl")
			s.named(pod, c, "unfiltered", 0)
			c.Security.UnfilteredSyscalls = true
			s.equal("keyctl where it is not filtered", s.output(pod, c), "done\n")
		}},
		{name: "a container cannot mount", isolated: true, run: func(s *scene) {
			pod := s.pod()
			s.equal("exit code", s.ended(pod, s.start(s.spec(pod, "call", "mount"))).ExitCode, 1)
		}},
		{name: "a root that is read only cannot be written, but mounts can", isolated: true, demand: readOnly, run: func(s *scene) {
			pod := s.pod()
			_, mount := s.mounted(pod)
			c := s.spec(pod, "write", "/etc/new", "x")
			readOnly(c)
			c.Mounts = []runtime.Mount{mount}
			s.equal("exit code", s.ended(pod, s.start(c)).ExitCode, 1)
			if got := text(c.Log, "stderr"); !strings.Contains(got, "read-only") {
				s.Errorf("it says %q", got)
			}
			c = s.spec(pod, "write", "/data/new", "x")
			s.named(pod, c, "mount", 0)
			readOnly(c)
			c.Mounts = []runtime.Mount{mount}
			s.output(pod, c)
		}},
	}
}
