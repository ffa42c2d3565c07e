package process

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

func (m *Member) get(ctx context.Context, path string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Client+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

// metrics reads some values without labels.
func (m *Member) metrics(ctx context.Context, names ...string) ([]float64, error) {
	body, err := m.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	values := make([]float64, len(names))
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		for i := range names {
			if name == names[i] {
				if values[i], err = strconv.ParseFloat(value, 64); err != nil {
					return nil, err
				}
			}
		}
	}
	return values, lines.Err()
}

// Memory is what one process holds.
type Memory struct {
	HeapBytes     float64 // Live, after a collection.
	ResidentBytes float64
	FileBytes     float64 // Of that, pages of mapped files, which the system takes back.
}

// Memory of the first member.
func (c *Cluster) Memory(ctx context.Context) (*Memory, error) {
	m := c.Members[0]
	var body []byte
	var err error
	for range 2 { // What the first collection finalizes the second one frees.
		if body, err = m.get(ctx, "/debug/pprof/heap?gc=1&debug=1"); err != nil {
			return nil, err
		}
	}
	_, rest, ok := strings.Cut(string(body), "\n# HeapAlloc = ")
	if !ok {
		return nil, fmt.Errorf("no HeapAlloc in the heap profile of %s", c.Kind.Name)
	}
	line, _, _ := strings.Cut(rest, "\n")
	u := &Memory{}
	if u.HeapBytes, err = strconv.ParseFloat(line, 64); err != nil {
		return nil, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	u.ResidentBytes, u.FileBytes = kilobytes(status, "VmRSS:"), kilobytes(status, "RssFile:")
	return u, nil
}

func kilobytes(status []byte, name string) float64 {
	_, rest, _ := strings.Cut(string(status), name)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseFloat(fields[0], 64) // 0 when the kernel has no such line.
	return n * 1024
}

// Profile saves a profile of the first member, for those who ask why.
func (c *Cluster) Profile(ctx context.Context, path, file string) error {
	body, err := c.Members[0].get(ctx, path)
	if err != nil {
		return err
	}
	return os.WriteFile(file, body, 0o600)
}

// Anonymous is the memory of the first member that belongs to no file, in bytes.
func (c *Cluster) Anonymous() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Members[0].cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	return kilobytes(status, "VmRSS:") - kilobytes(status, "RssFile:"), nil
}
