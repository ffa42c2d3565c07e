package demo

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
)

// options is what the command line and the environment say; the former counts.
type options struct {
	port      int
	address   string
	version   string
	colour    string
	slowStart time.Duration
	slowStop  time.Duration
	drain     time.Duration
	exitAfter time.Duration
	exitCode  int
}

const about = `A server that shows which pod answers, to try a cluster with.

  demo [flags]              serves
  demo get URL [-n TIMES]   asks a server and prints the answer

  /                         who answers: text, HTML or JSON, by Accept
  /headers                  the request as it came
  /burn?cpu=200m&seconds=30 burns processor time, then answers
  /eat?memory=100Mi&seconds=60  takes memory and answers at once; memory=0 gives all back
  /wait?seconds=5           answers late
  /healthz, /readyz         200 or 503; POST ?fail=true, false or a time such as 30s changes it
  /exit?code=1              ends the process

Flags, each with the variable that is read where it is left out:
`

// parse reads args; getenv is os.Getenv.
func parse(args []string, getenv func(string) string) (*options, error) {
	o := &options{}
	fs := pflag.NewFlagSet("demo", pflag.ContinueOnError)
	fs.SetOutput(os.Stderr)
	fs.Usage = func() { fmt.Fprint(os.Stderr, about+fs.FlagUsages()) }
	fs.IntVar(&o.port, "port", 80, "port to listen on, 0 for any that is free (PORT)")
	fs.StringVar(&o.address, "address", "", "address to listen on; left out: all (HOLDFAST_POD_IP)")
	fs.StringVar(&o.version, "version", "v1", "version to show (DEMO_VERSION)")
	fs.StringVar(&o.colour, "colour", "steelblue", "colour to show, by its name in CSS (DEMO_COLOUR)")
	fs.DurationVar(&o.slowStart, "slow-start", 0, "time before it listens (DEMO_SLOW_START)")
	fs.DurationVar(&o.slowStop, "slow-stop", 0, "time that it still serves after TERM, not ready any more (DEMO_SLOW_STOP)")
	fs.DurationVar(&o.drain, "drain", drainMax, "longest time to wait for requests that are under way when it stops (DEMO_DRAIN)")
	fs.DurationVar(&o.exitAfter, "exit-after", 0, "time after which it ends by itself; 0: never (DEMO_EXIT_AFTER)")
	fs.IntVar(&o.exitCode, "exit-code", 1, "exit code of --exit-after (DEMO_EXIT_CODE)")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%q is no command: there is get, or none", fs.Arg(0))
	}
	for flag, variable := range map[string]string{
		"port": "PORT", "address": "HOLDFAST_POD_IP", "version": "DEMO_VERSION", "colour": "DEMO_COLOUR", "slow-start": "DEMO_SLOW_START",
		"slow-stop": "DEMO_SLOW_STOP", "drain": "DEMO_DRAIN", "exit-after": "DEMO_EXIT_AFTER", "exit-code": "DEMO_EXIT_CODE",
	} {
		text := getenv(variable)
		if text == "" || fs.Changed(flag) {
			continue
		}
		if err := fs.Set(flag, text); err != nil {
			return nil, fmt.Errorf("variable %s: %w", variable, err)
		}
	}
	if o.port < 0 || o.port > 65535 {
		return nil, fmt.Errorf("port %d: use 0 to 65535", o.port)
	}
	if o.exitCode < 0 || o.exitCode > 255 {
		return nil, fmt.Errorf("exit code %d: use 0 to 255", o.exitCode)
	}
	if min(o.slowStart, o.slowStop, o.drain, o.exitAfter) < 0 {
		return nil, errors.New("a time is below zero")
	}
	return o, nil
}
