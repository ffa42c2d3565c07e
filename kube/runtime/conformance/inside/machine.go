package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// report writes what a process can tell of itself, as one line of JSON.
func report([]string) int {
	r := struct {
		Args, Env          []string
		Dir, Hostname      string
		PID, UID, GID      int
		Groups             []int
		Status, Namespaces map[string]string
		TTY                bool
	}{Args: os.Args, Env: os.Environ(), PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Status: map[string]string{}, Namespaces: map[string]string{}}
	r.Dir, _ = os.Getwd()
	r.Hostname, _ = os.Hostname()
	r.Groups, _ = os.Getgroups()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return failed(err)
	}
	for line := range strings.Lines(string(status)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			r.Status[name] = strings.TrimSpace(value)
		}
	}
	for _, name := range []string{"net", "pid", "mnt", "uts", "ipc"} {
		r.Namespaces[name], _ = os.Readlink("/proc/self/ns/" + name)
	}
	_, err = unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	r.TTY = err == nil
	b, err := json.Marshal(r)
	if err != nil {
		return failed(err)
	}
	fmt.Println(string(b))
	return 0
}

// burn uses one processor until TERM.
func burn([]string) int {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	fmt.Println("ready")
	for n := 0; ; n++ {
		if n%1_000_000 == 0 && len(c) > 0 {
			return 0
		}
	}
}

// grab takes some MiB of memory and waits.
func grab(args []string) int {
	var all [][]byte
	for range number(args, 0, 1) {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
		if len(args) > 1 { // Slowly, so that one who looks each moment sees it.
			<-time.After(10 * time.Millisecond)
		}
	}
	code := wait(nil)
	fmt.Fprintln(os.Stderr, len(all))
	return code
}

// fork starts children that wait, as many as it is let, and says how many.
func fork(args []string) int {
	var started []*exec.Cmd
	for range number(args, 0, 1) {
		c := exec.Command("/proc/self/exe", "deaf")
		if c.Start() != nil {
			break
		}
		started = append(started, c)
	}
	fmt.Println("started", len(started))
	for _, c := range started {
		c.Process.Kill()
	}
	return 0
}

// children starts one that outlives its parent, which ends once a file is there.
func children(args []string) int {
	c := exec.Command("/proc/self/exe", "deaf")
	if err := c.Start(); err != nil {
		return failed(err)
	}
	return until(args)
}

// call makes a system call and says how it went.
func call(args []string) int {
	var err error
	switch args[0] {
	case "mount":
		err = unix.Mount("none", "/tmp", "tmpfs", 0, "")
	case "keyctl":
		_, err = unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true)
	case "chown":
		err = os.Chown(args[1], 12345, 12345)
	case "ping": // A raw socket, which NET_RAW permits.
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); err == nil {
			unix.Close(fd)
		}
	default:
		return 64
	}
	if err != nil {
		fmt.Println("refused:", err)
		return 1
	}
	fmt.Println("done")
	return 0
}
