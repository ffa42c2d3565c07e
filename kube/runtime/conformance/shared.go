package conformance

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// mounted makes a folder of a pod, with a file in it, and how a container gets it.
func (s *scene) mounted(pod *runtime.PodSpec) (string, runtime.Mount) {
	dir := filepath.Join(pod.Dir, "volume")
	must(s.T, os.MkdirAll(dir, 0o777))
	must(s.T, os.Chmod(dir, 0o777))
	must(s.T, os.WriteFile(filepath.Join(dir, "old"), []byte("from the node"), 0o644))
	return dir, runtime.Mount{Source: dir, Target: "/data"}
}

func sharedCases() []test {
	return []test{
		{name: "the containers of a pod reach each other at localhost", run: func(s *scene) {
			pod := s.pod()
			server, client := s.spec(pod, "serve", "127.0.0.1:0", "echo"), s.spec(pod, "open")
			s.named(pod, server, "server", 0)
			s.named(pod, client, "client", 0)
			s.ready(server)
			port := strings.Fields(s.says(server, "ready"))[1]
			client.Args = []string{"open", "127.0.0.1:" + port, "a line"}
			s.equal("answer", s.output(pod, client), "echo a line\n")
		}},
		{name: "the containers of a pod share a folder", run: func(s *scene) {
			pod := s.pod()
			dir, mount := s.mounted(pod)
			writer, reader := s.spec(pod, "write", "data/new", "from a container", "and wait"), s.spec(pod, "read", "data/new")
			s.named(pod, writer, "writer", 0)
			s.named(pod, reader, "reader", 0)
			writer.Mounts, writer.WorkingDir = []runtime.Mount{mount}, "/"
			reader.Mounts, reader.WorkingDir = []runtime.Mount{mount}, "/"
			s.ready(writer)
			s.equal("what the other reads", s.output(pod, reader), "from a container")
			b, err := os.ReadFile(filepath.Join(dir, "new"))
			s.ok(err)
			s.equal("what the node reads", string(b), "from a container")
		}},
		{name: "a single file is mounted", isolated: true, run: func(s *scene) {
			pod := s.pod()
			dir, _ := s.mounted(pod)
			c := s.spec(pod, "read", "/etc/original")
			c.Mounts = []runtime.Mount{{Source: filepath.Join(dir, "old"), Target: "/etc/original"}}
			s.equal("what it reads", s.output(pod, c), "from the node")
		}},
		{name: "a mount within another is not hidden by it", isolated: true, run: func(s *scene) {
			pod := s.pod()
			_, mount := s.mounted(pod)
			inner := filepath.Join(pod.Dir, "inner")
			must(s.T, os.Mkdir(inner, 0o755))
			must(s.T, os.WriteFile(filepath.Join(inner, "deep"), []byte("deep"), 0o644))
			c := s.spec(pod, "read", "/data/in/deep")
			c.Mounts = []runtime.Mount{{Source: inner, Target: "/data/in"}, mount}
			s.equal("what it reads", s.output(pod, c), "deep")
		}},
	}
}

func mountCases() []test {
	return []test{
		// Not refused without isolation: secrets are always read only, and nobody would run.
		{name: "a mount that is read only cannot be written", isolated: true, run: func(s *scene) {
			pod := s.pod()
			dir, mount := s.mounted(pod)
			mount.ReadOnly = true
			c := s.spec(pod, "write", "/data/new", "x")
			c.Mounts = []runtime.Mount{mount}
			s.equal("exit code", s.ended(pod, s.start(c)).ExitCode, 1)
			if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
				s.Error("it was written")
			}
			if got := text(c.Log, "stderr"); !strings.Contains(got, "read-only") {
				s.Errorf("it says %q", got)
			}
		}},
		// One that every container may use: what else it may is the engine's to say.
		{name: "a device that is mounted can be opened", isolated: true, run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "write", "/data/device", "x")
			c.Mounts = []runtime.Mount{{Source: "/dev/null", Target: "/data/device", Device: true}}
			s.output(pod, c)
		}},
		{name: "a symlink of the image does not lead a mount out of the container", isolated: true, run: func(s *scene) {
			pod := s.pod()
			_, mount := s.mounted(pod)
			mount.Target = "/escape/in"
			c := s.spec(pod, "wait")
			c.Mounts = []runtime.Mount{mount}
			// Refused or mounted within: both keep the node as it was.
			if _, err := s.engine.Start(s.ctx, c); err == nil {
				s.says(c, "ready")
			}
			entries, err := os.ReadDir(s.setup.Files.Outside)
			s.ok(err)
			s.equal("entries of the folder of the node", len(entries), 0)
		}},
		{name: "what a container writes into its root is seen by no other, and gone with the next attempt", isolated: true, run: func(s *scene) {
			pod := s.pod()
			first := s.spec(pod, "write", "/etc/original", "changed")
			s.ended(pod, s.start(first))
			b, err := os.ReadFile(s.setup.Files.in("etc/original"))
			s.ok(err)
			s.equal("the file of the image", string(b), "from the image")
			other, next := s.spec(pod, "read", "/etc/original"), s.spec(pod, "read", "/etc/original")
			s.named(pod, other, "other", 0)
			s.named(pod, next, "main", 1)
			s.equal("what another reads", s.output(pod, other), "from the image")
			s.equal("what the next attempt reads", s.output(pod, next), "from the image")
		}},
	}
}
