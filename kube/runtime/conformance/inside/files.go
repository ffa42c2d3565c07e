package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func read(args []string) int {
	b, err := os.ReadFile(args[0])
	if err != nil {
		return failed(err)
	}
	os.Stdout.Write(b)
	return 0
}

// write puts a text into a file. With a third argument it waits afterwards.
func write(args []string) int {
	if err := os.WriteFile(args[0], []byte(args[1]), 0o644); err != nil {
		return failed(err)
	}
	if len(args) > 2 {
		return wait(nil)
	}
	return 0
}

// list writes the names in a folder.
func list(args []string) int {
	entries, err := os.ReadDir(args[0])
	if err != nil {
		return failed(err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	sort.Strings(names)
	fmt.Println(strings.Join(names, " "))
	return 0
}

// cat writes what it reads, and how much that was to standard error.
func cat([]string) int {
	n, err := io.Copy(os.Stdout, os.Stdin)
	fmt.Fprintln(os.Stderr, "read", n)
	if err != nil {
		return failed(err)
	}
	return 0
}

// ask answers each line that it reads, until one says bye.
func ask([]string) int {
	fmt.Println("who?")
	for in := bufio.NewReader(os.Stdin); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return failed(err)
		}
		if line == "bye\n" {
			return 0
		}
		fmt.Println("hello", strings.TrimSpace(line))
	}
}

// serve answers each line at a port with the text of its second argument and the line.
func serve(args []string) int {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return failed(err)
	}
	fmt.Println("ready", l.Addr().(*net.TCPAddr).Port)
	for {
		c, err := l.Accept()
		if err != nil {
			return failed(err)
		}
		go func() {
			defer c.Close()
			for in := bufio.NewScanner(c); in.Scan(); {
				fmt.Fprintln(c, args[1], in.Text())
			}
		}()
	}
}

// open connects to an address, says a line and prints the answer. It tries for 10 s,
// or the seconds of its third argument.
func open(args []string) int {
	end := time.Now().Add(time.Duration(number(args, 2, 10)) * time.Second)
	for {
		c, err := net.DialTimeout("tcp", args[0], time.Second)
		if err == nil {
			fmt.Fprintln(c, args[1])
			answer, err := bufio.NewReader(c).ReadString('\n')
			c.Close()
			if err != nil {
				return failed(err)
			}
			fmt.Print(answer)
			return 0
		}
		if time.Now().After(end) {
			return failed(err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// size writes the size of the terminal, again each time that it changes, and ends
// with the line "end" on standard input.
func size([]string) int {
	changed := make(chan os.Signal, 8)
	signal.Notify(changed, syscall.SIGWINCH)
	ended := make(chan bool)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			if strings.TrimSpace(in.Text()) == "end" {
				break
			}
		}
		close(ended)
	}()
	for {
		w, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return failed(err)
		}
		fmt.Printf("%dx%d\n", w.Col, w.Row)
		select {
		case <-changed:
		case <-ended:
			return 5
		}
	}
}
