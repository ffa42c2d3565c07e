package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/task"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// checkLoad is how much a check asks of a cluster, and of which size.
type checkLoad struct {
	clients            int
	rate               int           // Writes a second; 0: as fast as answers come.
	duration           time.Duration // 0: until all are written.
	total              int64         // 0: as many as the time allows.
	keyBytes, valBytes int
}

// The loads and what they must reach are etcdctl's, so that figures compare.
var (
	perfLoads = map[string]checkLoad{
		"s": perfLoad(50, 150), "m": perfLoad(200, 1000), "l": perfLoad(500, 8000), "xl": perfLoad(1000, 15000),
	}
	scaleLoads = map[string]checkLoad{
		"s": scaleLoad(50, 10_000), "m": scaleLoad(200, 100_000), "l": scaleLoad(500, 1_000_000), "xl": scaleLoad(1000, 3_000_000),
	}
	loadNames = map[string]string{"small": "s", "medium": "m", "large": "l", "xLarge": "xl"}
)

const (
	perfShareMin   = 0.9 // Of the rate.
	perfSlowestMax = 0.5 // Seconds.
	perfStddevMax  = 0.1

	cleanUpMax = 30 * time.Second // For each request that cleans up.
)

func perfLoad(clients, rate int) checkLoad {
	return checkLoad{clients: clients, rate: rate, duration: time.Minute, keyBytes: 256, valBytes: 1024}
}

func scaleLoad(clients int, total int64) checkLoad {
	return checkLoad{clients: clients, total: total, keyBytes: 512, valBytes: 512}
}

type checkFlags struct {
	load, prefix            string
	autoCompact, autoDefrag bool
}

func (f *checkFlags) declare(fs *pflag.FlagSet, prefix string) {
	fs.StringVar(&f.load, "load", "s", "how much: s(small), m(medium), l(large), xl(xLarge)")
	fs.StringVar(&f.prefix, "prefix", prefix, "prefix of the keys that are written; there must be none before, and none are left")
	fs.BoolVar(&f.autoCompact, "auto-compact", false, "compact the history at the end")
	fs.BoolVar(&f.autoDefrag, "auto-defrag", false, "defragment the endpoints at the end")
}

// find is the load of a name.
func (f *checkFlags) find(loads map[string]checkLoad, args []string) (checkLoad, error) {
	name := f.load
	if short := loadNames[name]; short != "" {
		name = short
	}
	load, ok := loads[name]
	switch {
	case !ok:
		return load, badFeature("unknown load option %v: use s, m, l or xl", f.load)
	case len(args) > 0:
		return load, badArguments("check takes no arguments: %q", args)
	case f.prefix == "":
		return load, badArguments("--prefix must not be empty: all keys that begin with it are removed at the end")
	}
	return load, nil
}

func (c *ctl) checkCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "check <subcommand>", Short: "Checks what a cluster can carry"}
	cmd.AddCommand(
		c.checkVerb("perf", "Check the performance of the etcd cluster", `Writes for a minute at an even rate, and judges throughput and latencies.
The last line is PASS or FAIL, and the exit code says the same.
`, perfLoads, "/etcdctl-check-perf/", c.checkPerf),
		c.checkVerb("datascale", "Check the memory usage of holding data for different workloads on a given server endpoint.",
			"Writes keys, and prints by how much the memory of the first endpoint has grown meanwhile.\n",
			scaleLoads, "/etcdctl-check-datascale/", c.checkScale))
	return cmd
}

func (c *ctl) checkVerb(
	name, short, long string, loads map[string]checkLoad, prefix string, run func(context.Context, *checkFlags, checkLoad) error,
) *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   name + " [options]",
		Short: short,
		Long:  long,
		RunE: func(cmd *cobra.Command, args []string) error {
			load, err := f.find(loads, args)
			if err != nil {
				return err
			}
			return run(cmd.Context(), &f, load)
		},
	}
	f.declare(cmd.Flags(), prefix)
	return cmd
}

// check is a load under way.
type check struct {
	*ctl
	flags *checkFlags
	load  checkLoad
	cl    *client.Client

	issued atomic.Int64
	mu     sync.Mutex // Guards what was measured.
	count  int64
	sum    float64 // Of seconds.
	square float64
	worst  float64
	errors map[string]int
}

// newCheck makes sure that nothing is below the prefix, as all of it goes at the end.
func (c *ctl) newCheck(ctx context.Context, f *checkFlags, load checkLoad) (*check, error) {
	cl, err := c.client()
	if err != nil {
		return nil, err
	}
	k := &check{ctl: c, flags: f, load: load, cl: cl, errors: map[string]int{}}
	short, cancel := c.limited(ctx)
	defer cancel()
	r, err := cl.Get(short, client.Get{Range: client.Prefix(f.prefix), Limit: 1, KeysOnly: true})
	switch {
	case err != nil:
		err = exit(exitFailed, err)
	case len(r.Kvs) > 0:
		err = exit(exitInput, fmt.Errorf("prefix %[2]q has keys. Delete with '%[1]s del --prefix %[2]s' first", c.name(), f.prefix))
	}
	if err != nil {
		return nil, errors.Join(err, cl.Close())
	}
	return k, nil
}

// run writes what the load wants, and returns how many seconds that took.
func (k *check) run(ctx context.Context, what string) (seconds float64, err error) {
	stop := k.showProgress(ctx, what)
	defer stop()
	start := time.Now()
	g := task.New(ctx)
	for range k.load.clients {
		g.Go("client", func(ctx context.Context) error { return k.write(ctx, start) })
	}
	err = g.Wait()
	return time.Since(start).Seconds(), err
}

