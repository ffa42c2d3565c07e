package main

import (
	"fmt"
	"io"
	"strings"
)

// writeHelp prints every flag for people.
func writeHelp(w io.Writer) {
	fmt.Fprint(w, `holdfast runs a member of a cluster; holdfast dev runs three on this machine.

Each flag is also a variable, HOLDFAST_NAME or ETCD_NAME for --name, and a key of --config-file. A flag that is given
twice counts the last time; switches may stand alone or as --flag=false. docs/flags.md has the same list with reasons.
`)
	for _, s := range sections() {
		fmt.Fprintf(w, "\n%s:\n", s.title)
		for _, r := range s.rows {
			head := "  --" + r.name
			if r.kind != isSwitch {
				head += " " + string(r.kind)
			}
			if len(head) >= helpColumn {
				fmt.Fprintln(w, head)
				head = ""
			}
			fmt.Fprintf(w, "%-*s%s\n", helpColumn, head, r.help())
		}
	}
}

const helpColumn = 40

func (r *row) help() string {
	text := r.says
	if r.initial != "" {
		text += fmt.Sprintf(" (default %s)", r.initial)
	}
	switch r.state {
	case accepted:
		text += " [no effect]"
	case refused:
		text += " [refused]"
	}
	return text
}

// writePage prints docs/flags.md.
func writePage(w io.Writer) {
	fmt.Fprint(w, `# Flags of holdfast

<!-- Generated from the table in cmd/holdfast (go test ./cmd/holdfast -rewrite). -->

All flags of etcd 3.7 are known, with the same names, defaults and forms. Each is one of:

- **done**: it does what its words say, which is what it does in etcd;
- **accepted without effect**: it may stand in a unit file, and the log says at start that it does nothing, and why;
- **refused**: asking for it is an error that says what to do instead; giving it its default is not.

Each is also a variable, HOLDFAST_NAME before ETCD_NAME; a flag goes before both. --config-file takes a YAML file with
etcd's keys, and with the name of every flag; where it is given, other flags and variables are ignored, and the log
names them. Durations in it are numbers of nanoseconds, as in etcd, or texts such as "10m". Keys that are not known are
named in the log. An unknown flag ends the program with exit code 2 and the nearest name that is known; a setting that
does not hold together with exit code 1.

Flags marked ours are not in etcd.
`)
	for _, s := range sections() {
		fmt.Fprintf(w, "\n## %s\n\n| flag | value | default | state | |\n|---|---|---|---|---|\n", s.title)
		for _, r := range s.rows {
			text := r.says
			if r.why != "" {
				text += ". " + strings.ToUpper(r.why[:1]) + r.why[1:]
			}
			if r.ours {
				text += " (ours)"
			}
			fmt.Fprintf(w, "| `%s` | %s | %s | %s | %s |\n", r.name, orSwitch(r.kind), quoted(r.initial), r.state, cell(text))
		}
	}
	fmt.Fprint(w, "\n## Features of --feature-gates\n\n| feature | default | state | |\n|---|---|---|---|\n")
	for _, f := range features() {
		fmt.Fprintf(w, "| `%s` | %t | %s | %s |\n", f.name, f.initial, f.state, cell(f.why))
	}
}

func orSwitch(k kind) string {
	if k == isSwitch {
		return "switch"
	}
	return strings.ToLower(string(k))
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
