package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/holdfast-db/holdfast/tests/bench/process"
)

// report gathers figures. It is also the form of the JSON.
type report struct {
	Command  string    `json:"command"`
	Seed     uint64    `json:"seed"`
	Rounds   int       `json:"rounds"`
	Seconds  float64   `json:"seconds"`
	Etcd     string    `json:"etcd"`
	Holdfast string    `json:"holdfast"`
	Go       string    `json:"go"`
	Machine  string    `json:"machine"`
	Results  []*result `json:"results"`
}

// result is one figure of one measure: all that was measured, by round.
type result struct {
	Measure string       `json:"measure"`
	Figure  string       `json:"figure"`
	Unit    string       `json:"unit"`
	Values  [2][]float64 `json:"values"` // etcd, holdfast.
	Medians [2]float64   `json:"medians"`
	Ratio   float64      `json:"ratio"`  // holdfast to etcd, of the medians.
	Spread  [2]float64   `json:"spread"` // Smallest and largest ratio of a round.
}

func newReport(ctx context.Context, b *bench, kinds []process.Kind) *report {
	return &report{
		Command: strings.Join(append([]string{"bench"}, os.Args[1:]...), " "),
		Seed:    b.seed, Rounds: b.rounds, Seconds: b.window.Seconds(),
		Etcd: etcdVersion(ctx, kinds[0].Path), Holdfast: commit(ctx), Go: runtime.Version(), Machine: machine(b.dir),
	}
}

// etcdVersion as the program itself tells it.
func etcdVersion(ctx context.Context, peer string) string {
	out, err := exec.CommandContext(ctx, peer, "--version").Output()
	if err != nil {
		return "unknown" // A program of the user's choice.
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimPrefix(line, "etcd Version: ")
}

func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// machine in one line.
func machine(dir string) string {
	model := "unknown processor"
	cpus, _ := os.ReadFile("/proc/cpuinfo") // Nothing depends on it.
	for line := range strings.Lines(string(cpus)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	var fs syscall.Statfs_t
	syscall.Statfs(dir, &fs)
	return fmt.Sprintf("%d × %s, Linux %s, file system type %#x", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), fs.Type)
}

func (r *report) add(measure string, which int, figures []figure) {
	for _, f := range figures {
		i := slices.IndexFunc(r.Results, func(o *result) bool { return o.Measure == measure && o.Figure == f.Name })
		if i < 0 {
			i = len(r.Results)
			r.Results = append(r.Results, &result{Measure: measure, Figure: f.Name, Unit: f.Unit})
		}
		r.Results[i].Values[which] = append(r.Results[i].Values[which], f.Value)
	}
}

func (r *result) conclude() {
	var ratios []float64
	for i := range r.Values[0] {
		ratios = append(ratios, ratio(r.Values[1][i], r.Values[0][i]))
	}
	r.Medians = [2]float64{median(r.Values[0]), median(r.Values[1])}
	r.Ratio = ratio(r.Medians[1], r.Medians[0])
	r.Spread = [2]float64{slices.Min(ratios), slices.Max(ratios)}
}

// ratio is 0 where there is none: JSON has no other number for it.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}

func (r *report) print(w io.Writer, how string) error {
	for _, res := range r.Results {
		res.conclude()
	}
	if how == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	fmt.Fprintf(w, "etcd %s, holdfast %s, %s\n%s\n%d rounds of %g s, seed %d: %s\n\n", r.Etcd, r.Holdfast, r.Go, r.Machine, r.Rounds, r.Seconds, r.Seed, r.Command)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "measure\tfigure\tunit\tpeer\tholdfast\tratio\tspread\t")
	last := ""
	for _, res := range r.Results {
		name := res.Measure
		if name == last {
			name = ""
		}
		last = res.Measure
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.2f\t%.2f – %.2f\t\n", name, res.Figure, res.Unit,
			number(res.Medians[0]), number(res.Medians[1]), res.Ratio, res.Spread[0], res.Spread[1])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, m := range measures {
		if slices.ContainsFunc(r.Results, func(o *result) bool { return o.Measure == m.name }) {
			fmt.Fprintf(w, "%s: %s\n", m.name, m.about)
		}
	}
	return nil
}

// number with three digits that count.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
