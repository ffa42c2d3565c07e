package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
)

// client connects to all endpoints.
func (c *ctl) client() (*client.Client, error) { return c.clientTo(c.globals.endpoints) }

func (c *ctl) clientTo(endpoints []string) (*client.Client, error) { return c.open(endpoints, false) }

// quickClient fails at once where nobody can be connected to: for questions of
// how members do, and for calls without a deadline.
func (c *ctl) quickClient(endpoints ...string) (*client.Client, error) {
	return c.open(endpoints, true)
}

func (c *ctl) open(endpoints []string, failFast bool) (*client.Client, error) {
	if c.noClient != nil {
		return nil, c.noClient
	}
	config, err := c.tls()
	if err != nil {
		return nil, exit(exitArguments, err)
	}
	return c.connect(endpoints, config, &c.globals.account, failFast)
}

func (c *ctl) connect(endpoints []string, config *tls.Config, a *account, failFast bool) (*client.Client, error) {
	settings := client.Config{
		Endpoints: endpoints, TLS: config, DialTimeout: c.globals.dialTimeout, FailFast: failFast,
		KeepAliveTime: c.globals.keepAliveTime, KeepAliveTimeout: c.globals.keepAliveLimit,
		RequestBytesMax: c.globals.requestBytesMax, ResponseBytesMax: c.globals.responseBytesMax,
		Dial: c.dial, Logger: c.logger(),
	}
	if err := c.login(&settings, a); err != nil {
		return nil, err
	}
	cl, err := client.New(settings)
	return cl, exit(exitArguments, err)
}

// tellUnreached says on standard error why a command that has no deadline does
// not get on, once nobody has been connected to for as long as one attempt may
// take. The command goes on waiting; stop is for its end.
func (c *ctl) tellUnreached(ctx context.Context, cl *client.Client) (stop func()) {
	g := task.New(ctx)
	g.Go("tell unreached", func(ctx context.Context) error {
		select {
		case <-time.After(c.globals.dialTimeout):
		case <-ctx.Done():
		}
		if ctx.Err() != nil || cl.Connected() {
			return nil
		}
		quick, err := c.quickClient(cl.Endpoints()...)
		if err != nil {
			return nil // The command's own client was made of the same.
		}
		defer quick.Close()
		limited, cancel := c.limited(ctx)
		defer cancel()
		_, err = quick.Status(limited)
		if ctx.Err() == nil && (errors.Is(err, client.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded)) {
			fmt.Fprintf(c.err, "Warning: %s; trying on until it is interrupted\n", c.explain(err, cl.Endpoints()...))
		}
		return nil
	})
	return func() {
		g.Stop()
		_ = g.Wait()
	}
}

// tlsFlags say how to encrypt, and which certificate this client shows.
type tlsFlags struct {
	prefix            string // Of the flags' names.
	caCert, cert, key string
	insecureTransport bool
	insecureVerify    bool
	serverName        string // That certificates must have; empty: the address.
}

func (f *tlsFlags) declare(fs *pflag.FlagSet, prefix, whose string) {
	f.prefix = prefix
	fs.StringVar(&f.caCert, prefix+"cacert", "", "check the certificates of "+whose+" with this CA file")
	fs.StringVar(&f.cert, prefix+"cert", "", "certificate file that this client shows "+whose)
	fs.StringVar(&f.key, prefix+"key", "", "key file of that certificate")
	fs.BoolVar(&f.insecureTransport, prefix+"insecure-transport", true, "do not encrypt for endpoints without a scheme, unless a certificate is given")
}

// tls is nil when nothing asks for encryption but perhaps an endpoint's scheme.
func (c *ctl) tls() (*tls.Config, error) { return c.tlsFor(&c.globals.tls, c.globals.endpoints) }

