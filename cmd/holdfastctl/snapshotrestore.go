package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/snapshot"
)

const (
	defaultName    = "default"
	defaultPeerURL = "http://localhost:2380"
)

type restoreFlags struct {
	dataDir, walDir, name   string
	cluster, token, peerURL string
	spec, nonce             string
	skipHash, markCompacted bool
	replace, dryRun         bool
	bump                    uint64
	leases                  string
	others                  string // What makes the other members; empty: this command.
	suffix                  string // Of a data directory that is not named.
}

func (f *restoreFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&f.dataDir, "data-dir", "", "data directory to make (default NAME.holdfast)")
	fs.StringVar(&f.walDir, "wal-dir", "", "where its log shall be, if elsewhere")
	fs.StringVar(&f.name, "name", defaultName, "name of this member")
	fs.StringVar(&f.cluster, "initial-cluster", defaultName+"="+defaultPeerURL, "NAME=URL,… of all members of the new cluster")
	fs.StringVar(&f.token, "initial-cluster-token", "etcd-cluster", "token of the new cluster, from which its IDs follow where --nonce is not used")
	fs.StringVar(&f.peerURL, "initial-advertise-peer-urls", defaultPeerURL, "peer URLs of this member, as in --initial-cluster")
	fs.StringVar(&f.spec, "cluster", "", "YAML file that describes the new cluster: make all its members here, or only --name")
	fs.StringVar(&f.nonce, "nonce", "", "makes the new IDs random; where the members of one cluster are restored one by one, give each command the same")
	fs.BoolVar(&f.skipHash, "skip-hash-check", false, "accept a snapshot without the integrity hash at its end")
	fs.Uint64Var(&f.bump, "bump-revision", 0, "raise the revision by so much, so that no revision is ever seen with two contents")
	fs.BoolVar(&f.markCompacted, "mark-compacted", false, "mark everything up to the raised revision as compacted (goes with --bump-revision)")
	fs.StringVar(&f.leases, "leases", string(snapshot.LeasesRefill), "what becomes of leases: refill gives each its full time again, remaining what it had left where that is known, drop takes them away with the keys attached to them; the same for every member")
	fs.BoolVar(&f.replace, "replace", false, "rename aside what the targets hold")
	fs.BoolVar(&f.dryRun, "dry-run", false, "print what would be done")
	fs.Uint64("initial-memory-map-size", 10<<30, "accepted as etcdutl's, without effect")
	_ = fs.MarkHidden("initial-memory-map-size") // Fails only for a flag that is not there.
}

// asEtcdutl makes the flags show what they are in etcdutl.
func (f *restoreFlags) asEtcdutl(fs *pflag.FlagSet) {
	f.suffix = ".etcd"
	fs.Lookup("data-dir").Usage = "data directory to make; left out: NAME.etcd"
	fs.Lookup("initial-memory-map-size").Hidden = false
}

