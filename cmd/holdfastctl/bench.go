package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/cmd/holdfastctl/load"
)

var benchForms = []string{formSimple, formTable, formJSON}

type benchFlags struct {
	cfg      load.Config
	workload load.Workload
	fill     bool

	writers int
	whole   bool
	renew   bool
}

func (f *benchFlags) declare(fs *pflag.FlagSet) {
	fs.IntVar(&f.cfg.Clients, "clients", 100, "simulated clients: so many requests are under way at a time")
	fs.IntVar(&f.cfg.Conns, "conns", 10, "connections to carry them, spread over the endpoints")
	fs.Float64Var(&f.cfg.Rate, "rate", 0, "requests a second; latencies count from when each was due (default: as fast as answers come)")
	fs.Int64Var(&f.cfg.Total, "total", 0, "number of requests (default 10000, if there is no --duration)")
	fs.DurationVar(&f.cfg.Duration, "duration", 0, "end after this time")
}

func (f *benchFlags) declareKeys(fs *pflag.FlagSet) {
	w := &f.workload
	fs.StringVar(&w.Prefix, "prefix", "bench/", "prefix of all keys")
	fs.IntVar(&w.KeyBytes, "key-size", 32, "bytes of a key")
	fs.IntVar(&w.ValueBytes, "val-size", 256, "bytes of a value")
	fs.Int64Var(&w.KeySpace, "key-space", 100_000, "number of different keys")
	fs.BoolVar(&w.Sequential, "sequential", false, "take the keys in turn (default: at random)")
}

func (f *benchFlags) declareReads(fs *pflag.FlagSet) {
	fs.BoolVar(&f.workload.Serializable, "serializable", false, "read what the member asked has, without a quorum")
	fs.BoolVar(&f.fill, "fill", false, "put all keys before, without measuring that")
}

func (c *ctl) benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench <subcommand>",
		Short: "Measures how fast a cluster answers",
		Long: `Makes requests and measures how long the answers take, against any server of the
etcd v3 protocol. The keys written stay: they begin with --prefix.
`,
	}
	cmd.AddCommand(
		c.benchVerb("put", "Puts keys", load.Put, nil),
		c.benchVerb("get", "Gets single keys", load.Get, func(f *benchFlags, fs *pflag.FlagSet) { f.declareReads(fs) }),
		c.benchVerb("range", "Gets adjacent keys", load.Range, func(f *benchFlags, fs *pflag.FlagSet) {
			f.declareReads(fs)
			fs.IntVar(&f.workload.Span, "keys", 100, "keys of one request")
			fs.BoolVar(&f.workload.KeysOnly, "keys-only", false, "get keys without values")
		}),
		c.benchVerb("txn", "Puts several keys at once", load.Txn, func(f *benchFlags, fs *pflag.FlagSet) {
			fs.IntVar(&f.workload.Span, "keys", 4, "keys of one transaction")
		}),
		c.benchVerb("lease", "Grants leases, or renews them", load.Grant, func(f *benchFlags, fs *pflag.FlagSet) {
			fs.Int64Var(&f.workload.TTL, "ttl", 60, "seconds that a lease lives")
			fs.BoolVar(&f.renew, "renew", false, "let each client make one lease and renew it")
		}),
		c.benchWatchCommand())
	return cmd
}

func (c *ctl) benchVerb(name, short string, kind load.Kind, declare func(*benchFlags, *pflag.FlagSet)) *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.workload.Kind = kind
			if f.renew {
				f.workload.Kind = load.Renew
			}
			return c.bench(cmd.Context(), name, &f, args)
		},
	}
	f.declare(cmd.Flags())
	if kind != load.Grant {
		f.declareKeys(cmd.Flags())
	}
	if declare != nil {
		declare(&f, cmd.Flags())
	}
	return cmd
}

