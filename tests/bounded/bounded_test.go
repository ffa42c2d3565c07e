package bounded

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestWhatHangsIsEndedWithWhatItStarted(t *testing.T) {
	ready, says, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	var out bytes.Buffer
	cmd := Group(exec.Command("sh", "-c", "trap 'echo here' QUIT; echo ready >&2; sleep 1000"))
	cmd.Stdout, cmd.Stderr = &out, says
	err = cmd.Start()
	says.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil { // Else the signal may come before the trap.
		t.Fatal(err)
	}
	begun := time.Now()
	if err := Wait(cmd, 100*time.Millisecond); !errors.Is(err, ErrHangs) || !strings.Contains(out.String(), "here") {
		t.Errorf("%v after %v, %q", err, time.Since(begun), &out)
	}
}

func TestWhatEndsIsJudgedByItsCode(t *testing.T) {
	for words, want := range map[string]int{"exit 0": 0, "exit 3": 3} {
		cmd := exec.Command("sh", "-c", words)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		err, got := Wait(cmd, CommandMax), 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			got = exit.ExitCode()
		}
		if got != want {
			t.Errorf("%s ended with %d: %v", words, got, err)
		}
	}
}
