package logfile_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
)

func create(t *testing.T, cfg logfile.Config) *logfile.Writer {
	t.Helper()
	cfg.Clock = clock.Real()
	w, err := logfile.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

var stamped = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z `)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return stamped.ReplaceAllString(string(b), "")
}

func TestLinesAndTheirPartsAreOfTheirStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	w := create(t, logfile.Config{Path: path})
	out, errs := w.Stream(logfile.Stdout), w.Stream(logfile.Stderr)
	for _, step := range []struct {
		s    *logfile.Stream
		text string
	}{{out, "one\ntwo\nthr"}, {errs, "oh\n"}, {out, "ee\n\n"}, {out, "end"}, {errs, "x\n"}} {
		if n, err := step.s.Write([]byte(step.text)); n != len(step.text) || err != nil {
			t.Fatal(n, err)
		}
	}
	out.Close()
	errs.Close()
	want := "stdout F one\nstdout F two\nstderr F oh\nstdout F three\nstdout F \nstderr F x\nstdout P end\n"
	if got := read(t, path); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLongLineIsWrittenInParts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	out := create(t, logfile.Config{Path: path}).Stream(logfile.Stdout)
	for range 40 {
		_, _ = out.Write([]byte(strings.Repeat("a", 1000)))
	}
	_, _ = out.Write([]byte("\n"))
	var sum int
	lines := strings.Split(strings.TrimSpace(read(t, path)), "\n")
	for i, l := range lines {
		kind, text, _ := strings.Cut(strings.TrimPrefix(l, "stdout "), " ")
		if (kind == "F") != (i == len(lines)-1) {
			t.Errorf("line %d is %s", i, kind)
		}
		sum += len(text)
	}
	if sum != 40_000 || len(lines) != 3 {
		t.Fatalf("%d bytes in %d lines", sum, len(lines))
	}
}

func TestRotationKeepsTheNewestFilesAndLosesNoLineOfThem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	out := create(t, logfile.Config{Path: path, BytesMax: 1000, FilesMax: 3}).Stream(logfile.Stdout)
	text := func(i int) string { return strings.Repeat(string(rune('a'+i%26)), 60) }
	for i := range 100 {
		_, _ = out.Write([]byte(text(i) + "\n"))
	}
	files, _ := filepath.Glob(path + "*")
	if len(files) != 3 {
		t.Fatalf("files %q", files)
	}
	all := read(t, path+".2") + read(t, path+".1") + read(t, path)
	lines := strings.Split(strings.TrimSpace(all), "\n")
	for i, l := range lines {
		if want := "stdout F " + text(100-len(lines)+i); l != want {
			t.Fatalf("line %d of %d is %q, want %q", i, len(lines), l, want)
		}
	}
	if len(lines) < 15 {
		t.Fatalf("only %d lines are left", len(lines))
	}
	if err := logfile.Remove(path, 3); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(path + "*"); len(files) != 0 {
		t.Fatalf("left: %q", files)
	}
}

func TestFileGrowsWhereNothingCanBeRenamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "0.log")
	out := create(t, logfile.Config{Path: path, BytesMax: 100}).Stream(logfile.Stdout)
	_, _ = out.Write([]byte(strings.Repeat("a", 90) + "\n"))
	// The next write rotates, and then the folder is a file: nothing can be made in it.
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Write([]byte("b\n"))
	if got := read(t, filepath.Join(dir+".away", "0.log")); !strings.HasSuffix(got, "stdout F b\n") {
		t.Fatalf("where nothing can be renamed the file shall grow; it holds\n%s", got)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Write([]byte("c\n"))
	if got := read(t, path); got != "stdout F c\n" {
		t.Fatalf("got\n%s", got)
	}
}

func TestWhatAFullDiskLosesIsToldOnceThereIsRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	out := create(t, logfile.Config{Path: path}).Stream(logfile.Stdout)
	for range 2 {
		if n, err := out.Write([]byte("lost\n")); n != 5 || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Write([]byte("kept\n"))
	want := "stderr F holdfast: 8 bytes before this line could not be written\nstdout F kept\n"
	if got := read(t, path); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}
