package conformance

import "github.com/holdfast-db/holdfast/kube/runtime"

func invalidCases() []test {
	// refused is a case of a container that no repetition would start.
	refused := func(name string, isolated bool, change func(s *scene, c *runtime.ContainerSpec)) test {
		return test{name: name, isolated: isolated, run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "wait")
			change(s, c)
			_, err := s.engine.Start(s.ctx, c)
			s.wraps(err, runtime.ErrInvalid)
			for _, c := range s.containers(pod) {
				if c.Phase == runtime.Running {
					s.Errorf("%s runs", c.ID)
				}
			}
		}}
	}
	return []test{
		refused("a container without any command is refused", false, func(s *scene, c *runtime.ContainerSpec) {
			image := *c.Image
			image.Entrypoint, image.Cmd = nil, nil
			c.Image, c.Args = &image, nil
		}),
		refused("a container without an image is refused", false, func(_ *scene, c *runtime.ContainerSpec) { c.Image = nil }),
		refused("a name that would lead out of a folder is refused", false, func(_ *scene, c *runtime.ContainerSpec) { c.Name = "../x" }),
		refused("a mount at a path that is not absolute is refused", false, func(_ *scene, c *runtime.ContainerSpec) {
			c.Mounts = []runtime.Mount{{Source: "/", Target: "data"}}
		}),
		refused("a capability that no kernel has is refused", true, func(_ *scene, c *runtime.ContainerSpec) {
			c.Security.AddCapabilities = []string{"FLYING"}
		}),
		refused("a user whom the image does not know is refused", true, func(s *scene, c *runtime.ContainerSpec) { c.Image = s.setup.Images.WithStranger }),
		{name: "a container that was refused may be started once it is mended", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "wait")
			c.Image = nil
			_, err := s.engine.Start(s.ctx, c)
			s.wraps(err, runtime.ErrInvalid)
			c.Image = s.setup.Images.Plain
			s.ready(c)
		}},
	}
}
