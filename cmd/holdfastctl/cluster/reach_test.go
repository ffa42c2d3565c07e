package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/tunnel/tunneltest"
)

const twoPods = `
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {allocatable: {cpu: "4", memory: 8Gi, pods: "110"}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: https, port: 443, targetPort: tls}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {containers: [{name: c, image: demo, ports: [{name: tls, containerPort: 8443}]}]}
status: {phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, labels: {app: web}}
spec: {containers: [{name: c, image: demo, tty: true, stdin: true}]}
status: {phase: Running}
`

// reached is a terminal before a cluster with two pods on a node that can be reached.
func newReached(t *testing.T) *terminal {
	t.Helper()
	tt := newTerminal(t)
	if err := tt.make(twoPods); err != nil {
		t.Fatal(err)
	}
	tt.kubelet("n1")
	for _, pod := range []string{"web-1", "web-2"} {
		if got := tt.bind(pod, "n1"); got != "" {
			t.Fatal(got)
		}
		tt.nodes["n1"].Write(tt.uid(pod), "c", "first of "+pod)
	}
	return tt
}

func TestLogsThatAreFollowedTogetherStayWholeLines(t *testing.T) {
	tt := newReached(t)
	r := tt.start("logs -f -l app=web --prefix", nil)
	r.out.shows(t, "[pod/web-1/c] first of web-1\n")
	r.out.shows(t, "[pod/web-2/c] first of web-2\n")
	for i := range 50 {
		for _, pod := range []string{"web-1", "web-2"} {
			tt.nodes["n1"].Write(tt.uid(pod), "c", fmt.Sprintf("line %d", i))
		}
	}
	for _, pod := range []string{"web-1", "web-2"} {
		r.out.shows(t, "[pod/"+pod+"/c] line 49\n")
		tt.nodes["n1"].End(tt.uid(pod), "c")
	}
	r.ends(t, 0) // With the containers.
	for line := range strings.Lines(r.out.String()) {
		if !regexp.MustCompile(`^\[pod/web-[12]/c\] (first of web-[12]|line \d+)\n$`).MatchString(line) {
			t.Errorf("printed %q", line)
		}
	}
	r = tt.start("logs -f web-1", nil)
	r.ends(t, 0)
}

func TestALogThatIsFollowedEndsWithItsControlPlaneAndSaysSo(t *testing.T) {
	tt := newReached(t)
	stop := tt.served()
	tt.clock.wall.Store(time.Now().Unix())
	r := tt.start("logs -f web-1", func(c *Config) { c.Dial = nil })
	r.out.shows(t, "first of web-1\n")
	stop()
	r.ends(t, 1)
	said, got, _ := strings.Cut(anyPort.ReplaceAllString(r.err.String(), "SERVER"), "\n")
	if !strings.HasPrefix(said, "pod/web-1, container c: the log was lost (") || !strings.HasPrefix(got, "The connection to the server SERVER failed: ") {
		t.Errorf("it says %q and %q", said, got)
	}
	r = tt.start("logs -f web-2", nil) // Interrupted: a person has seen enough.
	r.out.shows(t, "first of web-2\n")
	r.stop()
	r.ends(t, 0)
}

func TestALogThatIsFollowedGoesOnWithTheNextKubelet(t *testing.T) {
	tt := newTerminal(t)
	if err := tt.make(twoPods); err != nil {
		t.Fatal(err)
	}
	tt.nodes = map[string]*tunneltest.Node{"n1": tunneltest.New()}
	stop := tt.reach("n1")
	var want [2]strings.Builder
	write := func(lines ...string) {
		for i, pod := range []string{"web-1", "web-2"} {
			tt.nodes["n1"].Write(tt.uid(pod), "c", lines...)
			for _, line := range lines {
				fmt.Fprintf(&want[i], "[pod/%s/c] %s\n", pod, line)
			}
		}
	}
	for _, pod := range []string{"web-1", "web-2"} {
		if got := tt.bind(pod, "n1"); got != "" {
			t.Fatal(got)
		}
		tt.nodes["n1"].Write(tt.uid(pod), "c", "same", "same")
	}
	write("begin", "same", "same")
	all, one := tt.start("logs -f -l app=web --prefix --tail 3", tt.patient), tt.start("logs -f web-1 --tail 3 --limit-bytes 30", tt.patient)
	for _, shows := range []string{"[pod/web-1/c] begin\n", "[pod/web-2/c] begin\n"} {
		all.out.shows(t, shows)
	}
	one.out.shows(t, "begin\n")
	for i := range 5 {
		write("same", fmt.Sprint("line ", i))
		for _, pod := range []string{"web-1", "web-2"} {
			all.out.shows(t, fmt.Sprintf("[pod/%s/c] line %d\n", pod, i))
		}
		if i == 1 { // Over when the limit is reached.
			one.ends(t, 0)
			if got := one.out.String(); got != "begin\nsame\nsame\nsame\nline 0\nsa" {
				t.Errorf("with a limit: %q", got)
			}
		} else if i == 0 {
			one.out.shows(t, "line 0\n")
		}
		stop()
		write("same", "same")
		stop = tt.reach("n1")
	}
	for i, pod := range []string{"web-1", "web-2"} {
		tt.nodes["n1"].End(tt.uid(pod), "c")
		defer func() {
			got := ""
			for line := range strings.Lines(all.out.String()) {
				if strings.Contains(line, pod) {
					got += line
				}
			}
			if got != want[i].String() {
				t.Errorf("of %s:\n%swant:\n%s", pod, got, &want[i])
			}
		}()
	}
	all.ends(t, 0)
	const said = "pod/web-1, container c: the log was lost (node n1: the connection to it was lost in the middle of a session); asking for the rest of it\n"
	if n := strings.Count(all.err.String(), said); n != 5 || strings.Count(all.err.String(), "\n") != 10 {
		t.Errorf("it says:\n%s", all.err)
	}
}

