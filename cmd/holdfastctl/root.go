package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
)

type dialFunc func(ctx context.Context, address string) (net.Conn, error)

// globals are the flags of every command, named and preset as in etcdctl.
type globals struct {
	endpoints      []string
	dialTimeout    time.Duration
	commandTimeout time.Duration
	keepAliveTime  time.Duration
	keepAliveLimit time.Duration

	caCert, cert, key string
	insecureTransport bool
	insecureVerify    bool

	user, password string
	token          string
	asked          *string // The password, once it was asked for.

	form  string
	hex   bool
	debug bool
}

// The groups in which help lists the commands.
const (
	groupKV          = "kv"
	groupConcurrency = "concurrency"
	groupCluster     = "cluster maintenance"
	groupAuth        = "authentication"
	groupFiles       = "files"
	groupUtility     = "utility"
)

// etcdctl knows these flags for things that are not here yet.
var refusedFlags = []struct{ name, shorthand, why string }{
	{"discovery-srv", "d", "discovery by DNS"},
	{"discovery-srv-name", "", "discovery by DNS"},
}

func (c *ctl) rootCommand() *cobra.Command {
	cobra.EnablePrefixMatching = true // As etcdctl: "compact 5" is known in many scripts.
	root := &cobra.Command{
		Use:               "holdfastctl",
		Short:             "A command line for holdfast and every other cluster that speaks the etcd v3 protocol.",
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return c.prepare(cmd) },
	}
	c.globalFlags(root.PersistentFlags())
	root.AddGroup(
		&cobra.Group{ID: groupKV, Title: "Key-value commands"},
		&cobra.Group{ID: groupConcurrency, Title: "Concurrency commands"},
		&cobra.Group{ID: groupCluster, Title: "Cluster maintenance commands"},
		&cobra.Group{ID: groupAuth, Title: "Authentication commands"},
		&cobra.Group{ID: groupFiles, Title: "Commands for files"},
		&cobra.Group{ID: groupUtility, Title: "Utility commands"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, cmd := range commands {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add(groupKV, c.getCommand(), c.putCommand(), c.delCommand(), c.txnCommand(), c.watchCommand(), c.leaseCommand(), c.compactionCommand())
	add(groupConcurrency, c.lockCommand(), c.electCommand())
	add(groupCluster, c.statusCommand(), c.memberCommand(), c.endpointCommand(), c.alarmCommand(), c.defragCommand(), c.moveLeaderCommand(), c.snapshotCommand())
	add(groupAuth, c.authCommand(), c.userCommand(), c.roleCommand())
	add(groupFiles, c.backupCommand(), c.archiveCommand(), c.restoreCommand(), c.recoverCommand(), c.repairCommand())
	add(groupFiles, c.certsCommand(), c.inspectCommand(), c.diffCommand(), c.forkCommand())
	add(groupAuth, c.tokenCommand())
	add(groupUtility, c.benchCommand(), c.mirrorCommand(), c.versionCommand(), c.optionsCommand())
	root.SetHelpCommandGroupID(groupUtility)
	root.SetCompletionCommandGroupID(groupUtility)
	return root
}

func (c *ctl) globalFlags(fs *pflag.FlagSet) {
	g := &c.globals
	fs.StringSliceVar(&g.endpoints, "endpoints", []string{"127.0.0.1:2379"}, "where the members are: host:port or URLs, comma-separated")
	fs.DurationVar(&g.dialTimeout, "dial-timeout", 2*time.Second, "time for one attempt to connect")
	fs.DurationVar(&g.commandTimeout, "command-timeout", 5*time.Second, "time for a short command")
	fs.DurationVar(&g.keepAliveTime, "keepalive-time", 2*time.Second, "silence after which a connection is probed; less than 10s is taken as that")
	fs.DurationVar(&g.keepAliveLimit, "keepalive-timeout", 6*time.Second, "time for the answer to a probe")
	fs.StringVar(&g.caCert, "cacert", "", "check the members' certificates with this CA file")
	fs.StringVar(&g.cert, "cert", "", "certificate file of this client")
	fs.StringVar(&g.key, "key", "", "key file of that certificate")
	fs.BoolVar(&g.insecureTransport, "insecure-transport", true, "do not encrypt for endpoints without a scheme, unless a certificate is given")
	fs.BoolVar(&g.insecureVerify, "insecure-skip-tls-verify", false, "do not check the members' certificates (for tests only)")
	fs.StringVar(&g.user, "user", "", "username[:password] for authentication (asks for the password if it is not given)")
	fs.StringVar(&g.password, "password", "", "password for authentication (if this option is used, --user option shouldn't include password)")
	fs.StringVar(&g.token, "auth-jwt-token", "", "JWT token used for authentication (if this option is used, --user and --password should not be set)")
	fs.StringVarP(&g.form, "write-out", "w", formSimple, "set the output format (fields, json, protobuf, simple, table)")
	fs.BoolVar(&g.hex, "hex", false, "print keys, values and IDs in hexadecimal")
	fs.BoolVar(&g.debug, "debug", false, "say on standard error what the client does")
	for _, r := range refusedFlags {
		fs.StringP(r.name, r.shorthand, "", "not supported yet: "+r.why)
	}
	fs.VisitAll(func(f *pflag.Flag) { f.Hidden = true }) // Shown by "options", as in etcdctl.
}

// prepare takes over the environment and refuses what cannot be, before a
// command begins.
func (c *ctl) prepare(cmd *cobra.Command) error {
	var err error
	cmd.Root().PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if key, value := c.fromEnviron(f.Name); value != "" && !f.Changed && err == nil {
			if e := cmd.Root().PersistentFlags().Set(f.Name, value); e != nil {
				err = badArguments("invalid value %q for %s: %w", value, key, e)
			}
		}
	})
	if err != nil {
		return err
	}
	for _, r := range refusedFlags {
		if f := cmd.Root().PersistentFlags().Lookup(r.name); f.Value.String() != "" {
			return badFeature("--%s: %s is not supported yet; leave the flag out, also as %s", r.name, r.why, environKey("ETCDCTL", r.name))
		}
	}
	for i, e := range c.globals.endpoints {
		c.globals.endpoints[i] = strings.TrimSpace(e)
	}
	if !slices.Contains(forms, c.globals.form) {
		return badFeature("unsupported output format %q: use one of %s", c.globals.form, strings.Join(forms, ", "))
	}
	return nil
}

