//go:build linux

package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task/plain"
)

// bootFD is where the boot comes from, and whether it went well goes to.
const bootFD = 3

// lockFD is the lock of the pod's folder, which its maker took: there is no moment at
// which somebody could take the pod for one without a supervisor.
const lockFD = 4

// server is a supervisor from within.
type server struct {
	boot     Boot
	clock    clock.Clock
	reaper   *reaper
	listener *conn
	done     chan struct{} // Closed by the call end.
	called   chan struct{} // Something is being asked: no time to rest.

	mu struct {
		sync.Mutex
		containers map[string]*container // By ID.
		watchers   map[chan struct{}]bool
		ending     bool
	}
}

// serve is the whole life of a supervisor.
func serve() int {
	rest := newRest()
	warm()
	rest.take()
	parent := os.NewFile(bootFD, "boot")
	s, held, err := boot(parent)
	answer := Ready{Version: Version, PID: os.Getpid()}
	if err != nil {
		answer = Ready{Version: Version, Error: err.Error()}
	}
	text, _ := json.Marshal(answer) // Plain members.
	_, werr := parent.Write(text)
	parent.Close()
	if err != nil {
		return 1
	}
	if werr != nil {
		return 1 // Who started it has died, and nothing has begun.
	}
	defer held.Close()
	s.run(rest)
	return 0
}

// boot prepares everything up to the socket.
func boot(parent *os.File) (*server, *os.File, error) {
	text, err := io.ReadAll(parent)
	if err != nil {
		return nil, nil, err
	}
	s := &server{clock: clock.Real(), reaper: newReaper(), done: make(chan struct{}), called: make(chan struct{}, 1)}
	s.mu.containers, s.mu.watchers = map[string]*container{}, map[chan struct{}]bool{}
	if err := json.Unmarshal(text, &s.boot); err != nil {
		return nil, nil, fmt.Errorf("boot: %w", err) // Cut short: the kubelet died.
	}
	for _, procs := range s.boot.Cgroups {
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			return nil, nil, fmt.Errorf("enter cgroup: %w", err)
		}
	}
	if err := s.surround(); err != nil {
		return nil, nil, err
	}
	held := os.NewFile(lockFD, LockFile)
	if err := sign(held); err != nil {
		return nil, nil, fmt.Errorf("lock: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, nil, err
	}
	if err := s.listen(); err != nil {
		return nil, nil, err
	}
	return s, held, nil
}

