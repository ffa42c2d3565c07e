package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/holdfast-db/holdfast/server"
)

// options is what the command line, the environment or the configuration file
// say.
type options struct {
	cfg             server.Config
	logLevel        string
	logOutputs      []string
	logFormat       string
	rotateLogs      bool
	rotationConfig  string
	configFile      string
	metrics         string
	lockMemory      bool
	defragMegabytes int64
	featureGates    string
	showVersion     bool
	forceNew        bool
	discovery       discovery
	failpoints

	warnings []warning // For the log, once there is one.
}

// warning is what somebody should know about a setting that is let pass.
type warning struct {
	text string
	args []any
}

func (o *options) warn(text string, args ...any) {
	o.warnings = append(o.warnings, warning{text, args})
}

type tlsFiles = server.TLS

// settingError is an error in a variable or a file, or among settings: the
// command line itself is right then, and the exit code another.
type settingError struct{ error }

func (e settingError) Unwrap() error { return e.error }

func wrongSetting(format string, args ...any) error { return settingError{fmt.Errorf(format, args...)} }

// flagSet declares every flag of the table.
func flagSet(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet("holdfast", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // An error is told once, without the whole list.
	o.cfg = server.DefaultConfig(nil)
	for _, r := range allRows() {
		s := newSetting(&r, o)
		if v := r.startValue(); v != "" {
			if err := s.Set(v); err != nil {
				fmt.Fprintf(os.Stderr, "holdfast: default of --%s: %v\n", r.name, err) // TestDefaultsAreValues keeps this from happening.
			}
		}
		fs.Var(s, r.name, r.says)
	}
	return fs
}

// parse reads flags, then the environment for what the flags left out, or the
// configuration file in place of both.
func parse(args []string, environ []string, help io.Writer) (*options, error) {
	o := &options{}
	fs := flagSet(o)
	o.failpointFlags(fs)
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		writeHelp(help)
		return nil, err
	case err != nil:
		return nil, explain(fs, err)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag: flags begin with --, see holdfast --help", fs.Arg(0))
	}
	if o.showVersion {
		return o, nil
	}
	file := o.configFile
	for _, prefix := range environPrefixes {
		if v, ok := lookup(environ, prefix+"CONFIG_FILE"); ok && file == "" {
			file = v
		}
	}
	var given map[string]bool
	var err error
	if file != "" {
		o, fs, given, err = fromFile(o, fs, environ, file)
	} else {
		given, err = fromEnvironment(fs, environ)
	}
	if err != nil {
		return nil, err
	}
	return o, o.judge(fs, given)
}

// explain says what is wrong with a flag, and which one may have been meant.
func explain(fs *flag.FlagSet, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		return fmt.Errorf("%w: see holdfast --help", err)
	}
	if slices.Contains(unbuilt, name) {
		return fmt.Errorf("flag --%s is in builds for tests alone: leave it out, or build with go build -tags failpoints ./cmd/holdfast", name)
	}
	if gate := gateOf(name); gate != "" {
		return fmt.Errorf("there is no flag --%s: it is --feature-gates=%s=true now", name, gate)
	}
	var known []string
	fs.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
	if near := nearest(name, known); near != "" {
		return fmt.Errorf("there is no flag --%s: did you mean --%s? See holdfast --help", name, near)
	}
	return fmt.Errorf("there is no flag --%s: see holdfast --help", name)
}

var environPrefixes = []string{"HOLDFAST_", "ETCD_"}

func environName(flag string) string {
	return strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(flag))
}

// fromEnvironment sets each flag that was not given from HOLDFAST_NAME or
// ETCD_NAME, and tells which were given by either. Variables without a flag are
// nobody's business.
func fromEnvironment(fs *flag.FlagSet, environ []string) (map[string]bool, error) {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var bad error
	fs.VisitAll(func(f *flag.Flag) {
		if given[f.Name] || bad != nil {
			return
		}
		for _, prefix := range environPrefixes {
			name := prefix + environName(f.Name)
			value, ok := lookup(environ, name)
			if !ok || value == "" { // As etcd: unit files set variables to nothing.
				continue
			}
			given[f.Name] = true
			if err := fs.Set(f.Name, value); err != nil {
				bad = wrongSetting("environment variable %s is %q: %w", name, value, err)
			}
			return
		}
	})
	return given, bad
}

func lookup(environ []string, name string) (string, bool) {
	for _, kv := range environ {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// defragMegabytesMax is more than any store has.
const defragMegabytesMax = 1 << 20

// judge refuses what the table refuses, notes what has no effect, and reads
// the settings that have a grammar of their own.
func (o *options) judge(fs *flag.FlagSet, given map[string]bool) error {
	for _, r := range allRows() {
		if !given[r.name] {
			continue
		}
		s, ok := fs.Lookup(r.name).Value.(*setting)
		if !ok {
			continue
		}
		if err := r.refusal(s); err != nil {
			return err
		}
		if r.state == accepted {
			o.warn("setting has no effect", "flag", r.name, "why", r.why)
		}
	}
	if o.defragMegabytes < 0 || o.defragMegabytes > defragMegabytesMax {
		return wrongSetting("--bootstrap-defrag-threshold-megabytes is %d: use 0 to %d", o.defragMegabytes, defragMegabytesMax)
	}
	o.cfg.DefragmentAtStart = o.defragMegabytes << 20
	if o.discovery.given() { // The token keeps clusters apart, as etcd's members have it.
		o.cfg.Discovery, o.cfg.InitialClusterToken = &o.discovery, o.discovery.token
	}
	switch o.metrics {
	case "basic", "":
	case "extensive":
		o.cfg.ExtensiveMetrics = true
	default:
		return wrongSetting("--metrics is %q: use basic or extensive", o.metrics)
	}
	return o.judgeFeatures()
}
