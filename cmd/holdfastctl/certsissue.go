package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
)

// configName is where init leaves the signing configuration, and the other
// commands find it.
const configName = "ca-config.json"

func declareConfig(fs *pflag.FlagSet, config *string) {
	fs.StringVar(config, "config", "", "signing configuration of cfssl, JSON (default: "+configName+" of the folder, if there is one)")
}

// signing reads the configuration that was named, else that of the folder.
func (c *ctl) signing(dir, named string) (pki.Signing, error) {
	file := named
	if file == "" {
		file = filepath.Join(dir, configName)
	}
	data, err := vfs.ReadFile(vfs.OS(), file)
	if named == "" && errors.Is(err, fs.ErrNotExist) {
		return pki.Signing{}, nil
	}
	if err != nil {
		return pki.Signing{}, exit(exitFailed, err)
	}
	signing, ignored, err := pki.ParseSigning(data, file)
	c.sayIgnored(file, ignored)
	if err != nil {
		return pki.Signing{}, certsFailed(err)
	}
	return *signing, nil
}

// csrFile reads a CSR file of cfssl.
func (c *ctl) csrFile(file string) (*pki.CSRFile, error) {
	data, err := vfs.ReadFile(vfs.OS(), file)
	if err != nil {
		return nil, exit(exitFailed, err)
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		return nil, badArguments("%s is a request in PEM; --csr takes a CSR file of cfssl, in JSON: 'holdfastctl certs sign --request %s' signs this one", file, file)
	}
	csr, ignored, err := pki.ParseCSRFile(data, file)
	c.sayIgnored(file, ignored)
	if err != nil {
		return nil, certsFailed(err)
	}
	return csr, nil
}

func (c *ctl) sayIgnored(file string, fields []string) {
	if len(fields) > 0 {
		fmt.Fprintf(c.err, "Warning: %s: of no effect here: %s\n", file, strings.Join(fields, ", "))
	}
}

func (c *ctl) certsInitCommand() *cobra.Command {
	var f certFlags
	var config, csr string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Makes the authority out of cfssl's files: ca.pem, ca-key.pem, ca.csr",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArguments("certs init takes no arguments: files are --config and --csr, the folder is --dir")
			}
			req := pki.AuthorityRequest{CommonName: f.commonName, Validity: f.validity, Key: pki.KeyType(f.key)}
			if csr != "" {
				for _, other := range []string{"cn", "key-type", "validity"} {
					if cmd.Flags().Changed(other) {
						return badArguments("--%s is said by the CSR file: give one of them", other)
					}
				}
				file, err := c.csrFile(csr)
				if err != nil {
					return err
				}
				req = file.AuthorityRequest()
			}
			if config != "" {
				if _, err := c.signing(f.dir, config); err != nil {
					return err // Before anything is written.
				}
			}
			store := f.store()
			store.Requests = true
			_, w, err := store.CreateAuthority(req)
			if err := c.written(w, err); err != nil {
				return err
			}
			return c.keepConfig(f.dir, config)
		},
	}
	f.declare(cmd.Flags(), "holdfast CA")
	cmd.Flags().StringVar(&config, "config", "", "signing configuration of cfssl, JSON; kept in the folder for the other commands")
	cmd.Flags().StringVar(&csr, "csr", "", "CSR file of cfssl, JSON: names, key and life of the authority")
	return cmd
}

// keepConfig copies a configuration into the folder; another one goes aside.
func (c *ctl) keepConfig(dir, config string) error {
	to := filepath.Join(dir, configName)
	if config == "" || filepath.Clean(config) == filepath.Clean(to) {
		return nil
	}
	data, err := vfs.ReadFile(vfs.OS(), config)
	if err != nil {
		return exit(exitFailed, err)
	}
	if there, err := vfs.ReadFile(vfs.OS(), to); err == nil && !bytes.Equal(there, data) {
		if err := vfs.ReplaceFile(vfs.OS(), to+".old", there); err != nil {
			return exit(exitFailed, err)
		}
		fmt.Fprintf(c.out, "kept    %s.old\n", to)
	}
	if err := vfs.ReplaceFile(vfs.OS(), to, data); err != nil {
		return exit(exitFailed, err)
	}
	fmt.Fprintf(c.out, "written %s\n", to)
	return nil
}