func (c *ctl) benchWatchCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Puts keys and measures how long events take to watchers",
		Long: `Puts keys and measures how long the events take to the watchers, from when the put
was sent. --clients is the number of watchers; each watches one key of --key-space
in turn, or all keys with --whole.
`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.benchWatch(cmd.Context(), &f, args)
		},
	}
	fs := cmd.Flags()
	f.declare(fs)
	f.declareKeys(fs)
	fs.IntVar(&f.writers, "writers", 1, "simulated clients that put")
	fs.BoolVar(&f.whole, "whole", false, "let each watcher watch all keys")
	f.workload.KeySpace = 0
	fs.Lookup("key-space").DefValue = "one for each watcher"
	return cmd
}

// prepareBench fills in what the global flags say.
func (c *ctl) prepareBench(f *benchFlags, args []string) (err error) {
	if len(args) > 0 {
		return badArguments("bench takes no arguments: %q", args)
	}
	if err := c.needForm(benchForms...); err != nil {
		return err
	}
	if f.cfg.Total == 0 && f.cfg.Duration == 0 {
		f.cfg.Total = 10_000
	}
	f.cfg.Conns = min(f.cfg.Conns, f.cfg.Clients)
	f.cfg.Endpoints = c.globals.endpoints
	f.cfg.TLS, err = c.tls()
	f.cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, c.globals.dialTimeout)
		defer cancel()
		if c.dial != nil {
			return c.dial(ctx, address)
		}
		network := "tcp"
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			network, address = "unix", path
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return exit(exitArguments, err)
}

func (c *ctl) bench(ctx context.Context, name string, f *benchFlags, args []string) error {
	if err := c.prepareBench(f, args); err != nil {
		return err
	}
	if f.fill {
		if err := c.fill(ctx, f); err != nil {
			return err
		}
	}
	stop := c.benchProgress(f, name)
	r, err := load.Run(ctx, f.cfg, f.workload)
	stop()
	if r == nil {
		return notBegun(err)
	}
	return errors.Join(c.print(benchAnswer(name, f, r, nil)), benchFailure(r, err))
}

// notBegun is the end of a run without a result: its flags are wrong, or nobody
// takes its connections.
func notBegun(err error) error {
	if errors.Is(err, load.ErrConnect) {
		return exit(exitFailed, err)
	}
	return exit(exitArguments, err)
}

// benchFailure makes a run that did not go well end with an exit code.
func benchFailure(r *load.Result, err error) error {
	if err == nil && r.Failed() > 0 {
		err = fmt.Errorf("%d requests failed", r.Failed())
	}
	return exit(exitFailed, err)
}

// fill puts every key once.
func (c *ctl) fill(ctx context.Context, f *benchFlags) error {
	cfg, w := f.cfg, f.workload
	cfg.Total, cfg.Duration, cfg.Rate = w.KeySpace, 0, 0
	w.Kind, w.Sequential = load.Put, true
	r, err := load.Run(ctx, cfg, w)
	if err == nil {
		err = benchFailure(r, nil)
	}
	if err != nil {
		return exit(exitFailed, fmt.Errorf("put the keys: %w", err))
	}
	return nil
}

func (c *ctl) benchWatch(ctx context.Context, f *benchFlags, args []string) error {
	if err := c.prepareBench(f, args); err != nil {
		return err
	}
	if f.workload.KeySpace == 0 {
		f.workload.KeySpace = int64(f.cfg.Clients)
	}
	stop := c.benchProgress(f, "watch")
	r, err := load.RunWatch(ctx, f.cfg, f.workload, f.writers, f.whole)
	stop()
	if r == nil || r.Result == nil {
		return notBegun(err)
	}
	if err == nil && r.Missing > 0 {
		err = fmt.Errorf("%d events did not come", r.Missing)
	}
	return errors.Join(c.print(benchAnswer("watch", f, r.Result, r)), benchFailure(r.Result, err))
}

