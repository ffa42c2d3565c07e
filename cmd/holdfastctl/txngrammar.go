package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// The grammar of a transaction, as etcdctl reads it: three lists of lines, each
// ended by an empty line.
//
//	comparison = target `("` key `") ` operator ` "` value `"`
//	target     = ver | version | c | create | m | mod | val | value | lease
//	operator   = = | != | < | >
//	operation  = put … | get … | del …      with the flags of these commands

// readTxn reads a transaction. prompt is told what comes next.
func readTxn(in *bufio.Reader, prompt func(string)) (client.Txn, error) {
	var t client.Txn
	prompt("compares:")
	err := eachLine(in, "compares", func(line string) error {
		cmp, err := parseCompare(line)
		t.If = append(t.If, cmp)
		return err
	})
	if err != nil {
		return t, err
	}
	prompt("success requests (get, put, del):")
	if t.Then, err = readOps(in, "success requests"); err != nil {
		return t, err
	}
	prompt("failure requests (get, put, del):")
	t.Else, err = readOps(in, "failure requests")
	return t, err
}

// eachLine calls fn for each line of a list. An input that ends before the empty
// line may have been cut off, so nothing is done then.
func eachLine(in *bufio.Reader, list string, fn func(line string) error) error {
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return exit(exitInput, fmt.Errorf("EOF: the input ends within the list of %s; end each of the three lists with an empty line", list))
		}
		if err != nil {
			return exit(exitInput, fmt.Errorf("read the %s: %w", list, err))
		}
		if line = strings.TrimSpace(line); line == "" {
			return nil
		}
		if err := fn(line); err != nil {
			return err
		}
	}
}

func readOps(in *bufio.Reader, list string) (ops []client.Op, err error) {
	err = eachLine(in, list, func(line string) error {
		op, err := parseOp(line)
		ops = append(ops, op)
		return err
	})
	return ops, err
}

var compareTargets = map[string]pb.Compare_CompareTarget{
	"ver": pb.Compare_VERSION, "version": pb.Compare_VERSION,
	"c": pb.Compare_CREATE, "create": pb.Compare_CREATE,
	"m": pb.Compare_MOD, "mod": pb.Compare_MOD,
	"val": pb.Compare_VALUE, "value": pb.Compare_VALUE,
	"lease": pb.Compare_LEASE,
}

var compareResults = map[string]pb.Compare_CompareResult{
	"=": client.Equal, "!=": client.NotEqual, "<": client.Less, ">": client.Greater,
}

// parseCompare reads one comparison.
func parseCompare(line string) (client.Compare, error) {
	malformed := func(why string) (client.Compare, error) {
		return client.Compare{}, exit(exitInput, fmt.Errorf(`malformed comparison: %s (%s); write it like mod("key1") > "0"`, line, why))
	}
	name, rest, found := strings.Cut(line, "(")
	if !found {
		return malformed("no parenthesis")
	}
	target, ok := compareTargets[name]
	if !ok {
		return malformed("unknown target " + name)
	}
	key, rest, ok := cutQuoted(rest)
	if !ok {
		return malformed("no key in quotes")
	}
	rest, found = strings.CutPrefix(rest, ")")
	if !found {
		return malformed("no closing parenthesis")
	}
	operator, rest, _ := strings.Cut(strings.TrimSpace(rest), " ")
	result, ok := compareResults[operator]
	if !ok {
		return malformed(fmt.Sprintf("unknown operator %q", operator))
	}
	value, rest, ok := cutQuoted(strings.TrimSpace(rest))
	if !ok || rest != "" {
		return malformed("no value in quotes at the end")
	}
	c := client.Compare{Range: client.One(key), Target: target, Result: result}
	switch target {
	case pb.Compare_VALUE:
		c.Value = []byte(value)
		return c, nil
	case pb.Compare_LEASE:
		return number(c, line, value, 16)
	}
	return number(c, line, value, 10)
}

func number(c client.Compare, line, value string, base int) (client.Compare, error) {
	n, err := strconv.ParseInt(value, base, 64)
	if err != nil {
		return c, exit(exitInput, fmt.Errorf("invalid txn compare request: %s (%w)", line, err))
	}
	c.Number = n
	return c, nil
}

// cutQuoted takes a quoted text off the front.
func cutQuoted(s string) (text, rest string, ok bool) {
	quoted, err := strconv.QuotedPrefix(s)
	if err != nil || quoted[0] == '\'' {
		return "", "", false
	}
	text, err = strconv.Unquote(quoted)
	return text, s[len(quoted):], err == nil
}

// parseOp reads one operation, with the flags that it has as a command.
func parseOp(line string) (client.Op, error) {
	words, err := splitWords(line)
	if err != nil {
		return nil, exit(exitInput, fmt.Errorf("invalid txn request: %w", err))
	}
	if len(words) < 2 {
		return nil, exit(exitInput, fmt.Errorf("invalid txn request: %s (it needs a key)", line))
	}
	fs := pflag.NewFlagSet(words[0], pflag.ContinueOnError)
	fs.Usage = func() {}
	var op func() (client.Op, error)
	switch words[0] {
	case "put":
		var f putFlags
		f.declare(fs)
		op = func() (client.Op, error) { return f.request(fs.Args(), strings.NewReader("")) }
	case "get":
		var f getFlags
		f.declare(fs)
		op = func() (client.Op, error) { return f.request(fs.Args()) }
	case "del":
		var f delFlags
		f.declare(fs)
		op = func() (client.Op, error) { return f.request(fs.Args()) }
	default:
		return nil, exit(exitInput, fmt.Errorf("invalid txn request: %s (use put, get or del)", line))
	}
	if err := fs.Parse(words[1:]); err != nil {
		return nil, exit(exitInput, fmt.Errorf("invalid txn request: %s (%w)", line, err))
	}
	return op()
}
