//go:build linux

package stage

import (
	"encoding/json"
	"errors"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Main is the whole life of a stage. It does not return.
func Main() {
	runtime.LockOSThread() // Never unlocked.
	err := run()
	var f *Failure
	if !errors.As(err, &f) {
		f = &Failure{Failed, err.Error()}
	}
	text, _ := json.Marshal(f) // Two strings.
	_, _ = unix.Write(ControlFD, text)
	os.Exit(1)
}

// run ends with execve, or with what kept it from that.
func run() error {
	if os.Geteuid() == 0 {
		// Whoever shares a PID namespace with the stage shall not look into it.
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	spec, err := receive()
	if err != nil {
		return err
	}
	// From here on only the first three go on to the program.
	if err := CloseOnExec(); err != nil {
		return failed("mark descriptors: %w", err)
	}
	for _, procs := range spec.Cgroups {
		if err := enter(procs); err != nil {
			return failed("enter cgroup: %w", err)
		}
	}
	if spec.OOMScoreAdj != nil {
		// To lower it needs CAP_SYS_RESOURCE, which a node may lack.
		_ = write("/proc/self/oom_score_adj", strconv.Itoa(*spec.OOMScoreAdj))
	}
	unix.Umask(0o022)
	if err := surround(spec); err != nil {
		return err
	}
	if spec.TTY {
		if err := terminal(); err != nil {
			return failed("make a terminal: %w", err)
		}
	}
	if err := settle(spec); err != nil {
		return err
	}
	program, err := find(spec)
	if err != nil {
		return err
	}
	err = syscall.Exec(program, spec.Argv, spec.Env)
	return &Failure{Command, "run " + program + ": " + err.Error()}
}

// receive reads the spec until the other end says that it is whole.
func receive() (*Spec, error) {
	var text []byte
	buffer := make([]byte, 32<<10)
	for {
		n, err := unix.Read(ControlFD, buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, failed("read the spec: %w", err)
		}
		if n == 0 {
			break
		}
		text = append(text, buffer[:n]...)
	}
	spec := &Spec{}
	if err := json.Unmarshal(text, spec); err != nil {
		return nil, failed("spec of a stage: %w", err) // Its supervisor died, or is no supervisor.
	}
	if len(spec.Argv) == 0 {
		return nil, invalid("no command")
	}
	return spec, nil
}

// CloseOnExec keeps descriptors beyond the first three from what this process executes. Kernels before 5.11 lack the call.
func CloseOnExec() error {
	err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	names, err := readNames("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// enter moves this process into a cgroup.
func enter(procs string) error { return write(procs, "0") }

func write(name, text string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return &os.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// terminal makes a pseudo terminal of the file system in view, has it control this
// session, and sends its other end away.
func terminal() error {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	if errno != 0 {
		return errno
	}
	for fd := range 3 {
		if err := unix.Dup3(int(slave), fd, 0); err != nil {
			return err
		}
	}
	unix.Close(int(slave))
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return err
	}
	return unix.Sendmsg(ControlFD, []byte{TerminalMark}, unix.UnixRights(master), nil, 0)
}

// TerminalMark goes before a Failure, with the descriptor of the terminal.
const TerminalMark = 'T'

// find looks for the program as a shell does.
func find(spec *Spec) (string, error) {
	name := spec.Argv[0]
	prefixes := []string{""}
	if spec.Prefix != "" {
		prefixes = []string{spec.Prefix, ""}
	}
	if strings.Contains(name, "/") {
		if at := spec.Prefix + name; spec.Prefix != "" && path.IsAbs(name) && exists(at) {
			name = at
		}
		return name, runnable(name)
	}
	folders := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range spec.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			folders = v
		}
	}
	var refused error
	for _, prefix := range prefixes {
		for dir := range strings.SplitSeq(folders, ":") {
			at := path.Join(prefix+dir, name)
			err := runnable(at)
			if err == nil {
				return at, nil
			}
			if refused == nil && exists(at) {
				refused = err
			}
		}
	}
	if refused != nil {
		return "", refused
	}
	return "", &Failure{Command, strconv.Quote(name) + " is not in " + folders}
}

func exists(name string) bool { return unix.Stat(name, &unix.Stat_t{}) == nil }

func runnable(name string) error {
	st := &unix.Stat_t{}
	if err := unix.Stat(name, st); err != nil {
		return &Failure{Command, name + ": " + err.Error()}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return &Failure{Command, name + " is a folder"}
	}
	if err := unix.Faccessat(unix.AT_FDCWD, name, unix.X_OK, unix.AT_EACCESS); err != nil {
		return &Failure{Command, name + " is not executable: " + err.Error()}
	}
	return nil
}