// write is one client: it writes, waits for the answer, and goes on.
func (k *check) write(ctx context.Context, start time.Time) error {
	value := make([]byte, k.load.valBytes)
	for {
		n := k.issued.Add(1) - 1
		if k.load.total > 0 && n >= k.load.total {
			return nil
		}
		due := time.Since(start)
		if k.load.rate > 0 {
			due = max(due, time.Duration(float64(n)/float64(k.load.rate)*float64(time.Second)))
		}
		if k.load.duration > 0 && due >= k.load.duration {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(due - time.Since(start)):
		}
		// The multiplier scatters the keys, and no two are equal.
		key := fmt.Sprintf("%s%0*x", k.flags.prefix, k.load.keyBytes, uint64(n)*0x9e3779b97f4a7c15)
		sent := time.Now()
		_, err := k.cl.Put(ctx, client.Put{Key: key, Value: value})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		k.measured(time.Since(sent).Seconds(), err)
	}
}

func (k *check) measured(seconds float64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.errors[err.Error()]++
		return
	}
	k.count++
	k.sum += seconds
	k.square += seconds * seconds
	k.worst = max(k.worst, seconds)
}

func (k *check) stddev() float64 {
	n := max(float64(k.count), 1)
	return math.Sqrt(max(k.square/n-k.sum/n*k.sum/n, 0))
}

// showProgress shows how far it has come, if somebody is looking.
func (k *check) showProgress(ctx context.Context, what string) (stop func()) {
	if !terminal(k.err) {
		return func() {}
	}
	total := max(k.load.total, int64(k.load.rate)*int64(k.load.duration/time.Second))
	bar := progressbar.NewOptions64(total, progressbar.OptionSetWriter(k.err), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
	g := task.New(ctx)
	g.Go("progress", func(ctx context.Context) error {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				_ = bar.Set64(min(k.issued.Load(), total)) // A bar that cannot be drawn is no reason to fail.
			}
		}
	})
	return func() {
		g.Stop()
		_ = bar.Finish()
	}
}

// cleanUp removes what was written, also after an interrupt.
func (k *check) cleanUp(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	within := func(call func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, cleanUpMax)
		defer cancel()
		return call(ctx)
	}
	var gone *pb.DeleteRangeResponse
	err := within(func(ctx context.Context) (err error) {
		gone, err = k.cl.Delete(ctx, client.Delete{Range: client.Prefix(k.flags.prefix)})
		return err
	})
	if err != nil {
		return fmt.Errorf("keys with the prefix %q are left: %w", k.flags.prefix, err)
	}
	if k.flags.autoCompact {
		rev := gone.Header.GetRevision()
		fmt.Fprintf(k.out, "Compacting with revision %d\n", rev)
		err := within(func(ctx context.Context) error {
			_, err := k.cl.Compact(ctx, rev, true)
			return err
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(k.out, "Compacted with revision %d\n", rev)
	}
	if !k.flags.autoDefrag {
		return nil
	}
	for _, e := range k.globals.endpoints {
		fmt.Fprintf(k.out, "Defragmenting %q\n", e)
		err := within(func(ctx context.Context) error {
			cl, err := k.clientTo([]string{e})
			if err != nil {
				return err
			}
			defer cl.Close()
			_, err = cl.Defragment(ctx)
			return err
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(k.out, "Defragmented %q\n", e)
	}
	return nil
}

// finish cleans up, and reports how the run itself has ended.
func (k *check) finish(ctx context.Context, err error) error {
	interrupted := ctx.Err() != nil
	if cleanErr := k.cleanUp(ctx); cleanErr != nil {
		return exit(exitFailed, errors.Join(err, cleanErr))
	}
	if interrupted {
		return exit(exitInterrupted, errors.New("interrupted, what was written is removed"))
	}
	return exit(exitFailed, err)
}

// printErrors says which requests have failed.
func (k *check) printErrors() bool {
	if len(k.errors) == 0 {
		return false
	}
	fmt.Fprintln(k.out, "FAIL: too many errors")
	for _, text := range slices.Sorted(maps.Keys(k.errors)) {
		fmt.Fprintf(k.out, "FAIL: ERROR(%s) -> %d\n", text, k.errors[text])
	}
	return true
}

func (c *ctl) checkPerf(ctx context.Context, f *checkFlags, load checkLoad) error {
	k, err := c.newCheck(ctx, f, load)
	if err != nil {
		return err
	}
	defer k.cl.Close()
	seconds, err := k.run(ctx, "writing")
	if err := k.finish(ctx, err); err != nil {
		return err
	}
	failed := k.printErrors()
	judge := func(bad bool, fail, pass string, value any) {
		format := pass
		if bad {
			format, failed = fail, true
		}
		fmt.Fprintf(c.out, format+"\n", value)
	}
	perSecond := float64(k.count) / seconds
	judge(perSecond/float64(load.rate) <= perfShareMin, "FAIL: Throughput too low: %d writes/s", "PASS: Throughput is %d writes/s", int(perSecond)+1)
	judge(k.worst > perfSlowestMax, "Slowest request took too long: %fs", "PASS: Slowest request took %fs", k.worst)
	judge(k.stddev() > perfStddevMax, "Stddev too high: %fs", "PASS: Stddev is %fs", k.stddev())
	if failed {
		fmt.Fprintln(c.out, "FAIL")
		return &exitError{code: exitFailed}
	}
	fmt.Fprintln(c.out, "PASS")
	return nil
}
