// Command inside is what the containers of the conformance suite run: one static
// program, which does what its first argument says and needs nothing of an image.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// verbs are what it can do. Each gets the arguments after its name and returns the
// exit code.
func verbs() map[string]func(args []string) int {
	return map[string]func(args []string) int{
		"report": report, "exit": exit, "print": printAll, "both": both, "lines": lines, "long": long,
		"wait": wait, "deaf": deaf, "on": on, "tick": tick, "until": until, "children": children,
		"read": read, "write": write, "cat": cat, "ask": ask, "serve": serve, "open": open, "size": size,
		"burn": burn, "grab": grab, "fork": fork, "call": call, "list": list,
	}
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "what should be done?")
		os.Exit(64)
	}
	f := verbs()[os.Args[1]]
	if f == nil {
		fmt.Fprintf(os.Stderr, "%s is not known here\n", os.Args[1])
		os.Exit(64)
	}
	os.Exit(f(os.Args[2:]))
}

// failed says what went wrong and is the exit code for it.
func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func number(args []string, i, otherwise int) int {
	if i < len(args) {
		if n, err := strconv.Atoi(args[i]); err == nil {
			return n
		}
	}
	return otherwise
}

func exit(args []string) int { return number(args, 0, 0) }

func printAll(args []string) int {
	fmt.Println(strings.Join(args, " "))
	return 0
}

// both writes one text to standard output and another to standard error.
func both(args []string) int {
	fmt.Fprintln(os.Stdout, args[0])
	fmt.Fprintln(os.Stderr, args[1])
	return number(args, 2, 0)
}

// lines writes some numbered lines of some length, then waits if asked to.
func lines(args []string) int {
	n, length := number(args, 0, 1), number(args, 1, 80)
	pad := strings.Repeat("x", length)
	for i := range n {
		fmt.Printf("%d %s\n", i, pad)
	}
	if len(args) > 2 {
		return wait(nil)
	}
	return 0
}

// long writes a text without the end of a line.
func long(args []string) int {
	os.Stdout.WriteString(strings.Repeat("0123456789abcdef", number(args, 0, 1)))
	return 0
}

// wait ends with code 0, or another, when TERM comes.
func wait(args []string) int {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	fmt.Println("ready")
	<-c
	fmt.Println("asked to end")
	return number(args, 0, 0)
}

// deaf does not hear TERM.
func deaf([]string) int {
	signal.Ignore(syscall.SIGTERM)
	fmt.Println("ready")
	for {
		<-time.After(time.Hour)
	}
}

// on ends with code 3 when the signal with a number comes, and ignores TERM.
func on(args []string) int {
	signal.Ignore(syscall.SIGTERM)
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.Signal(number(args, 0, 15)))
	fmt.Println("ready")
	<-c
	return 3
}

// tick writes a line each 20 ms, until TERM.
func tick([]string) int {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	for i := 0; ; i++ {
		fmt.Println("tick", i)
		select {
		case <-c:
			return 0
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// until ends with a code once a file is there.
func until(args []string) int {
	fmt.Println("ready")
	for {
		if _, err := os.Stat(args[0]); err == nil {
			return number(args, 1, 0)
		}
		<-time.After(10 * time.Millisecond)
	}
}