func (c *ctl) tlsFor(f *tlsFlags, endpoints []string) (*tls.Config, error) {
	plain := f.cert == "" && f.key == "" && f.caCert == "" && f.insecureTransport
	if plain && !((f.insecureVerify || f.serverName != "") && encrypted(endpoints)) {
		return nil, nil
	}
	if (f.cert == "") != (f.key == "") {
		return nil, fmt.Errorf("--%[1]scert and --%[1]skey go together: the files of one certificate and its key", f.prefix)
	}
	for _, file := range []struct{ flag, path string }{{"cacert", f.caCert}, {"cert", f.cert}, {"key", f.key}} {
		if file.path == "" {
			continue
		}
		if _, err := os.Stat(file.path); err != nil {
			return nil, fmt.Errorf("--%s%s: %w", f.prefix, file.flag, err)
		}
	}
	reloader, err := pki.NewReloader(pki.Config{
		FS: vfs.OS(), Clock: clock.Real(), Logger: c.logger(), Files: pki.Files{Cert: f.cert, Key: f.key, CA: f.caCert},
	})
	if err != nil {
		return nil, err
	}
	config := reloader.ClientConfig(f.serverName)
	config.InsecureSkipVerify = f.insecureVerify
	return config, nil
}

func encrypted(endpoints []string) bool {
	return slices.ContainsFunc(endpoints, func(e string) bool {
		return strings.HasPrefix(e, "https://") || strings.HasPrefix(e, "unixs://")
	})
}

// account is who the user of this program is at a cluster.
type account struct {
	user, password string
	token          string
	asked          *string // The password, once it was asked for.
	prefix, prompt string
}

// login takes the account over.
func (c *ctl) login(config *client.Config, a *account) error {
	switch {
	case a.user == "" && a.password != "":
		return badArguments("--%[1]spassword needs --%[1]suser: whose password is it?", a.prefix)
	case a.user != "" && a.token != "":
		return badArguments("--user and --auth-jwt-token exclude each other: give one")
	case a.user == "":
		config.Token = a.token
		return nil
	}
	config.User, config.Password = a.user, a.password
	if a.password != "" {
		return nil
	}
	name, password, given := strings.Cut(a.user, ":")
	if config.User, config.Password = name, password; given {
		return nil
	}
	if a.asked == nil { // Once for all connections of a command.
		password, err := c.askPassword(a.prompt + "Password: ")
		if err != nil {
			return err
		}
		a.asked = &password
	}
	config.Password = *a.asked
	return nil
}

type lookupFunc func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)

// discoveryFlags say where DNS names the endpoints.
type discoveryFlags struct {
	domain, service string
	insecure        bool
}

// discover takes the endpoints from SRV records. Whoever wants a client is told
// when that has failed.
func (c *ctl) discover(ctx context.Context) {
	d := &c.globals.discovery
	lookup, suffix := c.lookup, ""
	if lookup == nil {
		lookup = net.DefaultResolver.LookupSRV
	}
	if d.service != "" {
		suffix = "-" + d.service
	}
	ctx, cancel := c.limited(ctx)
	defer cancel()
	var found []string
	var failed []error
	for _, s := range []struct{ scheme, service string }{{"https", "etcd-client-ssl"}, {"http", "etcd-client"}} {
		_, records, err := lookup(ctx, s.service+suffix, "tcp", d.domain)
		if err != nil {
			failed = append(failed, err)
		}
		for _, r := range records {
			e := s.scheme + "://" + net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
			if s.scheme == "http" && !d.insecure {
				fmt.Fprintf(c.err, "ignoring discovered insecure endpoint %q\n", e)
				continue
			}
			found = append(found, e)
		}
	}
	switch {
	case len(failed) == 2:
		c.noClient = exit(exitFailed, fmt.Errorf("--discovery-srv %s: DNS names no endpoints: %w", d.domain, errors.Join(failed...)))
	case len(found) == 0:
		c.noClient = exit(exitFailed, fmt.Errorf("--discovery-srv %s: DNS names no endpoint that can be used", d.domain))
	}
	c.globals.endpoints = found
	if !d.insecure {
		c.globals.tls.serverName = d.domain
	}
}
