package linear

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/holdfast-db/holdfast/tests/cluster"
	"github.com/holdfast-db/holdfast/tests/fusefs"
	"github.com/holdfast-db/holdfast/tests/network"
)

// need is what a nemesis cannot do without.
type need uint

const (
	needsSpaces    need = 1 << iota // Packets that can be dropped or lost one by one.
	needsProxies                    // Links that can be slow, connections that can be reset.
	needsSmallDisk                  // Mounts.
	needsLyingDisk                  // FUSE.
	needsSkew                       // A program with a wrong wall clock.
	needsFive                       // Members.
)

// environment is what this machine allows, and the programs under test.
type environment struct {
	dir    string
	bin    cluster.Binaries
	names  *network.Names // Nil without root: nothing is made outside of the process.
	spaces *network.Names // Nil where there are no namespaces.
	cannot map[need]error

	skewOnce sync.Once
	skewedAt string
	skewErr  error
}

const module = "../.."

// newEnvironment builds the programs and finds out what can be done here.
// The programs in built, if that is not empty, are taken as they are.
func newEnvironment(ctx context.Context, built string) (*environment, error) {
	if n, err := network.Sweep(); err != nil {
		return nil, fmt.Errorf("sweep up after %d runs that died: %w", n, err)
	}
	e := &environment{cannot: map[need]error{}}
	var err error
	if e.dir, err = os.MkdirTemp("", "holdfast-linear"); err != nil {
		return nil, err
	}
	if built != "" {
		e.bin = cluster.Binaries{Holdfast: filepath.Join(built, "holdfast"), Ctl: filepath.Join(built, "holdfastctl")}
	} else if e.bin, err = cluster.Build(ctx, module, e.dir); err != nil {
		return nil, err
	}
	if os.Getenv("HOLDFAST_TEST_LOOPBACK") != "" || os.Geteuid() != 0 {
		why := errors.New("needs root")
		for _, n := range []need{needsSpaces, needsSmallDisk, needsLyingDisk} {
			e.cannot[n] = why
		}
		return e, nil
	}
	if e.names, err = network.NewNames(); err != nil {
		return nil, err
	}
	if err := network.Probe(e.names); err != nil {
		e.cannot[needsSpaces] = err
	} else {
		e.spaces = e.names
	}
	if err := fusefs.Available(); err != nil {
		e.cannot[needsLyingDisk] = err
	}
	return e, nil
}

func (e *environment) close() error {
	var errs []error
	if e.names != nil {
		errs = append(errs, e.names.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(e.dir))...)
}

// skewed is the program whose wall clock can be set.
func (e *environment) skewed(ctx context.Context) (string, error) {
	e.skewOnce.Do(func() { e.skewedAt, e.skewErr = cluster.BuildSkewed(ctx, module, e.dir) })
	return e.skewedAt, e.skewErr
}

// lacks tells what a nemesis needs that is not here.
func (e *environment) lacks(name string) error {
	var errs []error
	for n, err := range e.cannot {
		if nemeses[name].needs&n != 0 {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// notExercised lists the nemeses that cannot run here, with the reason.
func (e *environment) notExercised() []string {
	var list []string
	for name := range nemeses {
		if err := e.lacks(name); err != nil {
			list = append(list, fmt.Sprintf("%s: %v", name, err))
		}
	}
	slices.Sort(list)
	return list
}
