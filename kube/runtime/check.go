package runtime

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var containerName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) // As in objects. It is part of paths.

// Check refuses what no engine can make.
func (c *ContainerSpec) Check() error {
	wrong := c.wrong()
	for _, m := range c.Mounts {
		if wrong == "" && (!filepath.IsAbs(m.Target) || !filepath.IsAbs(m.Source) || filepath.Clean(m.Target) == "/") {
			wrong = fmt.Sprintf("mount of %s at %q: both must be absolute paths, and the second not the root", m.Source, m.Target)
		}
	}
	for _, text := range slices.Concat(c.Command, c.Args, c.Env) {
		if wrong == "" && strings.ContainsRune(text, 0) {
			wrong = "its command or environment holds a zero byte"
		}
	}
	if wrong != "" {
		return fmt.Errorf("%w: container %q: %s", ErrInvalid, c.Name, wrong)
	}
	return nil
}

func (c *ContainerSpec) wrong() string {
	switch {
	case !containerName.MatchString(c.Name):
		return "its name must be of a-z, 0-9 and -, 63 at most"
	case c.Attempt < 0:
		return "its attempt is below 0"
	case !filepath.IsAbs(c.Log):
		return "the path of its log is not absolute"
	case c.Image == nil || c.Image.ID == "":
		return "it has no image"
	case len(c.Command)+len(c.Args)+len(c.Image.Entrypoint)+len(c.Image.Cmd) == 0:
		return "neither it nor its image " + c.Image.Ref + " has a command"
	}
	return ""
}
