package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// tool is a program of etcd's. Under its name ours has its commands and flags,
// no others, and prints what it prints.
type tool struct {
	name     string
	says     string
	prefixes []string // Of variables that stand for global flags.
	verbs    []verb
}

// verb is a command with the flags of its own; that without a path is the
// program with its global ones. A test compares the list with etcd's programs.
type verb struct {
	path  string
	flags string
	why   string // It is refused, and this is what to do in its place.
}

// whyNoMigrate is what "migrate" answers.
const whyNoMigrate = "there is nothing to migrate: each file of holdfast names the version of its format, a newer program reads the older ones, and an older program refuses newer ones by name; " +
	"to bring the data of an etcd over, use 'holdfastctl snapshot import', to go back to one, 'holdfastctl snapshot export'"

var etcdctl = &tool{
	name: "etcdctl", says: "A simple command line client for etcd3.", prefixes: []string{"ETCDCTL"},
	verbs: []verb{
		{path: "", flags: "auth-jwt-token cacert cert command-timeout debug dial-timeout discovery-srv discovery-srv-name endpoints hex insecure-discovery " +
			"insecure-skip-tls-verify insecure-transport keepalive-time keepalive-timeout key max-recv-bytes max-request-bytes password user write-out"},
		{path: "compaction", flags: "physical"},
		{path: "del", flags: "from-key prefix prev-kv range"},
		{path: "get", flags: "consistency count-only from-key keys-only limit max-create-rev max-mod-rev min-create-rev min-mod-rev order prefix print-value-only rev sort-by stream"},
		{path: "lease"}, {path: "lease grant"}, {path: "lease keep-alive", flags: "once"}, {path: "lease list"}, {path: "lease revoke"}, {path: "lease timetolive", flags: "keys"},
		{path: "put", flags: "ignore-lease ignore-value lease prev-kv"},
		{path: "txn", flags: "interactive"},
		{path: "watch", flags: "interactive prefix prev-kv progress-notify rev"},
		{path: "alarm"}, {path: "alarm disarm"}, {path: "alarm list"},
		{path: "defrag", flags: "cluster"},
		{path: "downgrade"}, {path: "downgrade cancel"}, {path: "downgrade enable"}, {path: "downgrade validate"},
		{path: "endpoint", flags: "cluster"}, {path: "endpoint hashkv", flags: "rev"}, {path: "endpoint health"}, {path: "endpoint status"},
		{path: "member"}, {path: "member add", flags: "learner peer-urls"}, {path: "member list", flags: "consistency"}, {path: "member promote"},
		{path: "member remove"}, {path: "member update", flags: "peer-urls"},
		{path: "move-leader"},
		{path: "snapshot"}, {path: "snapshot save"},
		{path: "elect", flags: "listen"},
		{path: "lock", flags: "ttl"},
		{path: "auth"}, {path: "auth disable"}, {path: "auth enable"}, {path: "auth status"},
		{path: "role"}, {path: "role add"}, {path: "role delete"}, {path: "role get"}, {path: "role grant-permission", flags: "from-key prefix"},
		{path: "role list"}, {path: "role revoke-permission", flags: "from-key prefix"},
		{path: "user"}, {path: "user add", flags: "interactive new-user-password no-password"}, {path: "user delete"}, {path: "user get", flags: "detail"},
		{path: "user grant-role"}, {path: "user list"}, {path: "user passwd", flags: "interactive"}, {path: "user revoke-role"},
		{path: "check"}, {path: "check datascale", flags: "auto-compact auto-defrag load prefix"}, {path: "check perf", flags: "auto-compact auto-defrag load prefix"},
		{path: "completion"},
		{path: "make-mirror", flags: "dest-cacert dest-cert dest-insecure-transport dest-key dest-password dest-prefix dest-user max-txn-ops no-dest-prefix prefix rev"},
		{path: "options"}, {path: "version"},
	},
}

var etcdutl = &tool{
	name: "etcdutl", says: "An administrative command line tool for etcd3.",
	verbs: []verb{
		{path: "", flags: "timeout write-out"},
		{path: "completion"},
		{path: "defrag", flags: "data-dir"},
		{path: "hashkv", flags: "rev"},
		{path: "migrate", flags: "data-dir force target-version", why: whyNoMigrate},
		{path: "snapshot"},
		{path: "snapshot restore", flags: "bump-revision data-dir initial-advertise-peer-urls initial-cluster initial-cluster-token initial-memory-map-size mark-compacted name skip-hash-check wal-dir"},
		{path: "snapshot status"},
		{path: "version"},
	},
}

