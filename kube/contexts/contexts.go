// Package contexts is the file by which holdfastctl finds a cluster: where its API is,
// whom to trust there, and with which certificate to come. It is ~/.holdfast/config,
// YAML, for its owner's eyes alone. Files of certificates are named, or are in it.
//
//	currentContext: dev
//	contexts:
//	- name: dev
//	  servers: ["127.0.0.1:6443"]
//	  certificateAuthority: /etc/holdfast/certs/ca.pem
//	  clientCertificate: /etc/holdfast/certs/admin.pem
//	  clientKey: /etc/holdfast/certs/admin-key.pem
//
// A file is written whole or not at all, and keeps contexts of other names.
package contexts

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/holdfast-db/holdfast/internal/vfs"
)

// Path of the file below a home folder.
func Path(home string) string { return filepath.Join(home, ".holdfast", "config") }

// ErrNone is that of a file without the context that is asked for.
var ErrNone = errors.New("no such context")

// File is all of it.
type File struct {
	CurrentContext string    `json:"currentContext"`
	Contexts       []Context `json:"contexts"`
}

// Context is one cluster and one user of it. Of each pair one is set: the name of a
// file, or what is in it.
type Context struct {
	Name      string   `json:"name"`
	Servers   []string `json:"servers"`             // host:port of the API.
	Stores    []string `json:"stores,omitempty"`    // URLs of the store's members, for its own commands.
	Namespace string   `json:"namespace,omitempty"` // Empty: default.

	CertificateAuthority     string `json:"certificateAuthority,omitempty"`
	CertificateAuthorityData []byte `json:"certificateAuthorityData,omitempty"`
	ClientCertificate        string `json:"clientCertificate,omitempty"`
	ClientCertificateData    []byte `json:"clientCertificateData,omitempty"`
	ClientKey                string `json:"clientKey,omitempty"`
	ClientKeyData            []byte `json:"clientKeyData,omitempty"`
}

// Read reads a file. One that is not there is empty.
func Read(fsys vfs.FS, path string) (*File, error) {
	data, err := vfs.ReadFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return &File{}, nil
	}
	if err != nil {
		return nil, err
	}
	f := &File{}
	if err := yaml.UnmarshalStrict(data, f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Get returns a context; the current one if no name is given.
func (f *File) Get(name string) (*Context, error) {
	if name == "" {
		name = f.CurrentContext
	}
	i := slices.IndexFunc(f.Contexts, func(c Context) bool { return c.Name == name })
	if i < 0 {
		var names []string
		for _, c := range f.Contexts {
			names = append(names, c.Name)
		}
		return nil, fmt.Errorf("%q: %w; there are %q", name, ErrNone, strings.Join(names, ", "))
	}
	return &f.Contexts[i], nil
}

// Set puts a context in place of the one of its name, and makes it the current one.
func (f *File) Set(c Context) {
	f.CurrentContext = c.Name
	i := slices.IndexFunc(f.Contexts, func(old Context) bool { return old.Name == c.Name })
	if i < 0 {
		f.Contexts = append(f.Contexts, c)
		return
	}
	f.Contexts[i] = c
}

// Write replaces the file, with mode 0600.
func (f *File) Write(fsys vfs.FS, path string) error {
	data, err := yaml.Marshal(f)
	if err != nil {
		return err
	}
	if err := fsys.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	return vfs.ReplaceFile(fsys, path, data)
}

// TLS is what connections to the servers of a context are made with.
func (c *Context) TLS(fsys vfs.FS) (*tls.Config, error) {
	ca, err := either(fsys, c.CertificateAuthorityData, c.CertificateAuthority)
	if err != nil {
		return nil, err
	}
	cert, err := either(fsys, c.ClientCertificateData, c.ClientCertificate)
	if err != nil {
		return nil, err
	}
	key, err := either(fsys, c.ClientKeyData, c.ClientKey)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("context %s: its authority holds no certificate in PEM", c.Name)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("context %s: %w", c.Name, err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}}, nil
}

func either(fsys vfs.FS, data []byte, file string) ([]byte, error) {
	if len(data) > 0 {
		return data, nil
	}
	return vfs.ReadFile(fsys, file)
}
