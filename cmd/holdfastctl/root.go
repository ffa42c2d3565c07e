package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/client"
)

type dialFunc func(ctx context.Context, address string) (net.Conn, error)

// globals are the flags of every command, named and preset as in etcdctl.
type globals struct {
	endpoints      []string
	dialTimeout    time.Duration
	commandTimeout time.Duration
	keepAliveTime  time.Duration
	keepAliveLimit time.Duration

	requestBytesMax, responseBytesMax int // 0: no limit.

	tls       tlsFlags
	account   account
	discovery discoveryFlags
	lockWait  time.Duration // For a data directory that is in use.

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

var groups = []*cobra.Group{
	{ID: groupObjects, Title: "Commands for objects of a cluster (and 'get', where it names a kind: see 'get --help')"},
	{ID: groupKV, Title: "Key-value commands"},
	{ID: groupConcurrency, Title: "Concurrency commands"},
	{ID: groupCluster, Title: "Cluster maintenance commands"},
	{ID: groupAuth, Title: "Authentication commands"},
	{ID: groupFiles, Title: "Commands for files"},
	{ID: groupUtility, Title: "Utility commands"},
}

func (c *ctl) rootCommand() *cobra.Command {
	cobra.EnablePrefixMatching = true // As etcdctl: "compact 5" is known in many scripts.
	root := &cobra.Command{
		Use:           c.name(),
		Short:         "A command line for holdfast and every other cluster that speaks the etcd v3 protocol.",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if err := c.prepare(cmd); err != nil {
				return err
			}
			return c.needPaths(cmd, args)
		},
	}
	c.globalFlags(root.PersistentFlags())
	add := func(group string, commands ...*cobra.Command) {
		for _, cmd := range commands {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add(groupObjects, c.objectCommands()...)
	add(groupKV, c.kvCommand())
	add(groupKV, c.getCommand(), c.putCommand(), c.delCommand(), c.txnCommand(), c.watchCommand(), c.leaseCommand(), c.compactionCommand())
	add(groupConcurrency, c.lockCommand(), c.electCommand())
	add(groupCluster, c.statusCommand(), c.memberCommand(), c.endpointCommand(), c.alarmCommand(), c.defragCommand(), c.moveLeaderCommand(), c.downgradeCommand(), c.snapshotCommand())
	add(groupAuth, c.authCommand(), c.userCommand(), c.roleCommand())
	add(groupFiles, c.backupCommand(), c.archiveCommand(), c.restoreCommand(), c.recoverCommand())
	add(groupFiles, c.certsCommand(), c.inspectCommand(), c.diffCommand(), c.hashKVCommand(), c.migrateCommand())
	add(groupFiles, c.textOnly(c.forkCommand(), c.repairCommand())...)
	add(groupAuth, c.tokenCommand())
	add(groupUtility, c.benchCommand(), c.checkCommand(), c.mirrorCommand(), c.versionCommand(), c.optionsCommand())
	if c.tool != nil {
		add(groupUtility, c.completionCommand())
		c.tool.shape(root)
	}
	for _, g := range groups {
		if slices.ContainsFunc(root.Commands(), func(cmd *cobra.Command) bool { return cmd.GroupID == g.ID }) {
			root.AddGroup(g)
		}
	}
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
	fs.IntVar(&g.requestBytesMax, "max-request-bytes", 0, "bytes of the largest request that is sent; 0: no limit")
	fs.IntVar(&g.responseBytesMax, "max-recv-bytes", 0, "bytes of the largest answer that is taken; 0: no limit")
	g.tls.declare(fs, "", "the members")
	fs.BoolVar(&g.tls.insecureVerify, "insecure-skip-tls-verify", false, "do not check the members' certificates (for tests only)")
	fs.StringVar(&g.account.user, "user", "", "username[:password] for authentication (asks for the password if it is not given)")
	fs.StringVar(&g.account.password, "password", "", "password for authentication (if this option is used, --user option shouldn't include password)")
	fs.StringVar(&g.account.token, "auth-jwt-token", "", "JWT token used for authentication (if this option is used, --user and --password should not be set)")
	fs.StringVarP(&g.discovery.domain, "discovery-srv", "d", "", "domain whose SRV records name the endpoints, in place of --endpoints")
	fs.StringVar(&g.discovery.service, "discovery-srv-name", "", "suffix of the service in these records")
	fs.BoolVar(&g.discovery.insecure, "insecure-discovery", true, "take also endpoints that do not encrypt; false: leave them out, and expect the domain's name in certificates")
	fs.StringVarP(&g.form, "write-out", "w", formSimple, "set the output format (fields, json, protobuf, simple, table)")
	fs.BoolVar(&g.hex, "hex", false, "print keys, values and IDs in hexadecimal")
	fs.BoolVar(&g.debug, "debug", false, "say on standard error what the client does")
	if c.is(etcdutl) {
		c.lockWaitFlag(fs)
		return
	}
	fs.VisitAll(func(f *pflag.Flag) { f.Hidden = true }) // Shown by "options", as in etcdctl.
}

// prepare takes over the environment and refuses what cannot be, before a
// command begins.
func (c *ctl) prepare(cmd *cobra.Command) error {
	flags := cmd.Root().PersistentFlags()
	if c.is(etcdctl) {
		c.likeEtcdctl(flags)
	}
	if err := c.takeEnviron(flags); err != nil {
		return err
	}
	for i, e := range c.globals.endpoints {
		c.globals.endpoints[i] = strings.TrimSpace(e)
	}
	if !slices.Contains(forms, c.globals.form) {
		return badFeature("unsupported output format %q: use one of %s", c.globals.form, strings.Join(forms, ", "))
	}
	if c.globals.discovery.domain != "" && c.noClient == nil && !slices.Contains(alone, cmd.Name()) {
		c.discover(cmd.Context())
	}
	return nil
}

// needPaths refuses an empty argument of a command for files: what a variable makes that
// is not set. It would mean the folder that one happens to be in.
func (c *ctl) needPaths(cmd *cobra.Command, args []string) error {
	top := cmd
	for top.HasParent() && top.Parent().HasParent() {
		top = top.Parent()
	}
	if c.tool != nil || !slices.Contains(args, "") || top.GroupID != groupFiles && top.Name() != "snapshot" {
		return nil
	}
	code := exitArguments
	if top.Name() == "diff" {
		code = exitTrouble
	}
	return exit(code, fmt.Errorf("%s: an argument is empty: is a variable not set?", cmd.CommandPath()))
}

// textOnly says that commands print text alone: another form is refused before anything
// is done.
func (c *ctl) textOnly(commands ...*cobra.Command) []*cobra.Command {
	for _, cmd := range commands {
		cmd.PreRunE = func(*cobra.Command, []string) error { return c.needForm(formSimple) }
	}
	return commands
}

// takeEnviron sets flags that are not given from their variables.
func (c *ctl) takeEnviron(flags *pflag.FlagSet) (err error) {
	flags.VisitAll(func(f *pflag.Flag) {
		if key, value := c.fromEnviron(f.Name); value != "" && !f.Changed && err == nil {
			if e := flags.Set(f.Name, value); e != nil {
				err = badArguments("invalid value %q for %s: %w", value, key, e)
			}
		}
	})
	return err
}

// likeEtcdctl refuses what that program refuses once it makes a client.
func (c *ctl) likeEtcdctl(flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if key := environKey("ETCDCTL", f.Name); f.Changed && c.isSet(key) {
			c.noClient = exit(exitFailed, fmt.Errorf("%s is set and so is --%s: unset the one or leave the other out", key, f.Name))
		}
	})
	for _, name := range []string{"cert", "key", "cacert"} {
		if f := flags.Lookup(name); f.Changed && f.Value.String() == "" {
			c.noClient = badArguments("empty string is passed to --%s option", name)
		}
	}
}

