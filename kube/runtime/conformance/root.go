package conformance

import (
	"os"
	"strings"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func rootCases() []test {
	return []test{
		{name: "a container sees its own processes only", isolated: true, run: func(s *scene) {
			pod := s.pod()
			other := s.spec(pod, "wait")
			s.named(pod, other, "other", 0)
			s.ready(other)
			r := s.parse(s.output(pod, s.spec(pod, "report")))
			s.equal("its number", r.PID, 1)
			c := s.spec(pod, "list", "/proc")
			s.named(pod, c, "list", 0)
			numbers := 0
			for _, name := range strings.Fields(s.output(pod, c)) {
				if strings.Trim(name, "0123456789") == "" {
					numbers++
				}
			}
			s.equal("processes that it sees", numbers, 1)
		}},
		{name: "a container sees the files of its image and none of the node", isolated: true, run: func(s *scene) {
			pod := s.pod()
			got := strings.Fields(s.output(pod, s.spec(pod, "list", "/")))
			for _, name := range got {
				if name == "root" || name == "usr" || name == "home" {
					s.Errorf("it sees /%s, in %v", name, got)
				}
			}
			c := s.spec(pod, "list", "/bin")
			s.named(pod, c, "bin", 0)
			s.equal("programs", s.output(pod, c), s.setup.Files.Program[len("/bin/"):]+" text\n")
		}},
		{name: "namespaces are those of the pod and the container, not of the node", isolated: true, run: func(s *scene) {
			pod := s.pod()
			a, b := s.spec(pod, "report"), s.spec(pod, "report")
			s.named(pod, b, "b", 0)
			inA, inB := s.parse(s.output(pod, a)).Namespaces, s.parse(s.output(pod, b)).Namespaces
			for _, name := range []string{"pid", "mnt", "uts", "ipc"} {
				own, err := os.Readlink("/proc/self/ns/" + name)
				s.ok(err)
				if inA[name] == own {
					s.Errorf("%s is the node's", name)
				}
			}
			s.equal("the shared name of the host and queues", inB["uts"]+inB["ipc"]+inB["net"], inA["uts"]+inA["ipc"]+inA["net"])
		}},
	}
}

func kernelCases() []test {
	return []test{
		{name: "what the kernel tells of the machine is masked, and its settings cannot be written", isolated: true, run: func(s *scene) {
			pod := s.pod()
			for i, args := range [][]string{
				{"write", "/proc/sys/kernel/hostname", "x"}, {"write", "/proc/sysrq-trigger", "h"}, {"write", "/sys/kernel/uevent_helper", "x"}, {"list", "/proc/acpi/button"},
			} {
				c := s.spec(pod, args...)
				s.named(pod, c, "c"+string(rune('0'+i)), 0)
				s.equal("exit code of "+strings.Join(args, " "), s.ended(pod, s.start(c)).ExitCode, 1)
			}
			for _, name := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
				if _, err := os.Stat(name); err != nil {
					continue // This kernel has none.
				}
				c := s.spec(pod, "read", name)
				s.named(pod, c, "read-"+strings.ReplaceAll(name[len("/proc/"):], "_", "-"), 0)
				s.equal("what "+name+" says", s.output(pod, c), "")
			}
		}},
		{name: "a container sees its own limits, where its node has cgroups of version 2", isolated: true, run: func(s *scene) {
			if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
				s.Log("this node has version 1, of which nothing is shown")
				return
			}
			pod := s.pod()
			c := s.spec(pod, "read", "/sys/fs/cgroup/memory.max")
			c.Resources.LimitMemoryBytes = 64 << 20
			s.equal("limit", s.output(pod, c), "67108864\n")
		}},
		{name: "a container has the devices that programs need, and no disks", isolated: true, run: func(s *scene) {
			pod := s.pod()
			names := s.output(pod, s.spec(pod, "list", "/dev"))
			for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx", "shm", "fd", "stdin", "stdout", "stderr"} {
				if !contains(names, name) {
					s.Errorf("no %s in %s", name, names)
				}
			}
			for _, name := range []string{"mem", "kmsg", "sda", "vda", "kvm", "fuse", "loop-control"} {
				if contains(names, name) {
					s.Errorf("%s in %s", name, names)
				}
			}
			c := s.spec(pod, "write", "/dev/null", "x")
			s.named(pod, c, "null", 0)
			c.Security.User = number[int64](99)
			s.output(pod, c)
			c = s.spec(pod, "write", "/dev/shm/x", "x")
			s.named(pod, c, "shm", 0)
			c.Security.User = number[int64](99)
			s.output(pod, c)
		}},
		{name: "a program that nobody may run is told as such", run: func(s *scene) {
			pod := s.pod()
			for i, command := range []string{"/bin/absent", "/bin/text"} {
				c := s.spec(pod)
				s.named(pod, c, "c"+string(rune('0'+i)), 0)
				c.Command = []string{command}
				_, err := s.engine.Start(s.ctx, c)
				s.wraps(err, runtime.ErrNoCommand)
				s.equal("containers", len(s.containers(pod)), 0)
				c.Command = nil
				c.Args = []string{"print", "mended"}
				s.equal("output of the same attempt, mended", s.output(pod, c), "mended\n")
				s.ok(s.engine.Close(s.ctx, pod.UID))
				pod = s.pod()
			}
		}},
	}
}
