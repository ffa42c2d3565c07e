// Package process runs servers under measurement, each a process of its own
// with a data directory on disk, and reads what they cost.
package process

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-db/holdfast/tests/bench/wire"
)

const (
	startLimit = 2 * time.Minute
	stopLimit  = time.Minute
	askLimit   = 10 * time.Second
	pollEvery  = 2 * time.Millisecond
	tick       = 10 * time.Millisecond // Of the times in /proc, on every Linux that Go runs on.
)

// Kind is a program that can be measured. All take etcd's flags.
type Kind struct {
	Name  string
	Path  string
	Flags []string // Dir in them is the folder of the cluster.
	Both  bool     // Its client URLs take TLS and cleartext.

	Dialer wire.Dialer // How its clients connect.
}

// Dir stands in flags for the folder of a cluster.
const Dir = "{dir}"

// Cluster is one or more members of a kind.
type Cluster struct {
	Kind    Kind
	Members []*Member
	dir     string
}

// Member is one process.
type Member struct {
	Client string // Where clients are served, host and port.

	args  []string
	path  string
	log   string
	cmd   *exec.Cmd
	ended chan struct{}
}

// alive are all processes, so that none outlives the benchmark.
var alive struct {
	sync.Mutex
	members []*Member
}

// KillAll ends every process that is left.
func KillAll() {
	alive.Lock()
	members := slices.Clone(alive.members)
	alive.Unlock()
	for _, m := range members {
		m.Kill()
	}
}

// New prepares a cluster of n with empty data directories under dir.
func New(kind Kind, dir string, n int) (*Cluster, error) {
	c := &Cluster{Kind: kind, dir: dir}
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700))
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2 * n)
	if err != nil {
		return nil, err
	}
	var initial []string
	for i := range n {
		initial = append(initial, fmt.Sprintf("m%d=http://127.0.0.1:%d", i, ports[2*i]))
	}
	for i := range n {
		client, peer := fmt.Sprintf("127.0.0.1:%d", ports[2*i+1]), fmt.Sprintf("http://127.0.0.1:%d", ports[2*i])
		urls := "http://" + client
		if kind.Both {
			urls += ",https://" + client
		}
		c.Members = append(c.Members, &Member{
			Client: client,
			path:   kind.Path,
			log:    filepath.Join(dir, fmt.Sprintf("m%d.log", i)),
			args: []string{
				"--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(dir, fmt.Sprintf("m%d", i)),
				"--listen-client-urls", urls, "--advertise-client-urls", "http://" + client,
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
				"--initial-cluster", strings.Join(initial, ","), "--enable-pprof",
			},
		})
		for _, f := range kind.Flags {
			c.Members[i].args = append(c.Members[i].args, strings.ReplaceAll(f, Dir, dir))
		}
	}
	return c, nil
}

// Below those from which a system takes the ports of outgoing connections: one of
// these may be gone again before the program that is told of it listens.
const firstPort, lastPort = 12_000, 30_000

// freePorts finds ports that nobody listens on.
func freePorts(n int) ([]int, error) {
	var ports []int
	for len(ports) < n {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(lastPort-firstPort)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer l.Close() // When all are found: none is found twice.
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// Start runs all members and waits until each serves.
func (c *Cluster) Start() (took time.Duration, err error) {
	start := time.Now()
	for _, m := range c.Members {
		if err := m.start(); err != nil {
			return 0, err
		}
	}
	for _, m := range c.Members {
		if err := m.waitServing(c.Kind.Dialer, start.Add(startLimit)); err != nil {
			return 0, fmt.Errorf("%s: %w", c.Kind.Name, err)
		}
	}
	return time.Since(start), nil
}

// Addrs are where clients are served.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, m := range c.Members {
		addrs = append(addrs, m.Client)
	}
	return addrs
}

// Kill ends all members at once, as a crash does.
func (c *Cluster) Kill() {
	for _, m := range c.Members {
		if m.cmd != nil {
			m.cmd.Process.Kill() // One that has ended is waited for below.
		}
	}
	for _, m := range c.Members {
		m.Kill()
	}
}