func TestALogIsNotAskedForAnyMoreWhenItsPodIsGoneOrItsNodeStaysAway(t *testing.T) {
	tt := newTerminal(t)
	if err := tt.make(twoPods); err != nil {
		t.Fatal(err)
	}
	tt.nodes = map[string]*tunneltest.Node{"n1": tunneltest.New()}
	stop := tt.reach("n1")
	var runs []*running
	for _, pod := range []string{"web-1", "web-2"} {
		if got := tt.bind(pod, "n1"); got != "" {
			t.Fatal(got)
		}
		tt.nodes["n1"].Write(tt.uid(pod), "c", "first of "+pod)
		clock := map[string]func(*Config){"web-1": tt.patient}[pod]
		runs = append(runs, tt.start("logs -f "+pod, clock))
		runs[len(runs)-1].out.shows(t, "first of "+pod+"\n")
	}
	stop()
	runs[0].err.shows(t, "asking for the rest of it\n")
	if err := tt.remove("web-1", 0); err != nil {
		t.Fatal(err)
	}
	for i, says := range []string{"web-1: not found", "n1 has no tunnel to any control plane that answers"} {
		runs[i].ends(t, 1)
		if got := runs[i].err.String(); strings.Count(got, "asking for the rest of it\n") != 1 || !strings.Contains(got, says) {
			t.Errorf("it says %q", got)
		}
	}
}

func TestSessionsThatLoseTheirControlPlaneFail(t *testing.T) {
	tt := newReached(t)
	stop := tt.served()
	tt.clock.wall.Store(time.Now().Unix())
	start := func(line, shows string) *running {
		t.Helper()
		r := tt.start(line, func(c *Config) { c.Dial = nil })
		r.out.shows(t, shows)
		return r
	}
	runs := []*running{start("exec web-1 -- hang", "hang"), start("attach web-1", "hello")}
	forward := start("port-forward web-1 --address 127.0.0.1 :8443", "-> 8443\n")
	conn, err := net.Dial("tcp", regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(forward.out.String()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len("port 8443\n"))); err != nil {
		t.Fatal(err)
	}
	stop()
	for _, r := range runs {
		r.ends(t, 1)
		if got := anyPort.ReplaceAllString(r.err.String(), "SERVER"); !strings.HasPrefix(got, "The connection to the server SERVER failed: ") {
			t.Errorf("it says %q", got)
		}
	}
	// What was forwarded is cut off, which must not look like its end. The port stays.
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ends with %v", err)
	}
	forward.err.shows(t, "an error occurred forwarding ")
	forward.err.shows(t, "The connection to the server ")
	forward.stop()
	forward.ends(t, 0)
}

