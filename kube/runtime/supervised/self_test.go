//go:build linux

package supervised

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}

// What a container could try with the link to the program of a process that joins it: write
// to it, now or when the process has ended.
func TestProgramCannotBeWrittenThroughItsProcess(t *testing.T) {
	needRoot(t)
	for name, make := range map[string]func(string) (*os.File, error){"view": readOnlyView, "copy": sealedCopy} {
		t.Run(name, func(t *testing.T) {
			sleep, err := exec.LookPath("sleep")
			if err != nil {
				t.Fatal(err)
			}
			f, err := make(sleep)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			s := self{f}
			cmd := exec.Command(s.path(), "60")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			link := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/exe"
			held, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(held)
			if _, err := unix.Open(link, unix.O_WRONLY, 0); err == nil {
				t.Error("open for writing while it runs")
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(held), unix.O_WRONLY, 0)
			if err == nil {
				_, err = unix.Write(fd, []byte("x"))
				unix.Close(fd)
			}
			if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ETXTBSY) {
				t.Errorf("written when it has ended: %v", err)
			}
		})
	}
}
