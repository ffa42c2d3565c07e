package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/internal/build"
	"github.com/holdfast-db/holdfast/server"
)

// apiVersion is the protocol that the commands speak. Programs read these lines.
const apiVersion = "3.7"

func (c *ctl) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Prints the version of " + c.name(),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.tool != nil { // That of the program it stands for.
				fmt.Fprintf(c.out, "%s version: %s\nAPI version: %s\n", c.tool.name, server.ProtocolVersion, apiVersion)
				return nil
			}
			fmt.Fprintf(c.out, "holdfastctl version: %s\nAPI version: %s\nGo version: %s\n", build.Version(), apiVersion, runtime.Version())
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
			as := ", also as HOLDFASTCTL_ and ETCDCTL_ variables"
			if c.tool != nil {
				as = ""
			}
			fmt.Fprintf(c.out, "The following options can be passed to any command%s:\n\n%s", as, flags.FlagUsages())
			return nil
		},
	}
}
