package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/snapshot/archive"
)

func (c *ctl) backupCostCommand() *cobra.Command {
	var f archiveFlags
	var keep []time.Duration
	var bases int
	cmd := &cobra.Command{
		Use:   "cost",
		Short: "Shows how much an archive takes up, and what a retention would keep of it",
		Long: `Shows the objects and bytes of an archive: by kind, by the day on which they were
written, and what backup prune would leave for each of some windows, given a good drill
of the newest base. It reads lists and manifests, and changes nothing.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 0 {
				return badArguments("backup cost takes no arguments: the archive is --archive")
			}
			if err := c.needForm(formSimple, formJSON); err != nil {
				return err
			}
			var kept []archive.Retention
			for _, window := range keep {
				if window < 0 || bases < 1 {
					return badArguments("--keep %s must not be negative, --keep-bases %d not below 1", window, bases)
				}
				kept = append(kept, archive.Retention{Window: window, Bases: bases})
			}
			a, store, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer store.Close()
			facts, err := a.PruneFacts(cmd.Context(), clock.Real().Wall())
			if err != nil {
				return exit(exitFailed, err)
			}
			cost := archive.CostOf(facts, kept)
			return c.print(answer{json: cost, simple: func(p *page) { showCost(p, &cost) }})
		},
	}
	f.declare(cmd.Flags())
	cmd.Flags().DurationSliceVar(&keep, "keep", []time.Duration{24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour}, "windows of time to look at, as --keep of backup prune")
	cmd.Flags().IntVar(&bases, "keep-bases", 2, "how many bases are kept at least")
	return cmd
}

// showCost prints three tables.
func showCost(p *page, c *archive.Cost) {
	fmt.Fprintf(p, "archive of cluster %s\n", c.Cluster)
	kinds := &grid{head: []string{"", "objects", "size"}}
	for _, k := range c.Kinds {
		kinds.add(k.Kind, fmt.Sprint(k.Objects), sizeText(k.Bytes))
	}
	kinds.add("total", fmt.Sprint(c.Total.Objects), sizeText(c.Total.Bytes))
	p.table(kinds)
	days := &grid{head: []string{"written on", "bases: objects", "size", "log: objects", "size"}}
	for _, d := range c.Days {
		days.add(d.Day, fmt.Sprint(d.Bases.Objects), sizeText(d.Bases.Bytes), fmt.Sprint(d.Log.Objects), sizeText(d.Log.Bytes))
	}
	p.table(days)
	kept := &grid{head: []string{"retention", "stays: objects", "size", "goes: objects", "size", "from entry", "since"}}
	for _, k := range c.Kept {
		kept.add(k.Keep, fmt.Sprint(k.Stays.Objects), sizeText(k.Stays.Bytes), fmt.Sprint(k.Goes.Objects), sizeText(k.Goes.Bytes), fmt.Sprint(k.Base), k.Why)
	}
	p.table(kept)
}
