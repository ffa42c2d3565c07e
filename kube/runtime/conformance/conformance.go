package conformance

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Setup is an engine to be tried.
type Setup struct {
	// Engine returns an engine of a node. The suite shuts it down, and may ask for
	// another one after that, which is the kubelet after a restart.
	Engine func(t *testing.T, n *Node, changed runtime.Changed) runtime.Engine

	Files  *Files // What the images were made from.
	Images Images // As the engine takes them: those of Files, or what it pulled.

	// Except are the cases that this engine cannot pass, each with the reason.
	Except map[string]string

	// Left, if given, tells what the engine has left of a node beside what the suite
	// finds by itself. It is asked when all pods are closed.
	Left func(t *testing.T, n *Node) []string
}

// Node is where a case runs: of two kubelets each has its own.
type Node struct {
	Name string
	Dir  string // For all of the engine. The pods' folders are in its folder "pods".
}

// timeMax is what a case may take, on a busy machine.
const timeMax = 90 * time.Second

// test is a case.
type test struct {
	name string
	run  func(s *scene)

	// isolated: only where the engine isolates. On others demand, if it is there,
	// returns a container that must be refused.
	isolated bool
	demand   func(c *runtime.ContainerSpec)

	podNetwork bool // Only where pods have a network of their own.
	alone      bool // What it measures is disturbed by others.
}

// cases is the table.
func cases() []test {
	return slices.Concat(
		podCases(), containerCases(), commandCases(), logCases(), endCases(), stopCases(),
		restartCases(), adoptionCases(), nextAttemptCases(), sharedCases(), mountCases(), networkCases(), nameCases(),
		securityCases(), privilegeCases(), rootCases(), kernelCases(), limitCases(),
		execCases(), execFailureCases(), execWholeCases(), attachCases(), terminalCases(), invalidCases())
}

// Run runs all cases.
func Run(t *testing.T, setup func(t *testing.T) Setup) {
	shared := setup(t)
	table := cases()
	for name := range shared.Except {
		if !slices.ContainsFunc(table, func(c test) bool { return c.name == name }) {
			t.Errorf("there is no case %q to except", name)
		}
	}
	t.Setenv(secretVariable, "x")
	t.Run("engine", func(t *testing.T) { each(t, shared, table) })
	if left := Left(t, filepath.Base(shared.Files.Program)); len(left) > 0 {
		t.Errorf("left in the end:\n%s", strings.Join(left, "\n"))
	}
}

// each runs the cases beside each other: most of them wait most of the time.
func each(t *testing.T, shared Setup, table []test) {
	seen := map[string]bool{}
	for _, c := range table {
		if seen[c.name] {
			t.Errorf("two cases are called %q", c.name)
		}
		seen[c.name] = true
		if reason, ok := shared.Except[c.name]; ok {
			t.Logf("left out: %s: %s", c.name, reason)
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if !c.alone {
				t.Parallel() // Begins when those that are alone have ended.
			}
			one(t, shared, c)
		})
	}
}

// one runs a case, in whichever direction is right for the engine.
func one(t *testing.T, setup Setup, c test) {
	ctx, cancel := context.WithTimeout(context.Background(), timeMax)
	defer cancel()
	s := &scene{T: t, ctx: ctx, setup: setup, node: &Node{Name: "t" + random(4), Dir: folder(t)}}
	s.Cleanup(s.close)
	s.engine = s.another()
	info := s.engine.Info()
	switch {
	case c.isolated && !info.Isolated:
		if c.demand == nil {
			t.Log("only with isolation; nothing that could be refused")
			return
		}
		s.refused(c.demand)
	case c.podNetwork && !info.PodNetwork:
		t.Log("only where pods have a network of their own")
	default:
		c.run(s)
	}
}

// refused starts what only an engine with isolation can do.
func (s *scene) refused(demand func(c *runtime.ContainerSpec)) {
	pod := s.pod()
	spec := s.spec(pod, "wait")
	demand(spec)
	_, err := s.engine.Start(s.ctx, spec)
	s.wraps(err, runtime.ErrUnsupported)
	for _, c := range s.containers(pod) {
		if c.Phase == runtime.Running {
			s.Error("it runs although it was refused")
		}
	}
}
