package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock"
)

func TestALineHasTheShapeThatCollectorsExpect(t *testing.T) {
	var out bytes.Buffer
	log, err := New(&out, "info", JSON, clock.Real())
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("not shown")
	log.With("member", "a").Warn("disk is slow", "took", 3*time.Second, "error", errors.New("late"))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%s: %v", out.Bytes(), err)
	}
	for key, want := range map[string]string{"level": "warn", "msg": "disk is slow", "took": "3s", "error": "late", "member": "a"} {
		if line[key] != want {
			t.Errorf("%s is %v, want %s in %s", key, line[key], want, out.Bytes())
		}
	}
	if !regexp.MustCompile(`^\{"level":"warn","ts":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","caller":"logs/logs_test.go:\d+","msg":`).Match(out.Bytes()) {
		t.Errorf("order or form of the first fields: %s", out.Bytes())
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	if _, err := New(nil, "loud", JSON, clock.Real()); err == nil {
		t.Error("level loud was taken")
	}
	if _, err := New(nil, "info", "xml", clock.Real()); err == nil {
		t.Error("format xml was taken")
	}
}

func TestTheLevelChangesWhileItIsUsed(t *testing.T) {
	var out bytes.Buffer
	log, err := New(&out, "warn", JSON, clock.Real())
	if err != nil {
		t.Fatal(err)
	}
	child := log.With("member", "a") // Made before.
	child.Debug("one")
	log.SetLevel(hclog.Debug)
	child.Debug("two")
	log.SetLevel(hclog.Error)
	child.Warn("three")
	if got := out.String(); bytes.Count(out.Bytes(), []byte("\n")) != 1 || !bytes.Contains(out.Bytes(), []byte(`"msg":"two"`)) {
		t.Errorf("%s", got)
	}
}

func TestLevelsOfEtcdAreKnown(t *testing.T) {
	for _, level := range []string{"debug", "info", "warn", "error", "dpanic", "panic", "fatal"} {
		if _, err := New(nil, level, JSON, clock.Real()); err != nil {
			t.Error(err)
		}
	}
}
