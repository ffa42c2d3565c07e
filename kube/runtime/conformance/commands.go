package conformance

import (
	"slices"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// secretVariable is set where the engine runs.
const secretVariable = "CONFORMANCE_OF_THE_KUBELET"

func commandCases() []test {
	// args is a case of what becomes of commands.
	args := func(name string, change func(s *scene, c *runtime.ContainerSpec), want ...string) test {
		return test{name: name, run: func(s *scene) {
			r := s.reports(func(c *runtime.ContainerSpec) { change(s, c) })
			s.equal("arguments", r.Args[1:], want)
		}}
	}
	return []test{
		args("without a command the image's entry point and command run", func(_ *scene, c *runtime.ContainerSpec) { c.Args = nil }, "report", "by", "the", "image"),
		args("arguments replace the image's command", func(_ *scene, c *runtime.ContainerSpec) { c.Args = []string{"report", "one", "two words"} }, "report", "one", "two words"),
		args("a command replaces the image's entry point and its command", func(s *scene, c *runtime.ContainerSpec) {
			c.Command, c.Args = []string{s.setup.Files.Program, "report"}, nil
		}, "report"),
		args("a command gets the arguments", func(s *scene, c *runtime.ContainerSpec) {
			c.Command, c.Args = []string{s.setup.Files.Program, "report"}, []string{"", "$HOME", "*"}
		}, "report", "", "$HOME", "*"),
		{name: "the environment is that of the image, then that of the container, whose last value of a name counts", run: func(s *scene) {
			r := s.reports(func(c *runtime.ContainerSpec) {
				c.Env = append(c.Env, "FROM=first", "NEW=a b=c", "FROM=last", "EMPTY=")
			})
			s.equal("FROM", r.env("FROM"), "last")
			s.equal("KEPT", r.env("KEPT"), "yes")
			s.equal("NEW", r.env("NEW"), "a b=c")
			s.equal("that EMPTY is there", slices.Contains(r.Env, "EMPTY="), true)
		}},
		{name: "the variables of the kubelet do not reach a container", run: func(s *scene) {
			r := s.reports(func(*runtime.ContainerSpec) {})
			s.equal("it", r.env(secretVariable), "")
		}},
		{name: "a container works in the folder of its image", isolated: true, run: func(s *scene) {
			s.equal("folder", s.reports(func(*runtime.ContainerSpec) {}).Dir, "/work")
		}},
		{name: "a container works in the folder that it names", isolated: true, run: func(s *scene) {
			s.equal("folder", s.reports(func(c *runtime.ContainerSpec) { c.WorkingDir = "/data" }).Dir, "/data")
		}},
		{name: "a folder to work in that is not there is made", isolated: true, run: func(s *scene) {
			s.equal("folder", s.reports(func(c *runtime.ContainerSpec) { c.WorkingDir = "/not/yet" }).Dir, "/not/yet")
		}},
		{name: "a command without a folder is looked for in PATH", isolated: true, run: func(s *scene) {
			name := s.setup.Files.Program[len("/bin/"):]
			s.equal("arguments", s.reports(func(c *runtime.ContainerSpec) { c.Command = []string{name} }).Args[1:], []string{"report"})
		}},
	}
}
