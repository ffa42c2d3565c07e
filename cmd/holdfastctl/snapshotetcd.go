package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/snapshot/etcd"
)

func (c *ctl) snapshotImportCommand() *cobra.Command {
	var walDir string
	cmd := &cobra.Command{
		Use:   "import <source> <filename>",
		Short: "Makes a snapshot file out of etcd's",
		Long: `Makes a snapshot file, for 'snapshot restore', out of what etcd 3.4 to 3.7 has written:
a file of 'etcdctl snapshot save', or the data directory of an etcd that is stopped. In a
directory the log is read too, up to the last entry that was committed for certain.

Keys come as they are, with create and mod revision, version and lease; so does the
revision. Revisions before it count as compacted. Leases have their full time again when
the new cluster starts. Members are not carried over; nor are users and roles.
The source is only read. Damage in it is named with its place, and nothing is written.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return badArguments("snapshot import expects a source of etcd's and the name of the file to make")
			}
			bar := c.progress("importing", -1)
			cfg := c.etcdFiles(bar)
			cfg.WALDir = walDir
			r, err := etcd.Import(cmd.Context(), cfg, args[0], args[1])
			bar.done()
			if err != nil {
				return exit(exitFailed, err)
			}
			c.imported(r, args[1])
			return nil
		},
	}
	cmd.Flags().StringVar(&walDir, "wal-dir", "", "where the log of that etcd is, if it is not within its data directory")
	return cmd
}

func (c *ctl) etcdFiles(bar *progress) etcd.Config {
	return etcd.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: c.logger(), ClusterLevel: apiVersion, Progress: bar.set}
}

// imported says what was taken over, and all that was not.
func (c *ctl) imported(r *etcd.Report, file string) {
	fmt.Fprintf(c.out, "Snapshot made at %s\nRevision %d, keys %d, leases %d, entry %d of etcd's log, %s\n",
		file, r.Revision, r.Keys, r.Leases, r.Applied, sizeText(r.Bytes))
	if r.FromLog > 0 {
		fmt.Fprintf(c.out, "%d entries came from the log, beyond the database.\n", r.FromLog)
	}
	if r.Users+r.Roles > 0 || r.AuthEnabled {
		state := "off"
		if r.AuthEnabled {
			state = "on"
		}
		fmt.Fprintf(c.out, "Users %d, roles %d, authentication is %s as it was.\n", r.Users, r.Roles, state)
	}
	var left []string
	if r.Uncertain > 0 {
		left = append(left, fmt.Sprintf("%d entries at the end of the log, as this member alone cannot tell whether they were committed; "+
			"if other members' directories are there, import the one with the highest revision", r.Uncertain))
	}
	left = append(left, "members, and revisions before the newest, which count as compacted")
	fmt.Fprintf(c.out, "Left out: %s.\n", strings.Join(left, "; "))
	if r.TornEnd {
		fmt.Fprintln(c.err, "Warning: the newest record of etcd's log was written in part, as a power cut leaves it, and is left out.")
	}
	if !r.Hashed {
		fmt.Fprintln(c.err, "Warning: the source does not end in a hash, as a file of 'snapshot save' does: its structure was checked, its values could not be.")
	}
	fmt.Fprintf(c.out, "Go on with: holdfastctl snapshot restore %s --data-dir DIR\n", file)
}

func (c *ctl) snapshotExportCommand() *cobra.Command {
	var format, version string
	cmd := &cobra.Command{
		Use:   "export <filename> <target> --format etcd",
		Short: "Makes a file that etcd restores out of a snapshot",
		Long: `Makes a file that 'etcdutl snapshot restore' takes (in 3.4 'etcdctl snapshot restore').

Every byte of the snapshot is verified. Keys have the create and mod revisions, versions
and leases that they have here, and etcd begins at the same revision; those before it count
as compacted. Alarms are left out; members are named at the restore.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return badArguments("snapshot export expects a snapshot and the name of the file to make")
			}
			if format != "etcd" {
				return badFeature("--format %q: the one format to export to is etcd", format)
			}
			bar := c.progress("exporting", -1)
			r, err := etcd.Export(cmd.Context(), c.etcdFiles(bar), args[0], args[1], version)
			bar.done()
			if err != nil {
				return exit(exitFailed, err)
			}
			fmt.Fprintf(c.out, "Snapshot for etcd %s made at %s\nRevision %d, keys %d, leases %d, %s\n", version, args[1], r.Revision, r.Keys, r.Leases, sizeText(r.Bytes))
			if r.Users+r.Roles > 0 {
				fmt.Fprintf(c.out, "Users %d, roles %d.\n", r.Users, r.Roles)
			}
			if r.Alarms > 0 {
				fmt.Fprintf(c.out, "Left out: %d alarms.\n", r.Alarms)
			}
			program := "etcdutl"
			if version == "3.4" {
				program = "ETCDCTL_API=3 etcdctl"
			}
			fmt.Fprintf(c.out, "Go on with: %s snapshot restore %s --data-dir DIR\n", program, args[1])
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "etcd", "what to make; etcd is the one there is")
	cmd.Flags().StringVar(&version, "etcd-version", "3.7", "the etcd that shall restore it: "+strings.Join(etcd.Versions, ", "))
	return cmd
}
