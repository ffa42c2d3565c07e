package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// apiVersion is the protocol that the commands speak. Programs read these lines.
const apiVersion = "3.7"

func (c *ctl) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Prints the version of holdfastctl",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			version := "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				version = info.Main.Version
			}
			fmt.Fprintf(c.out, "holdfastctl version: %s\nAPI version: %s\nGo version: %s\n", version, apiVersion, runtime.Version())
			return nil
		},
	}
}

func (c *ctl) optionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "options",
		Short: "Prints the flags that every command has",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			flags := cmd.Root().PersistentFlags()
			flags.VisitAll(func(f *pflag.Flag) { f.Hidden = false })
			fmt.Fprintf(c.out, "The following options can be passed to any command, also as HOLDFASTCTL_ and ETCDCTL_ variables:\n\n%s", flags.FlagUsages())
			return nil
		},
	}
}
