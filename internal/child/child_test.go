//go:build linux

package child_test

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/child"
	"github.com/holdfast-db/holdfast/internal/task"
)

func threads(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "Threads:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestManyChildrenAreAwaitedByFewThreads(t *testing.T) {
	const children = 60
	before := threads(t)
	g := task.New(t.Context())
	ended, waits := make(chan error, children), make(chan struct{}, children)
	var all []*exec.Cmd
	for range children {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
		g.Go("await", func(context.Context) error {
			waits <- struct{}{}
			err := child.Await(cmd.Process)
			_ = cmd.Wait() // It was killed.
			ended <- err
			return nil
		})
	}
	for range children {
		<-waits
	}
	for _, cmd := range all[1:] {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if grew := threads(t) - before; grew > children/2 { // Those that started them are some.
		t.Errorf("%d more threads for %d children", grew, children)
	}
	select {
	case err := <-ended:
		t.Errorf("one that lives has ended, with error %v", err)
	default:
	}
	_ = all[0].Process.Kill()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