func (c *ctl) certsSetCommand() *cobra.Command {
	var f certFlags
	var config string
	var nodes []string
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Makes all certificates of a cluster that are not there yet",
		Long: `Makes all certificates of a cluster that are not there yet: the authority; server,
peer and client of the store; apiserver, kube-proxy, admin, scheduler, controllers;
and for each --node kubelet-client-NODE and kubelet-serving-NODE. Each is NAME.pem,
NAME-key.pem and NAME.csr.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArguments("certs set takes no arguments: hosts are --hosts, nodes are --node")
			}
			signing, err := c.signing(f.dir, config)
			if err != nil {
				return err
			}
			req := pki.SetRequest{Hosts: f.hosts, Signing: signing, Validity: f.validity, Key: pki.KeyType(f.key)}
			for _, n := range nodes {
				name, hosts, _ := strings.Cut(n, "=")
				node := pki.Node{Name: name}
				if hosts != "" {
					node.Hosts = strings.Split(hosts, ",")
				}
				req.Nodes = append(req.Nodes, node)
			}
			if _, err := req.Plan(); err != nil {
				return certsFailed(err)
			}
			return c.makeSet(f, req)
		},
	}
	fs := cmd.Flags()
	f.declare(fs, "holdfast CA")
	fs.Lookup("cn").Usage = "common name of the authority, if it is made"
	fs.StringSliceVar(&f.hosts, "hosts", []string{"localhost", "127.0.0.1", "::1"}, "IP addresses and DNS names of the machines with store members and API servers")
	fs.StringArrayVar(&nodes, "node", nil, "a node, NAME or NAME=HOST,HOST; once for each")
	declareConfig(fs, &config)
	return cmd
}

func (c *ctl) makeSet(f certFlags, req pki.SetRequest) error {
	store := f.store()
	store.Requests = true
	first := store
	first.Replace = false // A new authority would make all that is there worthless: 'rotate-ca' is for that.
	authority, err := store.Authority()
	if errors.Is(err, fs.ErrNotExist) {
		var w *pki.Written
		authority, w, err = first.CreateAuthority(pki.AuthorityRequest{CommonName: f.commonName, Key: req.Key, Validity: req.Validity})
		if err := c.written(w, err); err != nil {
			return err
		}
	} else if err != nil {
		return exit(exitFailed, err)
	}
	all, err := store.Set(authority, req)
	for _, w := range all {
		if err := c.written(w, nil); err != nil {
			return err
		}
	}
	if err != nil {
		return certsFailed(err)
	}
	return nil
}

func (c *ctl) certsProfileCommand() *cobra.Command {
	var f certFlags
	var config, csr, profile string
	cmd := &cobra.Command{
		Use:   "issue --profile <profile>",
		Short: "Makes NAME.pem, NAME-key.pem and NAME.csr by a profile, built-in or of the signing configuration",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArguments("certs issue takes no arguments: the files' name is --name, the profile --profile")
			}
			signing, err := c.signing(f.dir, config)
			if err != nil {
				return err
			}
			terms, err := signing.Terms(pki.Profile(profile))
			if err != nil {
				return certsFailed(err)
			}
			req := pki.Request{CommonName: f.commonName, Organizations: f.organizations, Hosts: f.hosts, Key: pki.KeyType(f.key)}
			if csr != "" {
				for _, other := range []string{"cn", "key-type", "hosts", "organization"} {
					if cmd.Flags().Changed(other) {
						return badArguments("--%s is said by the CSR file: give one of them", other)
					}
				}
				file, err := c.csrFile(csr)
				if err != nil {
					return err
				}
				req = file.Request("", terms)
			}
			req.Profile, req.Terms, req.Validity = pki.Profile(profile), &terms, f.validity
			store := f.store()
			store.Requests = true
			authority, err := f.authority(store)
			if err != nil {
				return err
			}
			if f.name == "" {
				f.name = profile
			}
			w, err := store.Issue(authority, f.name, req)
			return c.written(w, err)
		},
	}
	fs := cmd.Flags()
	f.declare(fs, "")
	fs.StringVar(&profile, "profile", "", "what it is for: server, client, peer, kubernetes, or a profile of the configuration (default: the configuration's default)")
	fs.StringVar(&csr, "csr", "", "CSR file of cfssl, JSON: names, hosts and key")
	fs.StringVar(&f.name, "name", "", "name of the files (default: the profile)")
	fs.StringSliceVar(&f.organizations, "organization", nil, "organizations in the subject, the groups of a user")
	fs.StringSliceVar(&f.hosts, "hosts", nil, "IP addresses and DNS names by which it is reached")
	declareConfig(fs, &config)
	return cmd
}

func (c *ctl) certsSignCommand() *cobra.Command {
	var f certFlags
	var config, request, profile string
	cmd := &cobra.Command{
		Use:   "sign --request <file>",
		Short: "Signs a request in PEM whose key lies elsewhere: NAME.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 || request == "" {
				return badArguments("certs sign needs --request, a file in PEM, and takes no arguments")
			}
			signing, err := c.signing(f.dir, config)
			if err != nil {
				return err
			}
			terms, err := signing.Terms(pki.Profile(profile))
			if err != nil {
				return certsFailed(err)
			}
			data, err := vfs.ReadFile(vfs.OS(), request)
			if err != nil {
				return exit(exitFailed, err)
			}
			asked, err := pki.ParseCSR(data)
			if err != nil {
				return certsFailed(fmt.Errorf("%s: %w", request, err))
			}
			store := f.store()
			authority, err := f.authority(store)
			if err != nil {
				return err
			}
			if f.name == "" {
				f.name = strings.TrimSuffix(filepath.Base(request), filepath.Ext(request))
			}
			w, err := store.Sign(authority, f.name, data, pki.Request{
				Profile: pki.Profile(profile), Terms: &terms, CommonName: asked.Subject.CommonName,
				Names: asked.Subject, Hosts: pki.Hosts(asked), Validity: f.validity,
			})
			if err == nil {
				fmt.Fprintf(c.out, "subject %s\nhosts   %s\n", asked.Subject, strings.Join(pki.Hosts(asked), ", "))
			}
			return c.written(w, err)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.dir, "dir", ".", "folder of the authority, and of the certificate")
	fs.DurationVar(&f.validity, "validity", 0, "how long it is valid (default 43800h, 5 years, or as the profile says)")
	fs.BoolVar(&f.replace, "replace", false, "replace files that exist; the old ones are kept beside them")
	fs.StringVar(&request, "request", "", "the request, PKCS #10 in PEM; its subject and hosts are taken as they are")
	fs.StringVar(&profile, "profile", string(pki.Client), "what it is for")
	fs.StringVar(&f.name, "name", "", "name of the file (default: that of the request)")
	declareConfig(fs, &config)
	return cmd
}