func (c *ctl) snapshotRestoreCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore <filename> --data-dir {output dir} [options]",
		Short: "Makes the data directories of a new cluster out of a snapshot",
		Long: `Makes the data directory of one member of a new cluster, or those of all its members.

Every byte of the snapshot is verified. The new cluster has IDs of its own and a new
timeline, so that members of the old one cannot disturb it; Raft's log goes on where
the snapshot was taken. Nothing in a target is overwritten.

All members at once, for example to copy each directory to its host:

  members:
  - name: a
    peer-urls: [https://10.0.0.1:2380]
    data-dir: restored/a
  - name: b
    …

  holdfastctl snapshot restore backup.db --cluster SPEC.yaml

Watchers and caches that saw what came after the snapshot must not mistake new
revisions for old ones: --bump-revision 1000000000 --mark-compacted.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArguments("snapshot restore requires exactly one argument")
			}
			options, err := f.options(cmd.Flags())
			if err != nil {
				return err
			}
			return c.restore(cmd.Context(), &f, args[0], options)
		},
	}
	f.declare(cmd.Flags())
	if c.is(etcdutl) {
		f.asEtcdutl(cmd.Flags())
	}
	return cmd
}

// options are what the flags ask for.
func (f *restoreFlags) options(fs *pflag.FlagSet) (o snapshot.RestoreOptions, err error) {
	if (f.bump > 0) != f.markCompacted {
		return o, badArguments("--mark-compacted required if --revision-bump > 0")
	}
	if int64(f.bump) < 0 {
		return o, badArguments("--bump-revision %d is more than any revision can be", f.bump)
	}
	o = snapshot.RestoreOptions{
		Nonce: f.nonce, Token: f.token, BumpRevision: int64(f.bump), MarkCompacted: f.markCompacted,
		Leases: snapshot.LeasePolicy(f.leases), Replace: f.replace,
	}
	if f.spec != "" {
		err = f.fromSpec(fs, &o)
	} else {
		err = f.fromFlags(fs, &o)
	}
	if err != nil {
		return o, err
	}
	makesAll := o.Only == "" || len(o.Members) == 1
	if makesAll && f.nonce == "" && !fs.Changed("initial-cluster-token") {
		o.Nonce, err = snapshot.NewNonce(rand.Reader)
	}
	return o, err
}

// fromSpec takes the members of a cluster file.
func (f *restoreFlags) fromSpec(fs *pflag.FlagSet, o *snapshot.RestoreOptions) error {
	for _, name := range []string{"data-dir", "wal-dir", "initial-cluster", "initial-advertise-peer-urls"} {
		if fs.Changed(name) {
			return badArguments("--%s does not go with --cluster, whose file says it", name)
		}
	}
	data, err := os.ReadFile(f.spec)
	if err == nil {
		o.Members, err = snapshot.ParseSpec(data)
	}
	if err != nil {
		return badArguments("--cluster: %w", err)
	}
	for i, m := range o.Members {
		if m.DataDir == "" {
			o.Members[i].DataDir = m.Name + ".holdfast"
		}
	}
	if fs.Changed("name") {
		o.Only = f.name
	}
	return nil
}

// fromFlags takes the members of the flags that etcdutl has.
func (f *restoreFlags) fromFlags(fs *pflag.FlagSet, o *snapshot.RestoreOptions) error {
	if !fs.Changed("initial-cluster") {
		f.cluster = f.name + "=" + strings.ReplaceAll(f.peerURL, ",", ","+f.name+"=") // It alone.
	}
	at := map[string]int{}
	for part := range strings.SplitSeq(f.cluster, ",") {
		name, url, found := strings.Cut(strings.TrimSpace(part), "=")
		if !found {
			return badArguments("--initial-cluster: %q is not NAME=URL", part)
		}
		i, known := at[name]
		if !known {
			i = len(o.Members)
			at[name] = i
			o.Members = append(o.Members, snapshot.Target{Name: name})
		}
		o.Members[i].PeerURLs = append(o.Members[i].PeerURLs, url)
	}
	i, known := at[f.name]
	if !known {
		return badArguments("--name %s is not in --initial-cluster %s", f.name, f.cluster)
	}
	m := &o.Members[i]
	if fs.Changed("initial-advertise-peer-urls") && f.peerURL != strings.Join(m.PeerURLs, ",") {
		return badArguments("--initial-advertise-peer-urls is %s, but --initial-cluster gives %s the URLs %s", f.peerURL, f.name, strings.Join(m.PeerURLs, ","))
	}
	if m.DataDir, m.WALDir = f.dataDir, f.walDir; m.DataDir == "" {
		m.DataDir = f.name + cmp.Or(f.suffix, ".holdfast")
	}
	o.Only = f.name
	return nil
}

func (c *ctl) restore(ctx context.Context, f *restoreFlags, file string, options snapshot.RestoreOptions) error {
	head, err := snapshot.ReadHeader(vfs.OS(), file)
	if err != nil {
		return exit(exitFailed, err)
	}
	plan, err := snapshot.PlanRestore(head.Header, options)
	switch {
	case errors.Is(err, snapshot.ErrInvalid):
		return exit(exitArguments, err)
	case err != nil:
		return exit(exitFailed, err)
	}
	out := c.remarks()
	fmt.Fprint(out, plan)
	if f.dryRun {
		fmt.Fprintln(out, "Nothing was done: --dry-run.")
		return nil
	}
	return c.makeMembers(f, plan, options, func(cfg snapshot.RestoreConfig) error { return snapshot.Restore(ctx, cfg, file, plan) })
}

// makeMembers does what a plan says.
func (c *ctl) makeMembers(f *restoreFlags, plan *snapshot.Plan, options snapshot.RestoreOptions, restore func(snapshot.RestoreConfig) error) error {
	debug.SetGCPercent(snapshot.FillGCPercent)
	bar := c.progress("restoring", -1)
	err := restore(snapshot.RestoreConfig{
		FS: vfs.OS(), Clock: clock.Real(), Logger: c.logger(), Random: rand.Reader, SkipHashCheck: f.skipHash, Progress: bar.set,
	})
	bar.done()
	if errors.Is(err, snapshot.ErrNotEmpty) {
		err = fmt.Errorf("%w; choose another --data-dir, or --replace to rename it aside", err)
	}
	if err != nil {
		return exit(exitFailed, err)
	}
	c.restored(plan, options, f.others)
	return nil
}

// restored says how to go on.
func (c *ctl) restored(plan *snapshot.Plan, options snapshot.RestoreOptions, others string) {
	made, out := 0, c.remarks()
	fmt.Fprintln(out, "Restored. Start:")
	for _, m := range plan.ByName() {
		if !m.Make {
			continue
		}
		made++
		peers := strings.Join(m.PeerURLs, ",")
		fmt.Fprintf(out, "  holdfast --name %s --data-dir %s", m.Name, absolute(m.DataDir))
		if m.WALDir != "" {
			fmt.Fprintf(out, " --wal-dir %s", absolute(m.WALDir))
		}
		fmt.Fprintf(out, " --listen-peer-urls %s --initial-advertise-peer-urls %s", peers, peers)
		if len(m.ClientURLs) > 0 {
			urls := strings.Join(m.ClientURLs, ",")
			fmt.Fprintf(out, " --listen-client-urls %s --advertise-client-urls %s", urls, urls)
		}
		fmt.Fprintln(out)
	}
	if made == len(plan.Members) {
		return
	}
	if others != "" {
		fmt.Fprintf(out, "The other members, with the same other flags: %s\n", others)
		return
	}
	with := "--nonce " + options.Nonce
	if options.Nonce == "" {
		with = "--initial-cluster-token " + options.Token
	}
	fmt.Fprintf(out, "The other members: restore the same file with the same flags and %s, and --name and --data-dir of each.\n", with)
}

// remarks is where to say what etcdutl says on standard error only.
func (c *ctl) remarks() io.Writer {
	if c.is(etcdutl) {
		return c.err
	}
	return c.out
}
