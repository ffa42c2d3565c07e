package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
)

type certFlags struct {
	dir, commonName, key, name string
	hosts, organizations       []string
	validity                   time.Duration
	replace                    bool
}

func (f *certFlags) declare(fs *pflag.FlagSet, commonName string) {
	fs.StringVar(&f.dir, "dir", ".", "folder of the files")
	fs.StringVar(&f.commonName, "cn", commonName, "common name")
	fs.StringVar(&f.key, "key-type", string(pki.ECDSA), "kind of key: ecdsa, ecdsa-384, ecdsa-521, rsa, rsa-4096, ed25519")
	fs.DurationVar(&f.validity, "validity", 0, "how long it is valid (default 43800h, 5 years)")
	fs.BoolVar(&f.replace, "replace", false, "replace files that exist; the old ones are kept beside them")
}

func (f *certFlags) store() pki.Store {
	return pki.Store{FS: vfs.OS(), Clock: clock.Real(), Dir: f.dir, Replace: f.replace}
}

// authority is the one of the folder.
func (f *certFlags) authority(store pki.Store) (*pki.Authority, error) {
	a, err := store.Authority()
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // One that is there is not to be made anew.
		return nil, exit(exitFailed, err)
	}
	if err != nil {
		return nil, exit(exitFailed, fmt.Errorf("%w; 'holdfastctl certs ca --dir %s' makes the authority", err, f.dir))
	}
	return a, nil
}

func (c *ctl) certsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certs <subcommand>",
		Short: "Makes the certificates of a cluster",
		Long: `Makes the certificates of a cluster: an authority once, then a server and a peer
certificate for each member, and a client certificate for each who connects.

  holdfastctl certs ca     --dir certs
  holdfastctl certs server --dir certs --hosts 10.0.0.1,db1.example.com
  holdfastctl certs peer   --dir certs --hosts 10.0.0.1,db1.example.com
  holdfastctl certs client --dir certs --cn alice

Or all that a cluster with nodes needs at once, again with each node that is added:

  holdfastctl certs set    --dir certs --hosts 10.0.0.1,db1.example.com --node n1=10.0.0.7

Files of cfssl are read as they are: a signing configuration with profiles, and CSR
files.

  holdfastctl certs init   --dir certs --config ca-config.json --csr ca-csr.json
  holdfastctl certs issue  --dir certs --profile www --csr web-csr.json --name web

Members read new files without a restart. Keep ca-key.pem away from them.
`,
	}
	cmd.AddCommand(c.certsCheckCommand())
	cmd.AddCommand(c.textOnly(c.certsAuthorityCommand(),
		c.certsIssueCommand(pki.Server, "Makes server.pem and server-key.pem, which clients see"),
		c.certsIssueCommand(pki.Peer, "Makes peer.pem and peer-key.pem, by which members know each other"),
		c.certsIssueCommand(pki.Client, "Makes client.pem and client-key.pem, by which a client is known"),
		c.certsInitCommand(), c.certsSetCommand(), c.certsProfileCommand(), c.certsSignCommand(),
		c.certsRenewCommand())...)
	cmd.AddCommand(c.certsRotateCommand())
	return cmd
}

func (c *ctl) certsAuthorityCommand() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Makes the authority: ca.pem and ca-key.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArguments("certs ca takes no arguments: the folder is --dir")
			}
			_, w, err := f.store().CreateAuthority(pki.AuthorityRequest{CommonName: f.commonName, Validity: f.validity, Key: pki.KeyType(f.key)})
			return c.written(w, err)
		},
	}
	f.declare(cmd.Flags(), "holdfast CA")
	return cmd
}

func (c *ctl) certsIssueCommand(profile pki.Profile, short string) *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   string(profile),
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArguments("certs %s takes no arguments: names of hosts go in --hosts, the folder is --dir", profile)
			}
			if profile == pki.Client && !cmd.Flags().Changed("cn") {
				f.commonName = f.name
			}
			store := f.store()
			authority, err := f.authority(store)
			if err != nil {
				return err
			}
			w, err := store.Issue(authority, f.name, pki.Request{
				Profile: profile, CommonName: f.commonName, Organizations: f.organizations, Hosts: f.hosts, Validity: f.validity, Key: pki.KeyType(f.key),
			})
			return c.written(w, err)
		},
	}
	fs := cmd.Flags()
	f.declare(fs, "holdfast "+string(profile))
	fs.StringVar(&f.name, "name", string(profile), "name of the files: NAME.pem and NAME-key.pem")
	fs.StringSliceVar(&f.organizations, "organization", nil, "organizations in the subject")
	if profile == pki.Client {
		fs.Lookup("cn").Usage, fs.Lookup("cn").DefValue = "common name: the user that it logs in", "the name of the files"
	} else {
		fs.StringSliceVar(&f.hosts, "hosts", []string{"localhost", "127.0.0.1", "::1"}, "IP addresses and DNS names by which it is reached")
	}
	return cmd
}

// certsFailed gives what went wrong its exit code.
func certsFailed(err error) error {
	switch {
	case errors.Is(err, pki.ErrExists):
		return exit(exitFailed, fmt.Errorf("%w (--replace)", err))
	case errors.Is(err, pki.ErrRequest):
		return exit(exitArguments, err)
	default:
		return exit(exitFailed, err)
	}
}

// written tells about new files.
func (c *ctl) written(w *pki.Written, err error) error {
	if err != nil {
		return certsFailed(err)
	}
	if w.Kept {
		fmt.Fprintf(c.out, "there   %s, stays as it is\n", w.Cert)
		return nil
	}
	for _, old := range w.Aside {
		fmt.Fprintf(c.out, "kept    %s\n", old)
	}
	fmt.Fprintf(c.out, "written %s, valid until %s\n", w.Cert, w.Pair.NotAfter.UTC().Format(time.DateOnly))
	for _, file := range []string{w.Key, w.CSR} {
		if file != "" {
			fmt.Fprintf(c.out, "written %s\n", file)
		}
	}
	return nil
}