// alone are the commands that need nobody.
var alone = []string{"version", "options", "completion", "help"}

// fromEnviron finds the variable of a flag. Our own name goes first.
func (c *ctl) fromEnviron(flag string) (key, value string) {
	prefixes := []string{"HOLDFASTCTL", "ETCDCTL"}
	if c.tool != nil {
		prefixes = c.tool.prefixes
	}
	for _, prefix := range prefixes {
		if value := c.getenv(environKey(prefix, flag)); value != "" {
			return environKey(prefix, flag), value
		}
	}
	return "", ""
}

func environKey(prefix, flag string) string {
	return prefix + "_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (c *ctl) isSet(key string) bool {
	return slices.ContainsFunc(c.environ, func(e string) bool { return strings.HasPrefix(e, key+"=") })
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
	return hclog.New(&hclog.LoggerOptions{Name: c.name(), Output: c.err, Level: level})
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
	return askOf(ctx, c, cl, call)
}

// askOf makes that call by a client, and closes it.
func askOf[T any](ctx context.Context, c *ctl, cl *client.Client, call func(context.Context, *client.Client) (T, error)) (T, error) {
	var none T
	defer cl.Close()
	ctx, cancel := c.limited(ctx)
	defer cancel()
	answer, err := call(ctx, cl)
	if err != nil {
		return none, exit(exitFailed, err)
	}
	return answer, nil
}