func TestAForwardedPortCarriesManyConnectionsAtOnce(t *testing.T) {
	tt := newReached(t)
	r := tt.start("port-forward service/web --address 127.0.0.1 :https 0:443", nil)
	r.out.shows(t, "-> 8443\nForwarding from")
	ports := regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) -> 8443\n`)
	for len(ports.FindAllString(r.out.String(), -1)) < 2 && t.Context().Err() == nil {
	}
	var conns []net.Conn
	for _, m := range ports.FindAllStringSubmatch(r.out.String(), -1) {
		for range 5 {
			conn, err := net.Dial("tcp", m[1])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conns = append(conns, conn)
		}
	}
	for i, conn := range conns { // The last first: none waits for another.
		text := strings.Repeat(fmt.Sprint("connection ", i, " "), 20_000)
		go func() {
			if _, err := io.WriteString(conn, text); err != nil {
				t.Error(err)
			}
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Error(err)
			}
		}()
		defer func() {
			got, err := io.ReadAll(conn)
			if want := "port 8443\n" + text; string(got) != want || err != nil {
				t.Errorf("connection %d: %d bytes of %d, %v", i, len(got), len(want), err)
			}
		}()
	}
	t.Cleanup(func() {
		r.stop()
		r.ends(t, 0)
		if !strings.Contains(r.out.String(), "Handling connection for ") || r.err.String() != "" {
			t.Errorf("printed:\n%s%s", r.out, r.err)
		}
	})
}

func TestAForwardedPortEndsWhenItsPodIsGone(t *testing.T) {
	tt := newReached(t)
	r := tt.start("port-forward web-1 :1", nil)
	r.out.shows(t, "-> 1\n")
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(r.out.String())
	reset := func(err error) bool { return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) }
	try := func() {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		if reset(err) {
			return // Sooner than we heard of it.
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("is anybody there?")); err != nil && !reset(err) {
			t.Error(err)
		}
		if got, err := io.ReadAll(conn); len(got) > 0 || err != nil && !reset(err) {
			t.Errorf("%q, %v", got, err)
		}
	}
	try() // Nobody listens: it may be that somebody will.
	r.err.shows(t, " -> 1: error: connection refused\n")
	if err := tt.remove("web-1", 0); err != nil {
		t.Fatal(err)
	}
	try()
	r.ends(t, 1)
	if !strings.Contains(r.err.String(), "lost connection to pod: Pod default/web-1: not found") {
		t.Errorf("it says %q", r.err)
	}
}

// pty is a terminal, and what a person has of it.
func pty(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	unlock := 0
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, person.Fd(), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlock))); e != 0 {
		t.Fatal(e)
	}
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return person, terminal
}

func resize(t *testing.T, f *os.File, s runtime.Size) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: s.Columns, Row: s.Rows}); err != nil {
		t.Fatal(err)
	}
}

func TestATerminalIsRawWhileACommandRunsAndItsSizeIsTheCommands(t *testing.T) {
	tt := newReached(t)
	person, terminal := pty(t)
	before, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	resize(t, terminal, runtime.Size{Columns: 80, Rows: 24})
	r := tt.start("exec -it web-1 -- size 2", func(c *Config) { c.In = terminal })
	r.out.shows(t, "80x24\n")
	during, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil || during.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Errorf("flags %x, %v: Ctrl-C ends this program", during.Lflag, err)
	}
	resize(t, terminal, runtime.Size{Columns: 132, Rows: 50})
	// It is not this process' own terminal, whose size the kernel would tell.
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	r.out.shows(t, "132x50\n")
	r.ends(t, 0)
	after, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil || after.Lflag != before.Lflag || after.Iflag != before.Iflag || after.Oflag != before.Oflag {
		t.Errorf("flags were %x and are %x, %v", before.Lflag, after.Lflag, err)
	}
	if !term.IsTerminal(int(terminal.Fd())) {
		t.Error("it is no terminal any more")
	}
	// The read that was left behind takes one more byte; what follows is for attach.
	if _, err := person.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	r = tt.start("attach -it web-2", func(c *Config) { c.In = bufio.NewReader(strings.NewReader("typed\n")) })
	r.out.shows(t, "hello\ntyped\n")
	if got := r.err.String(); got != "Unable to use a TTY - input is not a terminal or the right kind of file\n" {
		t.Errorf("it says %q", got)
	}
	r.stop()
	r.ends(t, 0)
}

func TestWhoAttachesToASidecarHasItsTerminal(t *testing.T) {
	tt := newTerminal(t)
	if err := tt.make(twoPods + `---
apiVersion: v1
kind: Pod
metadata: {name: web-3}
spec: {initContainers: [{name: side, image: demo, tty: true, stdin: true, restartPolicy: Always}], containers: [{name: c, image: demo}]}
status: {phase: Running}
`); err != nil {
		t.Fatal(err)
	}
	tt.kubelet("n1")
	if got := tt.bind("web-3", "n1"); got != "" {
		t.Fatal(got)
	}
	tt.nodes["n1"].Write(tt.uid("web-3"), "side", "first")
	_, terminal := pty(t)
	r := tt.start("attach -t web-3 -c side", func(c *Config) { c.In = terminal })
	r.out.shows(t, "hello\n")
	r.stop()
	r.ends(t, 0)
	if got := r.err.String(); strings.Contains(got, "Unable to use a TTY") {
		t.Errorf("it says %q", got)
	}
}

func TestTimesOfLogsThatNoNumberHoldsAreTheNearest(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		flags   logsFlags
		seconds int64
		time    int64
	}{
		{flags: logsFlags{since: 1400 * time.Millisecond}, seconds: 1},
		{flags: logsFlags{since: time.Nanosecond}, seconds: 1},
		{flags: logsFlags{since: math.MaxInt64}, seconds: math.MaxInt64 / int64(time.Second)},
		{flags: logsFlags{sinceTime: "1970-01-01T00:00:00Z"}, time: 1},
		{flags: logsFlags{sinceTime: "0001-01-01T00:00:00Z"}, time: 1},
		{flags: logsFlags{sinceTime: "9999-12-31T23:59:59Z"}, time: math.MaxInt64},
		{flags: logsFlags{sinceTime: "2030-01-01T00:00:00Z"}, time: now.UnixNano()},
	} {
		c.flags.tail, c.flags.most = -1, 1
		r, err := c.flags.request([]string{"web-1"}, now)
		if err != nil || r.SinceSeconds != c.seconds || r.SinceTime != c.time {
			t.Errorf("%+v: %v, %v", c.flags, r, err)
		}
	}
}
