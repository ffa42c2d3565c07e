package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
)

func (c *ctl) certsCheckCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "check [host:port...]",
		Short: "Lists when certificates end, and fails if one does within 30 days",
		Long: `Lists when certificates end, and fails (exit code 1) if one does within 30 days:
those of a folder, and those that running servers show.

  holdfastctl certs check --dir /etc/holdfast/certs
  holdfastctl certs check 10.0.0.1:2379 10.0.0.1:2380
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.needForm(formSimple, formJSON); err != nil {
				return err
			}
			var all []pki.Expiry
			if len(args) == 0 || cmd.Flags().Changed("dir") {
				found, err := pki.Expiries(vfs.OS(), dir)
				if err != nil {
					return exit(exitFailed, err)
				}
				if len(found) == 0 {
					return exit(exitFailed, fmt.Errorf("no certificates in %s: name their folder with --dir", dir))
				}
				all = found
			}
			for _, endpoint := range args {
				shown, err := c.shownBy(cmd.Context(), endpoint)
				if err != nil {
					return exit(exitConnection, err)
				}
				all = append(all, shown...)
			}
			return c.printExpiries(all)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "folder of the files")
	return cmd
}

// expiryJSON is when a certificate ends, for programs.
type expiryJSON struct {
	Where   string    `json:"where"` // The file, or the endpoint that showed it.
	Subject string    `json:"subject"`
	CA      bool      `json:"ca"`
	Begins  time.Time `json:"begins"`
	Ends    time.Time `json:"ends"`
	Soon    bool      `json:"soon"` // Or over.
}

func (c *ctl) printExpiries(all []pki.Expiry) error {
	now := clock.Real().Wall()
	var soon []string
	list, lines := []expiryJSON{}, &page{}
	for _, e := range all {
		left := fmt.Sprintf("%d days left", int(e.Ends.Sub(now)/(24*time.Hour)))
		switch {
		case !e.Ends.After(now):
			left = "EXPIRED"
		case e.Soon(now):
			left = "SOON, " + left
		}
		if e.Soon(now) {
			soon = append(soon, e.Where)
		}
		list = append(list, expiryJSON{e.Where, e.Subject, e.IsCA, e.Begins.UTC(), e.Ends.UTC(), e.Soon(now)})
		lines.printf("%s  %s  %s  (%s)\n", e.Ends.UTC().Format(time.DateOnly), e.Where, e.Subject, left)
	}
	if err := c.print(answer{json: list, simple: func(p *page) { p.Write(lines.Bytes()) }}); err != nil {
		return err
	}
	if len(soon) > 0 {
		return exit(exitFailed, fmt.Errorf("%d of %d certificates end within 30 days: %s; 'holdfastctl certs renew' makes new ones", len(soon), len(all), strings.Join(soon, ", ")))
	}
	return nil
}

// shownBy asks a server for its certificates. They are looked at, not trusted, and
// nothing is sent to it.
func (c *ctl) shownBy(ctx context.Context, endpoint string) ([]pki.Expiry, error) {
	address := strings.TrimPrefix(endpoint, "https://")
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, badArguments("%q is no host:port", endpoint)
	}
	ctx, cancel := context.WithTimeout(ctx, c.globals.dialTimeout)
	defer cancel()
	dial := c.dial
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var seen []pki.Expiry
	config := &tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: []string{"h2"}, VerifyConnection: func(cs tls.ConnectionState) error {
		for _, cert := range cs.PeerCertificates {
			seen = append(seen, pki.ExpiryOf(cert, endpoint))
		}
		return nil
	}}
	err = tls.Client(conn, config).HandshakeContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) && len(seen) == 0 { // Not wrapped: another flag is that for commands.
		err = fmt.Errorf("it takes connections and says nothing for %v: is it a port of TLS, and does its process run? --dial-timeout gives it more", c.globals.dialTimeout)
	}
	if len(seen) > 0 {
		return seen, nil // A server that wants a certificate of ours has shown its own by then.
	}
	if err == nil {
		err = errors.New("it shows no certificate")
	}
	return nil, fmt.Errorf("%s: %w", endpoint, err)
}

func (c *ctl) certsRenewCommand() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   "renew [name...]",
		Short: "Replaces pairs of the folder by new ones that hold the same; all without a name",
		RunE: func(cmd *cobra.Command, names []string) error {
			store := f.store()
			authority, err := f.authority(store)
			if err != nil {
				return err
			}
			if len(names) == 0 {
				if names, err = store.Pairs(); err != nil {
					return exit(exitFailed, err)
				}
			}
			if len(names) == 0 {
				return exit(exitFailed, fmt.Errorf("no pairs of files in %s", f.dir))
			}
			for _, name := range names {
				w, err := store.Renew(authority, strings.TrimSuffix(name, ".pem"))
				if err := c.written(w, err); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&f.dir, "dir", ".", "folder of the authority and the pairs")
	return cmd
}
