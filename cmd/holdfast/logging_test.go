package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/logs"
)

func TestLogsGoWhereTheyAreSent(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for outputs, want := range map[string]string{
		"": "stderr", "default": "stderr", "stderr": "stderr", "systemd/journal": "stderr", "stdout": "stdout",
		a: "a", "stdout,stderr,stdout": "stdout stderr", "stderr," + a + "," + b: "stderr a b",
	} {
		var stdout, stderr bytes.Buffer
		os.Remove(a)
		os.Remove(b)
		o := &options{logOutputs: splitList(outputs)}
		w, err := o.logOutput(&stdout, &stderr)
		if err != nil {
			t.Errorf("%s: %v", outputs, err)
			continue
		}
		w.Write([]byte("line\n"))
		got := ""
		if stdout.String() == "line\n" {
			got += "stdout "
		}
		if stderr.String() == "line\n" {
			got += "stderr "
		}
		for _, file := range []string{a, b} {
			if text, _ := os.ReadFile(file); string(text) == "line\n" {
				got += filepath.Base(file) + " "
			}
		}
		if strings.TrimSpace(got) != want {
			t.Errorf("%q went to %s, want %s", outputs, got, want)
		}
	}
}

func TestWrongLogSettingsAreNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for name, c := range map[string]struct {
		o    options
		want string
	}{
		"default beside":   {options{logOutputs: []string{"default", "stdout"}}, "name stderr in place of default"},
		"no such folder":   {options{logOutputs: []string{file + "/none/x"}}, "--log-outputs: open"},
		"rotating nothing": {options{logOutputs: []string{"stderr"}, rotateLogs: true, rotationConfig: "{}"}, "--enable-log-rotation needs one file"},
		"two files":        {options{logOutputs: []string{file, file + "2"}, rotateLogs: true, rotationConfig: "{}"}, "one file"},
		"no JSON":          {options{logOutputs: []string{file}, rotateLogs: true, rotationConfig: "big"}, "--log-rotation-config-json"},
		"wrong key":        {options{logOutputs: []string{file}, rotateLogs: true, rotationConfig: `{"size": 1}`}, `unknown field "size"`},
		"negative":         {options{logOutputs: []string{file}, rotateLogs: true, rotationConfig: `{"maxage": -1}`}, "negative"},
	} {
		if _, err := c.o.logOutput(nil, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestALogFileIsRotated(t *testing.T) {
	dir := t.TempDir()
	o := &options{logOutputs: []string{filepath.Join(dir, "log")}, rotateLogs: true, rotationConfig: `{"maxsize": 1, "compress": false}`}
	w, err := o.logOutput(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	line := []byte(strings.Repeat("x", 400<<10) + "\n")
	for range 4 {
		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("%d files after 1.6 MB with maxsize 1", len(files))
	}
}

func TestASignalChangesTheLevelAndBack(t *testing.T) {
	log, err := logs.New(&bytes.Buffer{}, "warn", logs.JSON, clock.Real())
	if err != nil {
		t.Fatal(err)
	}
	stop := switchLevel(context.Background(), log)
	defer stop()
	for _, want := range []hclog.Level{hclog.Debug, hclog.Warn} {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); log.Level() != want; {
			if time.Now().After(deadline) {
				t.Fatalf("level is %s, want %s", log.Level(), want)
			}
		}
	}
}
