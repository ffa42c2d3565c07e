// Package ports finds ports for the programs that a test starts.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Below those from which a system takes the ports of outgoing connections: one of
// these may be gone again before the program that is told of it listens. Below those
// of services on nodes, too.
const (
	first = 12_000
	last  = 30_000
	tries = 10_000
)

var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// Free are addresses of this machine at which nobody listens, and which nobody else
// in this process is given.
func Free(n int) ([]string, error) {
	given.Lock()
	defer given.Unlock()
	var all []string
	var err error
	for range tries {
		if len(all) == n {
			return all, nil
		}
		port := first + rand.IntN(last-first) // By chance: other processes look as well.
		if given.ports[port] {
			continue
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, listenErr := net.Listen("tcp", addr)
		if listenErr != nil {
			err = listenErr
			continue
		}
		l.Close()
		given.ports[port] = true
		all = append(all, addr)
	}
	return nil, fmt.Errorf("no %d free ports between %d and %d, the last refusal: %w", n, first, last, err)
}
