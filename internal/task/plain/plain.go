// Package plain starts goroutines in processes that are started by the hundred and
// shall load next to nothing: the package above it, with its labels for profiles, has
// half of the standard library initialised first. They end with their process.
package plain

import "fmt"

// Go starts f. A panic ends the process, with the name of the goroutine.
func Go(name string, f func()) {
	go func() {
		defer func() {
			if v := recover(); v != nil {
				panic(fmt.Sprintf("goroutine %q: %v", name, v))
			}
		}()
		room(false)
		f()
	}()
}

// roomBytes are what a request needs of its stack, with the reading of its JSON.
const roomBytes = 12 << 10

// room has the stack grow once, here where there is nothing on it. To move a stack that is
// in use the runtime reads the tables of all functions on it, in pages of the program that
// are needed for nothing else: five megabytes of them in a large one. What is not written
// to takes no memory.
//
//go:noinline
func room(written bool) {
	if written {
		var frame [roomBytes]byte
		write(frame[:])
	}
}

//go:noinline
func write(b []byte) { clear(b) }
