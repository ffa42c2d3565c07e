// Command bench measures holdfast beside etcd: each server its own process with
// its defaults, the same clients, the same file system, turn by turn.
//
//	go run . [-rounds 5] [-seconds 5] [-only put-100,range] [-w json]
//
// What is measured stands in measures.go; what the clients do, in package load.
// Every acknowledged put is read back after the servers were killed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/process"
)

// bench is one run of this program.
type bench struct {
	rounds   int
	window   time.Duration
	only     string
	output   string
	dir      string
	seed     uint64
	perConn  int
	profiles string
	ours     string
	peer     string
	keys     int
}

func main() {
	b := &bench{}
	flag.IntVar(&b.rounds, "rounds", 5, "how often everything is measured")
	seconds := flag.Float64("seconds", 5, "length of a measured window")
	flag.StringVar(&b.only, "only", "", "measures to take, comma-separated; ^ and * as in a regular expression (default: all)")
	flag.StringVar(&b.output, "w", "table", "what is printed: table or json")
	flag.StringVar(&b.dir, "dir", "", "folder for data, on a disk (default: .cache/bench of the tree)")
	flag.Uint64Var(&b.seed, "seed", 1, "of keys and values")
	flag.IntVar(&b.perConn, "clients-per-connection", 10, "clients that share a connection")
	flag.StringVar(&b.profiles, "profiles", "", "folder for CPU profiles of the measured windows")
	flag.StringVar(&b.ours, "holdfast", "", "program to measure (default: built from this tree)")
	flag.StringVar(&b.peer, "peer", "", "program to compare with (default: etcd)")
	flag.IntVar(&b.keys, "keys", 1_000_000, "keys where many are measured")
	flag.Parse()
	b.window = time.Duration(*seconds * float64(time.Second))
	if err := b.run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) run() error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	defer process.KillAll()
	context.AfterFunc(ctx, process.KillAll)
	if b.dir == "" {
		b.dir = filepath.Join("..", "..", ".cache", "bench")
	}
	dir, err := filepath.Abs(b.dir)
	if err != nil {
		return err
	}
	b.dir = dir
	if err := onDisk(b.dir); err != nil {
		return err
	}
	kinds, err := b.build(ctx)
	if err != nil {
		return err
	}
	chosen, err := b.chosen()
	if err != nil {
		return err
	}
	r := newReport(ctx, b, kinds)
	for round := range b.rounds {
		for _, m := range chosen {
			if err := b.measure(ctx, r, &m, kinds, round); err != nil {
				return errors.Join(err, ctx.Err())
			}
		}
	}
	return r.print(os.Stdout, b.output)
}

// chosen measures, by name.
func (b *bench) chosen() ([]measure, error) {
	if b.only == "" {
		return measures, nil
	}
	names, err := regexp.Compile("^(" + strings.ReplaceAll(b.only, ",", "|") + ")$")
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	var chosen []measure
	for _, m := range measures {
		if names.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		var known []string
		for _, m := range measures {
			known = append(known, m.name)
		}
		return nil, fmt.Errorf("-only %q fits none of %s", b.only, strings.Join(known, ", "))
	}
	return chosen, nil
}

// measure takes one measure of both kinds. Who begins changes every round.
func (b *bench) measure(ctx context.Context, r *report, m *measure, kinds []process.Kind, round int) error {
	kinds = m.kinds(kinds)
	if m.by != "" {
		var err error
		if kinds, err = b.withAndWithoutUsers(m.by, kinds[1]); err != nil {
			return err
		}
	}
	for turn := range kinds {
		which := (turn + round) % len(kinds)
		kind := kinds[which]
		fmt.Fprintf(os.Stderr, "round %d of %d: %s, %s\n", round+1, b.rounds, m.name, kind.Name)
		c, err := process.New(kind, filepath.Join(b.dir, kind.Name), m.members)
		if err != nil {
			return err
		}
		t := &trial{bench: b, Cluster: c, name: m.name, seed: b.seed + uint64(round)}
		figures, err := m.take(ctx, t)
		if err != nil {
			return fmt.Errorf("%s of %s: %w (data kept in %s)", m.name, kind.Name, err, b.dir)
		}
		r.add(m.name, which, figures)
		if err := c.Remove(); err != nil {
			return err
		}
	}
	return nil
}

// kinds are what is compared.
func (m *measure) kinds(kinds []process.Kind) []process.Kind {
	if m.with == nil {
		return kinds
	}
	with := process.Kind{Name: "holdfast-with", Path: kinds[1].Path}
	for _, f := range m.with {
		with.Flags = append(with.Flags, strings.ReplaceAll(f, dirWord, process.Dir))
	}
	return []process.Kind{kinds[1], with}
}

// build makes both programs; a run measures what the tree says now.
func (b *bench) build(ctx context.Context) ([]process.Kind, error) {
	bin := filepath.Join(b.dir, "bin")
	peer := process.Kind{Name: "etcd", Path: filepath.Join(bin, "peer")}
	if b.peer != "" {
		peer = process.Kind{Name: "peer", Path: b.peer}
	} else if err := compile(ctx, ".", peer.Path, "./peer"); err != nil {
		return nil, err
	}
	ours := process.Kind{Name: "holdfast", Path: b.ours}
	if b.ours == "" {
		ours.Path = filepath.Join(bin, "holdfast")
		if err := compile(ctx, filepath.Join("..", ".."), ours.Path, "./cmd/holdfast"); err != nil {
			return nil, err
		}
	}
	return []process.Kind{peer, ours}, nil
}

func compile(ctx context.Context, dir, out, what string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-C", dir, "-trimpath", "-o", out, what)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", what, err)
	}
	return nil
}

// onDisk refuses a folder that is kept in memory: syncing it costs nothing.
func onDisk(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return err
	}
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	if fs.Type == tmpfs || fs.Type == ramfs {
		return fmt.Errorf("%s is kept in memory, name a folder on a disk with -dir", dir)
	}
	return nil
}