// toolNamed is the program of etcd's whose name this one was called by, also
// with something behind it as in etcdctl-3.7; nil: it is holdfastctl.
func toolNamed(program string) *tool {
	base := strings.TrimSuffix(filepath.Base(program), ".exe")
	for _, t := range []*tool{etcdctl, etcdutl} {
		if rest, ok := strings.CutPrefix(base, t.name); ok && (rest == "" || strings.ContainsAny(rest[:1], "-_.0123456789")) {
			return t
		}
	}
	return nil
}

// is reports whether this program was called by another one's name.
func (c *ctl) is(t *tool) bool { return c.tool == t }

// name is what this program is called.
func (c *ctl) name() string {
	if c.tool != nil {
		return c.tool.name
	}
	return "holdfastctl"
}

// shape leaves of the whole tree what a program of etcd's has.
func (t *tool) shape(root *cobra.Command) {
	root.Use, root.Short = t.name, t.says
	verbs := map[string]verb{}
	for _, v := range t.verbs {
		verbs[v.path] = v
	}
	var visit func(cmd *cobra.Command, path string)
	visit = func(cmd *cobra.Command, path string) {
		keepFlags(cmd, strings.Fields(verbs[path].flags))
		for _, sub := range slices.Clone(cmd.Commands()) {
			below := strings.TrimSpace(path + " " + sub.Name())
			if _, ok := verbs[below]; ok {
				visit(sub, below)
			} else {
				cmd.RemoveCommand(sub)
			}
		}
	}
	visit(root, "")
	if t == etcdctl {
		help := root.HelpFunc()
		root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
			help(cmd, args)
			fmt.Fprintf(cmd.OutOrStdout(), "Use \"%s options\" for a list of global command-line options (applies to all commands).\n", t.name)
		})
	}
}

// keepFlags takes all other flags away from a command.
func keepFlags(cmd *cobra.Command, names []string) {
	local, persistent := keptFlags(cmd.Flags(), names), keptFlags(cmd.PersistentFlags(), names)
	cmd.ResetFlags()
	for _, f := range persistent {
		cmd.PersistentFlags().AddFlag(f)
	}
	for _, f := range local {
		cmd.Flags().AddFlag(f)
	}
}

func keptFlags(fs *pflag.FlagSet, names []string) (kept []*pflag.Flag) {
	fs.VisitAll(func(f *pflag.Flag) {
		if slices.Contains(names, f.Name) {
			kept = append(kept, f)
		}
	})
	return kept
}

// completionCommand prints what makes a shell complete the words of commands.
func (c *ctl) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion [bash|zsh|fish|powershell]",
		Short: "Generate completion script",
		Long: fmt.Sprintf(`Prints what makes a shell complete commands and flags. For this session, in bash:

  source <(%[1]s completion bash)

For each: write it to /etc/bash_completion.d/%[1]s, to _%[1]s in a folder of zsh's
fpath, or to ~/.config/fish/completions/%[1]s.fish.
`, c.name()),
		DisableFlagsInUseLine: true,
		ValidArgs:             []string{"bash", "zsh", "fish", "powershell"},
		Args:                  cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(c.out, true)
			case "zsh":
				return root.GenZshCompletion(c.out)
			case "fish":
				return root.GenFishCompletion(c.out, true)
			}
			return cmd.Root().GenPowerShellCompletionWithDesc(c.out)
		},
	}
}

// migrateCommand is etcdutl's, for which there is no need.
func (c *ctl) migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "migrate",
		Short:  "Refused: files of this store need no migration",
		Long:   "Refused: " + whyNoMigrate + ".\n",
		Hidden: !c.is(etcdutl),
		RunE:   func(*cobra.Command, []string) error { return exit(exitFailed, fmt.Errorf("migrate: %s", whyNoMigrate)) },
	}
	cmd.Flags().String("data-dir", "", "data directory of a member")
	cmd.Flags().String("target-version", "", "version to migrate to")
	cmd.Flags().Bool("force", false, "go on after a failure")
	return cmd
}