// fromEnviron finds the variable of a flag. Our own name goes first.
func (c *ctl) fromEnviron(flag string) (key, value string) {
	for _, prefix := range []string{"HOLDFASTCTL", "ETCDCTL"} {
		if value := c.getenv(environKey(prefix, flag)); value != "" {
			return environKey(prefix, flag), value
		}
	}
	return "", ""
}

func environKey(prefix, flag string) string {
	return prefix + "_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (c *ctl) getenv(key string) string {
	for _, e := range c.environ {
		if value, ok := strings.CutPrefix(e, key+"="); ok {
			return value
		}
	}
	return ""
}

// logger shows what libraries report: with --debug everything, else what a
// person must know.
func (c *ctl) logger() hclog.Logger {
	level := hclog.Warn
	if c.globals.debug {
		level = hclog.Debug
	}
	return hclog.New(&hclog.LoggerOptions{Name: "holdfastctl", Output: c.err, Level: level})
}

// client connects to all endpoints.
func (c *ctl) client() (*client.Client, error) { return c.clientTo(c.globals.endpoints) }

func (c *ctl) clientTo(endpoints []string) (*client.Client, error) {
	config, err := c.tls()
	if err != nil {
		return nil, exit(exitArguments, err)
	}
	settings := client.Config{
		Endpoints: endpoints, TLS: config, DialTimeout: c.globals.dialTimeout,
		KeepAliveTime: c.globals.keepAliveTime, KeepAliveTimeout: c.globals.keepAliveLimit,
		Dial: c.dial, Logger: c.logger(),
	}
	if err := c.login(&settings); err != nil {
		return nil, err
	}
	cl, err := client.New(settings)
	return cl, exit(exitArguments, err)
}

// tls is nil when nothing asks for encryption but perhaps an endpoint's scheme.
func (c *ctl) tls() (*tls.Config, error) {
	g := &c.globals
	plain := g.cert == "" && g.key == "" && g.caCert == "" && g.insecureTransport
	if plain && !(g.insecureVerify && c.encrypted()) {
		return nil, nil
	}
	if (g.cert == "") != (g.key == "") {
		return nil, fmt.Errorf("--cert and --key go together: the files of one certificate and its key")
	}
	reloader, err := pki.NewReloader(pki.Config{
		FS: vfs.OS(), Clock: clock.Real(), Logger: c.logger(), Files: pki.Files{Cert: g.cert, Key: g.key, CA: g.caCert},
	})
	if err != nil {
		return nil, err
	}
	config := reloader.ClientConfig("")
	config.InsecureSkipVerify = g.insecureVerify
	return config, nil
}

func (c *ctl) encrypted() bool {
	return slices.ContainsFunc(c.globals.endpoints, func(e string) bool {
		return strings.HasPrefix(e, "https://") || strings.HasPrefix(e, "unixs://")
	})
}

// limited is the context of a short command.
func (c *ctl) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.globals.commandTimeout)
}

// ask makes one call with the time of a short command.
func ask[T any](ctx context.Context, c *ctl, call func(context.Context, *client.Client) (T, error)) (T, error) {
	var none T
	cl, err := c.client()
	if err != nil {
		return none, err
	}
	defer cl.Close()
	ctx, cancel := c.limited(ctx)
	defer cancel()
	answer, err := call(ctx, cl)
	if err != nil {
		return none, exit(exitFailed, err)
	}
	return answer, nil
}
