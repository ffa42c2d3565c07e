package conformance

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// line of a log.
type line struct {
	stream, tag, text string
}

// parseLog reads a log in the form of CRI.
func parseLog(b string) ([]line, error) {
	var all []line
	for l := range strings.Lines(b) {
		l, whole := strings.CutSuffix(l, "\n")
		if !whole {
			break // It is being written.
		}
		fields := strings.SplitN(l, " ", 4)
		if len(fields) < 4 {
			return nil, fmt.Errorf("line %q of a log", l)
		}
		if _, err := time.Parse(time.RFC3339Nano, fields[0]); err != nil {
			return nil, fmt.Errorf("line %q of a log: %w", l, err)
		}
		if fields[1] != "stdout" && fields[1] != "stderr" || fields[2] != "F" && fields[2] != "P" {
			return nil, fmt.Errorf("line %q of a log", l)
		}
		all = append(all, line{fields[1], fields[2], fields[3]})
	}
	return all, nil
}

// text is what a log says, of one stream or of both.
func text(log, stream string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	lines, err := parseLog(string(b))
	if err != nil {
		return "! " + err.Error()
	}
	var out strings.Builder
	if n := len(lines); n > 1 && lines[n-1].text == "" && lines[n-2].tag == "P" {
		lines = lines[:n-1] // Some engines end what has no end when the container does.
	}
	for _, l := range lines {
		if stream != "" && l.stream != stream {
			continue
		}
		out.WriteString(l.text)
		if l.tag == "F" {
			out.WriteByte('\n')
		}
	}
	return out.String()
}
