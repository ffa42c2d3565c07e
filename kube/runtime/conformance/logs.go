package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func logCases() []test {
	return []test{
		{name: "what a container writes is in its log, line by line, with the name of the stream", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "both", "to one", "to the other")
			s.ended(pod, s.start(c))
			s.equal("standard output", text(c.Log, "stdout"), "to one\n")
			s.equal("standard error", text(c.Log, "stderr"), "to the other\n")
		}},
		{name: "a line that has no end is in the log as a part", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "long", "1")
			s.ended(pod, s.start(c))
			lines := s.lines(c.Log)
			if len(lines) == 2 && lines[1] == (line{"stdout", "F", ""}) {
				lines = lines[:1] // Some engines end it when the container does.
			}
			s.equal("log", lines, []line{{"stdout", "P", "0123456789abcdef"}})
		}},
		{name: "a long line is in the log in parts of 16 KiB at most, and nothing is lost", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "lines", "2", "50000")
			s.ended(pod, s.start(c))
			pad := strings.Repeat("x", 50000)
			if got := text(c.Log, "stdout"); got != "0 "+pad+"\n1 "+pad+"\n" {
				s.Errorf("%d bytes, want %d", len(got), 2*50003)
			}
			for _, l := range s.lines(c.Log) {
				if len(l.text) > 16<<10 {
					s.Errorf("a part of %d bytes", len(l.text))
				}
			}
		}},
		{name: "many lines are in the log, in order", run: func(s *scene) {
			pod := s.pod()
			c := s.spec(pod, "lines", "5000", "20")
			s.ended(pod, s.start(c))
			lines := strings.Split(strings.TrimSuffix(text(c.Log, "stdout"), "\n"), "\n")
			s.equal("lines", len(lines), 5000)
			for i, l := range lines {
				if !strings.HasPrefix(l, fmt.Sprint(i, " ")) {
					s.Fatalf("line %d is %q", i, l)
				}
			}
		}},
		{name: "a log that has grown is rotated, and nothing of it is lost", run: rotateLog},
	}
}

func rotateLog(s *scene) {
	pod := s.pod()
	c := s.spec(pod, "lines", "11000", "1000", "and wait")
	id := s.start(c)
	var files []string
	s.until("a rotated log, and what comes after the last line", func() bool {
		files, _ = filepath.Glob(c.Log + "?*")
		return len(files) > 0 && slices.ContainsFunc(append(files, c.Log), func(f string) bool { return strings.HasSuffix(text(f, ""), "ready\n") })
	})
	s.ok(s.engine.Stop(s.ctx, id, 0))
	seen := map[string]bool{}
	files, _ = filepath.Glob(c.Log + "*")
	for _, f := range files {
		// A part of a line may begin a file, or end it.
		for l := range strings.Lines(text(f, "stdout")) {
			number, _, _ := strings.Cut(l, " ")
			seen[number] = true
		}
	}
	for i := range 11000 {
		if !seen[fmt.Sprint(i)] {
			s.Fatalf("line %d is lost; %d are there, in %v", i, len(seen), files)
		}
	}
}

// lines are those of a log file.
func (s *scene) lines(log string) []line {
	s.Helper()
	b, err := os.ReadFile(log)
	s.ok(err)
	lines, err := parseLog(string(b))
	s.ok(err)
	return lines
}
