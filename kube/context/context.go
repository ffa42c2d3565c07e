// Package context keeps where clusters are and what a person shows to them: the file
// ~/.holdfast/config, that the cluster verbs of holdfastctl read and that
// 'controlplane dev' writes.
//
//	version: 1
//	current: dev
//	contexts:
//	- name: dev
//	  server: ["127.0.0.1:6443"]
//	  ca: dev/ca.pem          a path, from the file's own folder if it is relative,
//	  cert: dev/admin.pem     or the PEM text itself
//	  key: dev/admin-key.pem
//	  namespace: default
//
// Always true: the file is one person's alone (0600), and appears under its name only
// when it is whole. Under sudo it is the file of who called sudo, and stays his. A
// field that is not known is an error: a misspelled one would be a setting that is
// quietly not there. After a crash there is the old file or the new one.
package context

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Version of the file that is written, and the only one that is read.
const Version = 1

// DefaultNamespace is that of a context that names none.
const DefaultNamespace = "default"

// Errors of what there is, or is not.
var (
	ErrNoFile  = errors.New("there is no context")        // The file is not there.
	ErrUnknown = errors.New("there is no such context")   // It names no such one.
	ErrFormat  = errors.New("not a file of contexts")     // It cannot be read as one.
	ErrFiles   = errors.New("the context cannot be used") // Its certificates cannot.
)

// Config is what the file holds.
type Config struct {
	Version  int       `yaml:"version"`
	Current  string    `yaml:"current,omitempty"` // Name of the context that is meant when none is named.
	Contexts []Context `yaml:"contexts"`
}

// Context is one cluster, as one person.
type Context struct {
	Name      string   `yaml:"name"`
	Server    []string `yaml:"server"` // host:port of API servers. One that answers is enough.
	CA        string   `yaml:"ca"`     // Paths, or PEM.
	Cert      string   `yaml:"cert"`
	Key       string   `yaml:"key"`
	Namespace string   `yaml:"namespace,omitempty"` // Empty: DefaultNamespace.

	dir string // Of the file, for relative paths.
}

// Load reads a file.
func Load(fsys vfs.FS, path string) (*Config, error) {
	text, err := vfs.ReadFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s does not exist; 'controlplane dev' writes it, or name one with --config or HOLDFAST_CONFIG", ErrNoFile, path)
	}
	if err != nil {
		return nil, err
	}
	c := &Config{}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrFormat, err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrFormat, err)
	}
	for i := range c.Contexts {
		c.Contexts[i].dir = filepath.Dir(path)
	}
	return c, nil
}

// Save replaces a file, and makes its folder. Getenv tells whether sudo runs this.
func (c *Config) Save(fsys vfs.FS, path string, getenv func(string) string) error {
	c.Version = Version
	if err := c.check(); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrFormat, err)
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	there, err := vfs.Exists(fsys, dir)
	if err != nil {
		return err
	}
	if !there {
		if err := vfs.MakeFolder(fsys, dir); err != nil {
			return err
		}
		if err := giveTo(getenv, dir); err != nil {
			return err
		}
	}
	if err := vfs.ReplaceFile(fsys, path, text); err != nil {
		return err
	}
	return giveTo(getenv, path)
}

// Set puts a context in, or in the place of the one of its name.
func (c *Config) Set(x Context) {
	if i := c.index(x.Name); i >= 0 {
		c.Contexts[i] = x
		return
	}
	c.Contexts = append(c.Contexts, x)
}

// Context finds one by its name; an empty name is the current one.
func (c *Config) Context(name string) (*Context, error) {
	if name == "" {
		name = c.Current
	}
	if name == "" {
		return nil, fmt.Errorf("%w: none is current; choose one with --context or 'config use-context': %s", ErrUnknown, c.names())
	}
	i := c.index(name)
	if i < 0 {
		return nil, fmt.Errorf("context %q: %w; there are %s", name, ErrUnknown, c.names())
	}
	return &c.Contexts[i], nil
}

func (c *Config) index(name string) int {
	return slices.IndexFunc(c.Contexts, func(x Context) bool { return x.Name == name })
}

func (c *Config) names() string {
	names := make([]string, 0, len(c.Contexts))
	for _, x := range c.Contexts {
		names = append(names, x.Name)
	}
	if len(names) == 0 {
		return "none at all"
	}
	return strings.Join(names, ", ")
}

func (c *Config) check() error {
	if c.Version != Version {
		return fmt.Errorf("version %d: this program reads version %d", c.Version, Version)
	}
	for i := range c.Contexts {
		x := &c.Contexts[i]
		if x.Name == "" {
			return fmt.Errorf("contexts[%d]: it has no name", i)
		}
		if c.index(x.Name) != i {
			return fmt.Errorf("context %q stands there twice", x.Name)
		}
		if len(x.Server) == 0 {
			return fmt.Errorf("context %q: server names no host:port", x.Name)
		}
		for _, s := range x.Server {
			if _, _, err := net.SplitHostPort(s); err != nil {
				return fmt.Errorf("context %q: server %q is no host:port", x.Name, s)
			}
		}
		for _, f := range []struct{ name, value string }{{"ca", x.CA}, {"cert", x.Cert}, {"key", x.Key}} {
			if f.value == "" {
				return fmt.Errorf("context %q: %s is missing: a path, or the PEM text", x.Name, f.name)
			}
		}
	}
	return nil
}

// Home is the namespace that is meant when a command names none.
func (x *Context) Home() string {
	if x.Namespace == "" {
		return DefaultNamespace
	}
	return x.Namespace
}
