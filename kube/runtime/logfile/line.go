package logfile

import (
	"bufio"
	"bytes"
	"errors"
	"time"
)

// entry is a line of a file.
type entry struct {
	time    []byte
	stream  string
	partial bool // The container's line goes on.
	text    []byte
}

// parse reads a line of a file. Not ok: it is of another form.
func parse(line []byte) (e entry, ok bool) {
	e.time, line, ok = bytes.Cut(line, []byte(" "))
	if !ok || len(e.time) < len("2006-01-02T15:04:05Z") || e.time[4] != '-' {
		return e, false
	}
	stream, line, ok := bytes.Cut(line, []byte(" "))
	switch string(stream) {
	case "stdout":
		e.stream = "stdout"
	case "stderr":
		e.stream = "stderr"
	default:
		return e, false
	}
	if !ok {
		return e, false
	}
	tags, text, _ := bytes.Cut(line, []byte(" ")) // An empty line may lack the space.
	tag, _, _ := bytes.Cut(tags, []byte(":"))     // More tags may follow the first.
	if string(tag) != "F" && string(tag) != "P" {
		return e, false
	}
	e.partial, e.text = string(tag) == "P", text
	return e, true
}

// errEnough ends a read at its limit of bytes.
var errEnough = errors.New("enough")

// output turns entries into what people read.
type output struct {
	Options
	w    *bufio.Writer
	left int64 // Bytes, if there is a limit.

	begun bool   // An entry was new enough: all that follow are.
	open  string // The stream of a line whose end is to come.
}

// line writes a line of a file. One that is of another form is written as it is:
// whatever is there is better than nothing.
func (o *output) line(line []byte) error {
	e, ok := parse(line)
	if !ok {
		e = entry{text: line}
	}
	if !o.begun && !o.Since.IsZero() {
		at, err := time.Parse(time.RFC3339Nano, string(e.time))
		if err != nil || at.Before(o.Since) {
			return nil
		}
	}
	o.begun = true
	if o.open != "" && o.open != e.stream { // Two streams meet within a line.
		if err := o.write([]byte("\n")); err != nil {
			return err
		}
		o.open = ""
	}
	if o.Timestamps && o.open == "" && ok {
		if err := o.write(append(bytes.Clone(e.time), ' ')); err != nil {
			return err
		}
	}
	o.open = ""
	if e.partial {
		o.open = e.stream
		return o.write(e.text)
	}
	if err := o.write(e.text); err != nil {
		return err
	}
	return o.write([]byte("\n"))
}

func (o *output) write(b []byte) error {
	enough := o.BytesMax > 0 && int64(len(b)) >= o.left
	if enough {
		b = b[:o.left]
	}
	o.left -= int64(len(b))
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	if enough {
		return errEnough
	}
	return nil
}
