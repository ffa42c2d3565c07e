// Command plants tests the tests: it makes deliberate mistakes in a copy of the
// tree, one at a time, and wants the suites to notice each.
//
// A plant is a patch in tests/plants. Its head says which mistake of the field
// it imitates and which suites should catch it. The suites are those of every
// day, in their normal mode; they must pass on the tree as it is, and one of
// them must fail with the plant in it. A patch that no longer applies or does
// not compile is an error: it has to be mended with the code that it changes.
//
//	go run ./tests/plants -list
//	go run ./tests/plants -run wal-no-sync,vote-is-forgotten
//	go run ./tests/plants -rotate 3 -of 4      every fourth plant; -1: which one by the number of commits
//	go run ./tests/plants -only-suites sim     who is caught by the simulation alone
//
// The exit status is 1 when a plant escaped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

type options struct {
	list     bool
	run      string
	only     string
	rotate   int
	of       int
	baseline bool
	log      string
}

func main() {
	var o options
	flag.BoolVar(&o.list, "list", false, "tell what there is, and run nothing")
	flag.StringVar(&o.run, "run", "", "`plants` by name, comma-separated; all when empty")
	flag.StringVar(&o.only, "only-suites", "", "`suites` to run instead of those that a plant names")
	flag.IntVar(&o.rotate, "rotate", 0, "run every -of-th plant, from this `number` on; -1 takes the number of commits")
	flag.IntVar(&o.of, "of", 1, "see -rotate")
	flag.BoolVar(&o.baseline, "baseline", true, "first run the suites on the tree as it is")
	flag.StringVar(&o.log, "log", filepath.Join(".cache", "test", "plants.log"), "`file` for the output of the suites")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	escaped, err := o.work(ctx, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "plants:", err)
		os.Exit(2)
	}
	if escaped > 0 {
		os.Exit(1)
	}
}

func (o *options) work(ctx context.Context, out io.Writer) (escaped int, err error) {
	all, err := loadPlants(".")
	if err != nil {
		return 0, err
	}
	chosen, err := o.choose(ctx, all)
	if err != nil {
		return 0, err
	}
	if o.list {
		return 0, listPlants(out, chosen)
	}
	if err := os.MkdirAll(filepath.Dir(o.log), 0o755); err != nil {
		return 0, err
	}
	log, err := os.Create(o.log)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	root, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	g, err := newGarden(ctx, root, log)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	return o.grow(ctx, out, g, chosen)
}

// choose picks the plants of this run.
func (o *options) choose(ctx context.Context, all []plant) ([]plant, error) {
	if o.of < 1 {
		return nil, fmt.Errorf("-of %d is below 1", o.of)
	}
	for _, name := range strings.FieldsFunc(o.only, comma) {
		if _, ok := suiteByName(name); !ok {
			return nil, fmt.Errorf("no suite is called %q: there are %s", name, suiteNames())
		}
	}
	if o.run == "" {
		from := o.rotate
		if from < 0 {
			count, err := (&garden{}).git(ctx, ".", "rev-list", "--count", "HEAD")
			if err != nil {
				return nil, err
			}
			if from, err = strconv.Atoi(strings.TrimSpace(count)); err != nil {
				return nil, err
			}
		}
		var chosen []plant
		for i := range all {
			if i%o.of == from%o.of {
				chosen = append(chosen, all[i])
			}
		}
		return chosen, nil
	}
	var chosen []plant
	for _, name := range strings.FieldsFunc(o.run, comma) {
		i := slices.IndexFunc(all, func(p plant) bool { return p.name == name })
		if i < 0 {
			var names []string
			for _, p := range all {
				names = append(names, p.name)
			}
			return nil, fmt.Errorf("no plant is called %q: there are %s", name, strings.Join(names, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func comma(r rune) bool { return r == ',' }

func listPlants(out io.Writer, plants []plant) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PLANT\tSUITES\tIMITATES")
	for _, p := range plants {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.name, strings.Join(p.suites, " "), p.imitates)
	}
	return w.Flush()
}

// suitesOf are those that a plant is tried with: what is not in this tree yet
// is left out.
func (o *options) suitesOf(g *garden, p *plant) []suite {
	names := p.suites
	if o.only != "" {
		names = strings.FieldsFunc(o.only, comma)
	}
	var list []suite
	for _, name := range names {
		s, _ := suiteByName(name) // Both lists were checked.
		if _, err := os.Stat(filepath.Join(g.dir, s.home)); err == nil {
			list = append(list, s)
		}
	}
	return list
}

// grow tries each plant, after the suites passed without any.
func (o *options) grow(ctx context.Context, out io.Writer, g *garden, plants []plant) (escaped int, err error) {
	if o.baseline {
		if err := o.withoutPlants(ctx, out, g, plants); err != nil {
			return 0, err
		}
	}
	began, caught := time.Now(), 0
	fmt.Fprintf(out, "%-28s %-13s %8s  %s\n", "PLANT", "CAUGHT BY", "SECONDS", "BY WHAT")
	for i := range plants {
		p := &plants[i]
		line, ok, err := o.try(ctx, g, p)
		if err != nil {
			return escaped, err
		}
		fmt.Fprintln(out, line)
		if ok {
			caught++
		} else {
			escaped++
		}
	}
	fmt.Fprintf(out, "\n%d plants, %d caught, %d escaped, %.0f s\n", len(plants), caught, escaped, time.Since(began).Seconds())
	return escaped, nil
}

// withoutPlants runs each suite once on the tree as it is.
func (o *options) withoutPlants(ctx context.Context, out io.Writer, g *garden, plants []plant) error {
	done := map[string]bool{}
	for i := range plants {
		for _, s := range o.suitesOf(g, &plants[i]) {
			if done[s.name] {
				continue
			}
			done[s.name] = true
			v, err := g.run(ctx, s)
			if err != nil {
				return err
			}
			if v.failed || v.first != "" {
				return fmt.Errorf("suite %s fails without any plant: %s (%s)", s.name, v.first, o.log)
			}
			fmt.Fprintf(out, "%-28s %-13s %8.1f  passes\n", "(none)", s.name, v.took.Seconds())
		}
	}
	return nil
}

// try puts one plant in and runs its suites until one fails.
func (o *options) try(ctx context.Context, g *garden, p *plant) (line string, caught bool, err error) {
	fmt.Fprintf(g.log, "#### %s\n", p.name)
	if err := g.apply(ctx, p); err != nil {
		return "", false, err
	}
	defer func() { err = errors.Join(err, g.apply(context.WithoutCancel(ctx), p, "--reverse")) }()
	if err := g.compile(ctx, p); err != nil {
		return "", false, err
	}
	took, tried := time.Duration(0), []string{}
	for _, s := range o.suitesOf(g, p) {
		v, err := g.run(ctx, s)
		if err != nil {
			return "", false, fmt.Errorf("plant %s: %w", p.name, err)
		}
		took += v.took
		if v.failed {
			what := v.first
			if v.seed != "" {
				what += ", seed " + v.seed
			}
			return fmt.Sprintf("%-28s %-13s %8.1f  %s", p.name, s.name, took.Seconds(), what), true, nil
		}
		if v.first != "" {
			s.name += " (" + v.first + ")"
		}
		tried = append(tried, s.name)
	}
	return fmt.Sprintf("%-28s %-13s %8.1f  ESCAPED %s", p.name, "nobody", took.Seconds(), strings.Join(tried, ", ")), false, nil
}