// Alone starts one member again as a cluster of its own, the others being lost,
// and waits until it serves. That is etcd's way; both kinds have the flag.
func (c *Cluster) Alone(which int) (took time.Duration, err error) {
	m := c.Members[which]
	args := m.args
	defer func() { m.args = args }()
	m.args = append(slices.Clone(args), "--force-new-cluster")
	start := time.Now()
	if err := m.start(); err != nil {
		return 0, err
	}
	if err := m.waitServing(c.Kind.Dialer, start.Add(startLimit)); err != nil {
		return 0, fmt.Errorf("%s: %w", c.Kind.Name, err)
	}
	return time.Since(start), nil
}

// Stop ends all members as an operator does.
func (c *Cluster) Stop() error {
	var errs []error
	for _, m := range c.Members {
		errs = append(errs, m.stop())
	}
	return errors.Join(errs...)
}

// Remove kills what runs and removes the data.
func (c *Cluster) Remove() error {
	c.Kill()
	return os.RemoveAll(c.dir)
}

func (m *Member) start() error {
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	m.cmd = exec.Command(m.path, m.args...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		return err
	}
	m.ended = make(chan struct{})
	go func() {
		m.cmd.Wait() // Its error is that it was killed.
		close(m.ended)
	}()
	alive.Lock()
	defer alive.Unlock()
	alive.members = append(alive.members, m)
	return nil
}

// waitServing asks for a linearizable read until there is an answer.
func (m *Member) waitServing(d wire.Dialer, until time.Time) error {
	request := wire.AppendRange(nil, &wire.RangeRequest{Key: []byte("is anybody there")})
	for {
		_, err := d.Ask(m.Client, wire.Range, request, askLimit)
		if err == nil {
			return nil
		}
		select {
		case <-m.ended:
			return fmt.Errorf("process ended, see %s", m.log)
		case <-time.After(pollEvery):
		}
		if time.Now().After(until) {
			return fmt.Errorf("does not serve within %s, see %s: %w", startLimit, m.log, err)
		}
	}
}

// Kill ends the process as a crash does.
func (m *Member) Kill() {
	if m.cmd == nil {
		return
	}
	m.cmd.Process.Kill()
	<-m.ended
	m.forget()
}

func (m *Member) stop() error {
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-m.ended:
		m.forget()
		return nil
	case <-time.After(stopLimit):
		m.Kill()
		return fmt.Errorf("process does not end within %s, see %s", stopLimit, m.log)
	}
}

func (m *Member) forget() {
	alive.Lock()
	defer alive.Unlock()
	alive.members = slices.DeleteFunc(alive.members, func(o *Member) bool { return o == m })
}

// CPU is user and system time of all members since they started.
func (c *Cluster) CPU() (sum time.Duration, err error) {
	for _, m := range c.Members {
		cpu, err := m.cpu()
		if err != nil {
			return 0, err
		}
		sum += cpu
	}
	return sum, nil
}

// Counts are what the members of a cluster have done since they started.
type Counts struct {
	Syncs    float64 // Of the Raft log.
	SyncTime float64 // Seconds that they took.
	Commits  float64 // Of the file with the keys.
}

// Counts asks the members.
func (c *Cluster) Counts(ctx context.Context) (sum Counts, err error) {
	for _, m := range c.Members {
		values, err := m.metrics(ctx, "etcd_disk_wal_fsync_duration_seconds_count", "etcd_disk_backend_commit_duration_seconds_count",
			"etcd_disk_wal_fsync_duration_seconds_sum")
		if err != nil {
			return sum, err
		}
		sum.Syncs += values[0]
		sum.Commits += values[1]
		sum.SyncTime += values[2]
	}
	return sum, nil
}

func (m *Member) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), ") ") // The name before may hold anything.
	fields := strings.Fields(rest)
	const userTime, systemTime = 11, 12
	if len(fields) <= systemTime {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", m.cmd.Process.Pid, len(fields))
	}
	user, err := strconv.ParseInt(fields[userTime], 10, 64)
	system, err2 := strconv.ParseInt(fields[systemTime], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err, err2)
}
