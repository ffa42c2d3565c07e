package task_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/task"
)

func untilEnd(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestFirstFailureStopsTheGroupAndIsReturnedWithTheName(t *testing.T) {
	boom := errors.New("boom")
	g := task.New(context.Background())
	g.Go("idle", untilEnd)
	g.Go("append", func(context.Context) error { return boom })
	err := g.Wait()
	if !errors.Is(err, boom) || err.Error() != "append: boom" {
		t.Fatalf("got %v", err)
	}
	if cause := context.Cause(g.Context()); !errors.Is(cause, boom) {
		t.Fatalf("cause of the end is %v", cause)
	}
}

func TestStopIsNotAFailure(t *testing.T) {
	g := task.New(context.Background())
	g.Go("idle", untilEnd)
	g.Stop()
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if g.Go("late", func(context.Context) error { t.Error("ran after Stop"); return nil }) {
		t.Error("Go after Stop says that it runs")
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestParentContextEndsTheGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	g := task.New(ctx)
	g.Go("idle", untilEnd)
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestGoroutineMayStartAnother(t *testing.T) {
	g := task.New(context.Background())
	ran := false
	g.Go("outer", func(context.Context) error {
		g.Go("inner", func(context.Context) error { ran = true; return nil })
		return nil
	})
	if err := g.Wait(); err != nil || !ran {
		t.Fatal(err, ran)
	}
}

// The panic ends a process, so it needs one of its own.
func TestPanicEndsTheProcessAndNamesTheGoroutine(t *testing.T) {
	if os.Getenv("TASK_PANIC") != "" {
		g := task.New(context.Background())
		g.Go("merge", func(context.Context) error { panic("invariant broken: x") })
		_ = g.Wait()
		os.Exit(0)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestPanicEndsTheProcessAndNamesTheGoroutine$")
	cmd.Env = append(os.Environ(), "TASK_PANIC=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), `goroutine "merge": invariant broken: x`) {
		t.Fatalf("err %v, output:\n%s", err, out)
	}
}
