package golden

import (
	"fmt"
	"strings"
)

const dashes = "----"

// block is a piece of a script: a command with its transcript, or text between
// commands that is kept as it is.
type block struct {
	command *Command
	head    string // The command's lines, or the text.
	want    string
}

func parse(text string) ([]block, error) {
	lines := strings.SplitAfter(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	var blocks []block
	for i := 0; i < len(lines); {
		if line := strings.TrimSpace(lines[i]); line == "" || strings.HasPrefix(line, "#") {
			blocks = append(blocks, block{head: lines[i]})
			i++
			continue
		}
		start := i
		for i < len(lines) && strings.TrimSpace(lines[i]) != dashes {
			i++
		}
		if i == len(lines) {
			return nil, fmt.Errorf("line %d: command without %s below it", start+1, dashes)
		}
		head := lines[start:i]
		want, next := transcript(lines, i+1)
		blocks = append(blocks, block{command: command(start, head), head: strings.Join(head, ""), want: want})
		i = next
	}
	return blocks, nil
}

// transcript returns the expected text that begins at line i, and the line
// after it.
func transcript(lines []string, i int) (string, int) {
	var want strings.Builder
	long := i < len(lines) && strings.TrimSpace(lines[i]) == dashes
	if long {
		i++
	}
	for ; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if long && line == dashes && i+1 < len(lines) && strings.TrimSpace(lines[i+1]) == dashes {
			return want.String(), i + 2
		}
		if !long && line == "" {
			break
		}
		want.WriteString(lines[i])
	}
	return want.String(), i
}

func command(line int, head []string) *Command {
	words := strings.Fields(head[0])
	c := &Command{Line: line + 1, Name: words[0], Input: strings.Join(head[1:], "")}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		c.Args = append(c.Args, Arg{key, value})
	}
	return c
}

func format(blocks []block) string {
	var b strings.Builder
	for _, block := range blocks {
		b.WriteString(block.head)
		if block.command == nil {
			continue
		}
		b.WriteString(dashes + "\n")
		if strings.HasPrefix(block.want, "\n") || strings.Contains(block.want, "\n\n") {
			fmt.Fprintf(&b, "%s\n%s%s\n%s\n", dashes, block.want, dashes, dashes)
		} else {
			b.WriteString(block.want)
		}
	}
	return b.String()
}

// Diff shows where two texts part: the lines before in both, then those of
// each up to where they meet again at the end. It is empty for equal texts.
func Diff(want, got string) string {
	if want == got {
		return ""
	}
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	head := 0
	for head < min(len(w), len(g)) && w[head] == g[head] {
		head++
	}
	tail := 0
	for tail < min(len(w), len(g))-head && w[len(w)-1-tail] == g[len(g)-1-tail] {
		tail++
	}
	const contextLines = 3
	var b strings.Builder
	for _, line := range w[max(0, head-contextLines):head] {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	for _, line := range w[head : len(w)-tail] {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	for _, line := range g[head : len(g)-tail] {
		fmt.Fprintf(&b, "+ %s\n", line)
	}
	for _, line := range w[len(w)-tail : min(len(w), len(w)-tail+contextLines)] {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	return b.String()
}