// surround sets up what is the pod's.
func (s *server) surround() error {
	if s.boot.Subreaper {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become the parent of orphans: %w", err)
		}
	}
	if s.boot.OOMScoreAdj != nil {
		// Below zero only with CAP_SYS_RESOURCE.
		_ = os.WriteFile("/proc/self/oom_score_adj", fmt.Append(nil, *s.boot.OOMScoreAdj), 0)
	}
	if s.boot.Hostname != "" {
		if err := unix.Sethostname([]byte(s.boot.Hostname)); err != nil {
			return fmt.Errorf("set the hostname %s: %w", s.boot.Hostname, err)
		}
	}
	if s.boot.Loopback {
		return loopbackUp()
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// load takes over the records of an earlier supervisor.
func (s *server) load() error {
	if err := os.MkdirAll(path.Join(s.boot.Dir, RecordFolder), 0o700); err != nil {
		return err
	}
	records, err := MarkLost(s.boot.Dir, s.clock.Wall())
	if err != nil {
		return err
	}
	for _, r := range records {
		c := &container{server: s, record: r, ended: make(chan struct{})}
		close(c.ended)
		s.mu.containers[r.ID] = c
	}
	return nil
}

func (s *server) listen() error {
	return Beneath(s.boot.Dir, func(socket string) error {
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		l, err := listenAt(socket)
		if err != nil {
			return err
		}
		s.listener = l
		return os.Chmod(socket, 0o600)
	})
}

// run goes on until the call end.
func (s *server) run(rest *rest) {
	// What ends a kubelet (the hang-up of a terminal, an interrupt) is not for its pods.
	// Not Ignore: containers would inherit that.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	plain.Go("accept", s.accept)
	rest.take()
	var idle, latest <-chan time.Time // nil: nothing was done since the last rest.
	for {
		select {
		case <-ended:
			s.reaper.reap()
		case <-s.called:
			rest.calls++
		case <-idle:
			idle, latest = nil, nil
			rest.take()
			continue
		case <-latest:
			idle, latest = nil, nil
			rest.take()
			continue
		case <-s.done:
			return
		}
		idle = s.clock.After(restAfter)
		if latest == nil {
			latest = s.clock.After(restMax)
		}
	}
}

func (s *server) accept() {
	for {
		c, err := s.listener.accept()
		if err != nil { // Out of descriptors: callers see a slow supervisor, and try again.
			<-s.clock.After(50 * time.Millisecond)
			continue
		}
		plain.Go("call", func() {
			defer c.Close()
			s.answer(c)
		})
	}
}

// answer serves a connection.
func (s *server) answer(conn *conn) {
	kind, text, err := ReadFrame(conn)
	if err != nil || kind != FrameRequest {
		return
	}
	q := &Request{}
	if err := json.Unmarshal(text, q); err != nil {
		s.finish(conn, &Answer{Failure: &Failure{"", "request: " + err.Error()}})
		return
	}
	select {
	case s.called <- struct{}{}:
	default:
	}
	s.finish(conn, s.call(conn, q))
}

func (s *server) finish(conn *conn, a *Answer) {
	a.Version = Version
	text, err := json.Marshal(a)
	if err == nil {
		_, _ = conn.Write(EncodeFrame(FrameAnswer, text)) // To one that is gone nothing is told.
	}
}

// call does what was asked.
func (s *server) call(conn *conn, q *Request) *Answer {
	switch q.Call {
	case CallHello:
		return &Answer{UID: s.boot.UID, PID: os.Getpid()}
	case CallState:
		return &Answer{Records: s.records()}
	case CallStart:
		return failure(s.start(q.Launch))
	case CallStop:
		return failure(s.stop(untilGone(conn), q.ID, time.Duration(q.GraceMillis)*time.Millisecond))
	case CallExec:
		code, err := s.exec(conn, q)
		a := failure(err)
		a.ExitCode = code
		return a
	case CallAttach:
		return failure(s.attach(conn, q.ID))
	case CallDial:
		return failure(s.dial(conn, q.Port))
	case CallUsage:
		return &Answer{Usage: s.usage()}
	case CallWatch:
		s.watch(untilGone(conn), conn)
		return &Answer{}
	case CallEnd:
		return failure(s.end())
	}
	return failure(&Failure{FailureCall, fmt.Sprintf("this supervisor (version %d) does not know the call %q", Version, q.Call)})
}

func (f *Failure) Error() string { return f.Text }

func failure(err error) *Answer {
	var f *Failure
	if err != nil && !errors.As(err, &f) {
		f = &Failure{"", err.Error()}
	}
	return &Answer{Failure: f}
}

// untilGone is a context that ends when the other side closes a connection on which it
// has nothing more to say.
func untilGone(conn *conn) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	plain.Go("listen", func() {
		defer cancel()
		var said [64]byte
		for {
			if _, err := conn.Read(said[:]); err != nil {
				return
			}
		}
	})
	return ctx
}

func (s *server) records() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Record
	for _, c := range s.mu.containers {
		all = append(all, c.record)
	}
	slices.SortFunc(all, func(a, b Record) int {
		if a.Name != b.Name {
			if a.Name < b.Name {
				return -1
			}
			return 1
		}
		return a.Attempt - b.Attempt
	})
	return all
}

// watch tells of changes until the other side goes.
func (s *server) watch(ctx context.Context, conn *conn) {
	changed := make(chan struct{}, 1)
	s.mu.Lock()
	s.mu.watchers[changed] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.mu.watchers, changed)
		s.mu.Unlock()
	}()
	for {
		select {
		case <-changed:
			if _, err := conn.Write(EncodeFrame(FrameEvent, nil)); err != nil {
				return
			}
		case <-ctx.Done():
			return
		case <-s.done:
			return
		}
	}
}

func (s *server) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.mu.watchers {
		select {
		case w <- struct{}{}:
		default: // It will look anyway.
		}
	}
}

// end kills all containers, and lets the process end when they have. Asked again it
// waits for the same.
func (s *server) end() error {
	s.mu.Lock()
	again := s.mu.ending
	s.mu.ending = true
	var all []*container
	for _, c := range s.mu.containers {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.kill()
	}
	for _, c := range all {
		<-c.ended
	}
	if !again {
		s.killOrphans()
		close(s.done)
	}
	return nil
}

// killOrphans kills whatever became a child of this process and carries no mark.
func (s *server) killOrphans() {
	for range killTries {
		left := tree(os.Getpid())[1:]
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		<-s.clock.After(killPause)
	}
}
