//go:build linux

package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/clock"
)

// markerName is a variable by which the processes of a container are known where no
// PID namespace and no cgroup holds them.
const markerName = "HOLDFAST_CONTAINER"

const (
	// lookEvery is how often memory is looked at, where nothing enforces its limit.
	lookEvery = 250 * time.Millisecond
	// killTries bounds how long processes that make others are hunted.
	killTries = 400
	killPause = 5 * time.Millisecond
	// ticksPerSecond is the unit of /proc/PID/stat, the same on all machines.
	ticksPerSecond = 100
)

// marked finds the processes of this user that carry a container's mark.
func marked(id string) []int {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	mark := []byte("\x00" + markerName + "=" + id + "\x00")
	var found []int
	for _, n := range names {
		pid, err := strconv.Atoi(n.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile("/proc/" + n.Name() + "/environ")
		if err == nil && bytes.Contains(append([]byte{0}, env...), mark) {
			found = append(found, pid)
		}
	}
	return found
}

// KillMarked kills what is left of a container, until nothing is. It tells whether it
// succeeded.
func KillMarked(id string, c clock.Clock) bool {
	for range killTries {
		left := marked(id)
		if len(left) == 0 {
			return true
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		<-c.After(killPause)
	}
	return false
}

// tree returns a process and all below it.
func tree(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children(all[i])...)
	}
	return all
}

// children of a process, of all its threads.
func children(pid int) []int {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil // It has ended.
	}
	var all []int
	for _, t := range threads {
		text, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(f); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// processes are those of a container: its first one with all below, and orphans that
// became the supervisor's.
func (c *container) processes() []int {
	all := tree(c.process.pid)
	mark := []byte("\x00" + markerName + "=" + c.launch.ID + "\x00")
	for _, pid := range children(os.Getpid()) {
		if pid == c.process.pid {
			continue
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(append([]byte{0}, env...), mark) {
			all = append(all, tree(pid)...)
		}
	}
	return all
}

// measure adds up what processes use. Memory that they share counts for each.
func measure(pids []int) Usage {
	var u Usage
	page := int64(os.Getpagesize())
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The name, in brackets, may hold anything; the state is the first after it.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 22 {
			continue
		}
		for _, f := range fields[11:15] { // utime stime cutime cstime
			ticks, _ := strconv.ParseInt(f, 10, 64)
			u.CPUNanos += ticks * int64(time.Second) / ticksPerSecond
		}
		pages, _ := strconv.ParseInt(fields[21], 10, 64)
		u.MemoryBytes += pages * page
	}
	return u
}

// usage is what the running containers use, as far as /proc tells.
func (s *server) usage() map[string]Usage {
	all := map[string]Usage{}
	for _, c := range s.live() {
		all[c.launch.Name] = measure(c.processes())
	}
	return all
}

func (s *server) live() []*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*container
	for _, c := range s.mu.containers {
		if c.record.State == StateRunning {
			all = append(all, c)
		}
	}
	return all
}

// watchMemory kills a container that is above its limit when it is looked at.
func (c *container) watchMemory() {
	s := c.server
	tick := s.clock.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.ended:
			return
		case <-tick.C():
		}
		u := measure(c.processes())
		if u.MemoryBytes <= c.launch.MemoryMax {
			continue
		}
		s.mu.Lock()
		c.soft = fmt.Sprintf("killed at %d bytes of memory, limit %d. The limit is soft: it is looked at each %v, and is not kept in between",
			u.MemoryBytes, c.launch.MemoryMax, lookEvery)
		s.mu.Unlock()
		c.kill()
	}
}