// benchProgress shows how far a run has come.
func (c *ctl) benchProgress(f *benchFlags, name string) (stop func()) {
	if !terminal(c.err) {
		return func() {}
	}
	total := f.cfg.Total
	if total == 0 {
		total = -1
	}
	bar := progressbar.NewOptions64(total, progressbar.OptionSetWriter(c.err), progressbar.OptionSetDescription(name),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
	f.cfg.Progress = func(done int64) { _ = bar.Set64(done) } // A bar that cannot be drawn is no reason to fail.
	return func() { _ = bar.Finish() }
}

// latencyJSON is in milliseconds.
type latencyJSON struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
	Mean float64 `json:"mean"`
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func latencyToJSON(h *load.Histogram) latencyJSON {
	return latencyJSON{
		millis(h.Quantile(0.5)), millis(h.Quantile(0.9)), millis(h.Quantile(0.99)), millis(h.Quantile(0.999)), millis(h.Max()), millis(h.Mean()),
	}
}

// benchJSON is a result for programs.
type benchJSON struct {
	Bench     string           `json:"bench"`
	Endpoints []string         `json:"endpoints"`
	Clients   int              `json:"clients"`
	Conns     int              `json:"conns"`
	KeyBytes  int              `json:"keySize,omitempty"`
	ValBytes  int              `json:"valSize,omitempty"`
	KeySpace  int64            `json:"keySpace,omitempty"`
	Requests  int64            `json:"requests"` // Answered without error.
	Failed    int64            `json:"failed"`
	Errors    map[string]int64 `json:"errors,omitempty"`
	Seconds   float64          `json:"seconds"`
	PerSecond float64          `json:"perSecond"`
	Keys      int64            `json:"keys,omitempty"` // Written, or found.
	Sent      int64            `json:"sentBytes"`
	Received  int64            `json:"receivedBytes"`
	Latency   latencyJSON      `json:"latencyMs"`

	Events          int64        `json:"events,omitempty"`
	EventsPerSecond float64      `json:"eventsPerSecond,omitempty"`
	Missing         int64        `json:"missing,omitempty"`
	Delivery        *latencyJSON `json:"deliveryMs,omitempty"`
}

func benchAnswer(name string, f *benchFlags, r *load.Result, w *load.WatchResult) answer {
	seconds := max(r.Elapsed.Seconds(), 1e-9)
	j := benchJSON{
		Bench: name, Endpoints: f.cfg.Endpoints, Clients: f.cfg.Clients, Conns: f.cfg.Conns,
		KeyBytes: f.workload.KeyBytes, ValBytes: f.workload.ValueBytes, KeySpace: f.workload.KeySpace,
		Requests: r.Requests, Failed: r.Failed(), Errors: r.Errors, Seconds: seconds, PerSecond: float64(r.Requests) / seconds,
		Keys: r.Keys, Sent: r.Sent, Received: r.Received, Latency: latencyToJSON(&r.Latency),
	}
	table := &grid{plain: true, head: []string{"", "P50 MS", "P90 MS", "P99 MS", "P99.9 MS", "MAX MS", "MEAN MS"}}
	row := func(name string, l latencyJSON) {
		cells := []string{name}
		for _, v := range []float64{l.P50, l.P90, l.P99, l.P999, l.Max, l.Mean} {
			cells = append(cells, fmt.Sprintf("%.3f", v))
		}
		table.add(cells...)
	}
	verb := name
	if w != nil {
		verb = "put"
	}
	row(verb, j.Latency)
	if w != nil {
		d := latencyToJSON(&w.Delivery)
		j.Events, j.EventsPerSecond, j.Missing, j.Delivery = w.Events, float64(w.Events)/seconds, w.Missing, &d
		row("event", d)
	}
	return answer{json: j, table: table, simple: func(p *page) {
		p.printf("%s: %d requests in %.2f s, %.0f a second, %d failed; %d clients on %d connections\n",
			verb, j.Requests, j.Seconds, j.PerSecond, j.Failed, j.Clients, j.Conns)
		if w != nil {
			p.printf("watch: %d events to %d watchers, %.0f a second, %d missing\n", j.Events, w.Watchers, j.EventsPerSecond, j.Missing)
		}
		for _, text := range slices.Sorted(maps.Keys(j.Errors)) {
			p.printf("error: %s (%d times)\n", text, j.Errors[text])
		}
		p.table(table)
	}}
}
