package cluster

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	kubecontext "github.com/holdfast-db/holdfast/kube/context"
)

func (s *session) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config get-contexts|use-context|current-context|view|set-context|delete-context", Short: "Shows and changes which cluster is meant",
		RunE: func(_ *cobra.Command, args []string) error {
			return usage("config %s: there are get-contexts, use-context, current-context, view, set-context and delete-context", strings.Join(args, " "))
		},
	}
	cmd.AddCommand(s.getContextsCommand(), s.useContextCommand(), s.currentContextCommand(), s.viewCommand(), s.setContextCommand(), s.deleteContextCommand())
	return cmd
}

func (s *session) getContextsCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use: "get-contexts [NAME]", Short: "Lists the contexts",
		RunE: func(_ *cobra.Command, args []string) error {
			if form != "" && form != "name" {
				return usage("-o %s: there is name", form)
			}
			c, _, err := s.contexts()
			if err != nil {
				return err
			}
			list := c.Contexts
			if len(args) > 0 {
				x, err := c.Context(args[0])
				if err != nil {
					return err
				}
				list = []kubecontext.Context{*x}
			}
			g := &grid{out: s.Out}
			if form == "" {
				g.add("CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE")
			}
			for i := range list {
				x := &list[i]
				if form == "name" {
					s.printf("%s\n", x.Name)
					continue
				}
				mark := ""
				if x.Name == c.Current {
					mark = "*"
				}
				g.add(mark, x.Name, strings.Join(x.Server, ","), s.who(x), x.Namespace)
			}
			g.flush()
			return nil
		},
	}
	cmd.Flags().StringVarP(&form, "output", "o", "", "form: name")
	return cmd
}

// who is the name in a context's certificate.
func (s *session) who(x *kubecontext.Context) string {
	t, err := x.TLS(s.FS, s.Clock)
	if err != nil {
		return "<unusable>"
	}
	return t.Certificates[0].Leaf.Subject.CommonName
}

func (s *session) useContextCommand() *cobra.Command {
	return &cobra.Command{
		Use: "use-context NAME", Short: "Makes a context the current one",
		RunE: func(_ *cobra.Command, args []string) error {
			name, _, err := s.changeContext(args, func(c *kubecontext.Config, name string) { c.Current = name })
			if err == nil {
				s.printf("Switched to context %q.\n", name)
			}
			return err
		},
	}
}

// changeContext saves what change makes of the file, given the name of a context in it.
func (s *session) changeContext(args []string, change func(c *kubecontext.Config, name string)) (name, path string, err error) {
	if name, err = nameOf(args); err != nil {
		return "", "", err
	}
	c, path, err := s.contexts()
	if err != nil {
		return "", "", err
	}
	if _, err := c.Context(name); err != nil {
		return "", "", err
	}
	change(c, name)
	return name, path, c.Save(s.FS, path, s.Getenv)
}

func (s *session) currentContextCommand() *cobra.Command {
	return &cobra.Command{
		Use: "current-context", Short: "Prints the name of the current context",
		RunE: func(_ *cobra.Command, args []string) error {
			c, _, err := s.contexts()
			if err != nil {
				return err
			}
			if c.Current == "" {
				return errors.New("current-context is not set; choose one with 'config use-context'")
			}
			s.printf("%s\n", c.Current)
			return nil
		},
	}
}

func (s *session) viewCommand() *cobra.Command {
	return &cobra.Command{
		Use: "view", Short: "Prints the file of contexts, without keys",
		RunE: func(_ *cobra.Command, args []string) error {
			c, _, err := s.contexts()
			if err != nil {
				return err
			}
			for i := range c.Contexts {
				x := &c.Contexts[i]
				x.CA, x.Cert, x.Key = hidden(x.CA, "DATA+OMITTED"), hidden(x.Cert, "DATA+OMITTED"), hidden(x.Key, "REDACTED")
			}
			text, err := yaml.Marshal(c)
			if err != nil {
				return err
			}
			_, err = s.Out.Write(text)
			return err
		},
	}
}

// hidden is a path, or a word in the place of what is in the file itself.
func hidden(value, word string) string {
	if strings.Contains(value, "-----BEGIN ") {
		return word
	}
	return value
}

func (s *session) setContextCommand() *cobra.Command {
	var current bool
	var server []string
	var ca, cert, key string
	cmd := &cobra.Command{Use: "set-context NAME | --current", Short: "Changes a context, or makes one"}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		c, path, err := s.contexts()
		if errors.Is(err, kubecontext.ErrNoFile) && !current {
			c = &kubecontext.Config{}
			path, err = s.configPath()
		}
		if err != nil {
			return err
		}
		if current == (len(args) == 1) || len(args) > 1 {
			return usage("name one context, or say --current")
		}
		name := c.Current
		if !current {
			name = args[0]
		}
		x := kubecontext.Context{Name: name}
		word := "created"
		if have, err := c.Context(name); err == nil {
			x, word = *have, "modified"
		} else if current {
			return err
		}
		fs := cmd.Flags()
		for _, f := range []struct {
			name string
			set  func()
		}{
			{"namespace", func() { x.Namespace = s.namespace }}, {"server", func() { x.Server = server }},
			{"certificate-authority", func() { x.CA = absolute(ca) }}, {"client-certificate", func() { x.Cert = absolute(cert) }},
			{"client-key", func() { x.Key = absolute(key) }},
		} {
			if fs.Changed(f.name) {
				f.set()
			}
		}
		c.Set(x)
		if c.Current == "" {
			c.Current = name
		}
		if err := c.Save(s.FS, path, s.Getenv); err != nil {
			return err
		}
		s.printf("Context %q %s.\n", name, word)
		return nil
	}
	fs := cmd.Flags()
	fs.BoolVar(&current, "current", false, "the current context")
	fs.StringSliceVar(&server, "server", nil, "host:port of the API servers")
	fs.StringVar(&ca, "certificate-authority", "", "file of who signs the servers' certificates")
	fs.StringVar(&cert, "client-certificate", "", "file of the certificate that is shown")
	fs.StringVar(&key, "client-key", "", "file of its key")
	return cmd
}

// absolute is a path that means the same from the folder of the contexts.
func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path // There is no working folder: as it was typed.
	}
	return abs
}

func (s *session) deleteContextCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete-context NAME", Short: "Takes a context out of the file",
		RunE: func(_ *cobra.Command, args []string) error {
			name, path, err := s.changeContext(args, func(c *kubecontext.Config, name string) {
				c.Contexts = slices.DeleteFunc(c.Contexts, func(x kubecontext.Context) bool { return x.Name == name })
				if c.Current == name {
					c.Current = ""
				}
			})
			if err == nil {
				s.printf("deleted context %s from %s\n", name, path)
			}
			return err
		},
	}
}
