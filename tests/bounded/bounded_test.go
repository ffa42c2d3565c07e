package bounded

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestWhatHangsIsEndedWithWhatItStarted(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := Group(exec.Command("sh", "-c", "trap 'echo here' QUIT; echo hangs; sleep 1000"))
	cmd.Stdout = in
	if err := errors.Join(cmd.Start(), in.Close()); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	if line, err := said.ReadString('\n'); err != nil || line != "hangs\n" { // It takes no signal before that.
		t.Fatalf("%q, %v", line, err)
	}
	begun := time.Now()
	hung := Wait(cmd, 100*time.Millisecond)
	if rest, err := io.ReadAll(said); !errors.Is(hung, ErrHangs) || err != nil || !strings.Contains(string(rest), "here") {
		t.Errorf("%v after %v, %q, %v", hung, time.Since(begun), rest, err)
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
