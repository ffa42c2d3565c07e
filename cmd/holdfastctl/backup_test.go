package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/snapshot/archive"
)

func TestABadWriteIsUndoneFromTheArchive(t *testing.T) {
	quick.LeaveOut(t)
	folder := filepath.Join(t.TempDir(), "archive")
	url := "file://" + folder
	tt := newTerminal(t, func(c *server.Config) {
		c.ArchiveURL, c.ArchiveMode = url, server.ArchiveSync
	})
	for i := range 20 {
		tt.must("put", fmt.Sprintf("key-%02d", i), "value")
	}
	tt.must("del", "key-", "--prefix") // Revision 22.
	if got := tt.must("archive", "verify", "--archive", url); !strings.Contains(got, "0 keys, 0 read back") {
		t.Errorf("verify: %s", got)
	}
	got := tt.must("backup", "ls", "--archive", url)
	if !strings.Contains(got, "can be restored: timeline 1, entries ") || !strings.Contains(got, "last verified ") || strings.Contains(got, "missing") {
		t.Errorf("ls: %s", got)
	}
	var list backups
	if err := json.Unmarshal([]byte(tt.must("backup", "ls", "--archive", url, "-w", "json")), &list); err != nil || len(list.Bases) == 0 || list.LastDrill == nil || list.Ceiling < 22 ||
		time.Since(list.Bases[0].Shipped).Abs() > time.Hour {
		t.Errorf("ls -w json: %+v, %v", list, err)
	}
	if got := tt.must("backup", "prune", "--archive", url, "--dry-run"); !strings.Contains(got, "not needed: 0 objects") {
		t.Errorf("prune: %s", got)
	}

	costOfArchive(tt, url)
	inspectedArchive(tt, url, folder)
	spec := "members:\n"
	for i := range 2 {
		spec += fmt.Sprintf("- name: n%d\n  peer-urls: [http://127.0.0.1:%d]\n  data-dir: out/n%d\n", i, 9000+i, i)
	}
	if err := os.WriteFile("spec.yaml", []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	restore := []string{"restore", "--from", url, "--to", "before-revision=22", "--cluster", "spec.yaml"}
	got = tt.must(append(restore, "--dry-run")...)
	if strings.Contains(got, "\n from") || strings.Index(got, " n0 ") > strings.Index(got, " n1 ") {
		t.Errorf("lines of the dry run: %s", got)
	}
	if !strings.Contains(got, "given up 1 revisions") || !strings.Contains(got, "begins above it") || !strings.Contains(got, "Nothing was done") {
		t.Errorf("dry run: %s", got)
	}
	if _, err := os.Stat("out"); err == nil {
		t.Error("the dry run has left something")
	}
	if err := os.Mkdir("out", 0o700); err != nil {
		t.Fatal(err)
	}
	interrupted(tt, folder, restore)
	got = tt.must(restore...)
	if !strings.Contains(got, "holdfast --name n0") || !strings.Contains(got, "holdfast --name n1") {
		t.Errorf("restore: %s", got)
	}
	for i := range 2 {
		if got := tt.must("inspect", "backend", fmt.Sprintf("out/n%d", i)); !regexp.MustCompile(`\b20\b`).MatchString(got) {
			t.Errorf("the restored base: %s", got)
		}
	}
	if left, err := filepath.Glob("out/holdfast-restore-*"); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
	refusals(tt, url, restore)
	if got := tt.must(append(restore, "--replace", "--member", "n1", "--nonce", "7")...); !strings.Contains(got, "--nonce 7") || !strings.Contains(got, "--to index=") {
		t.Errorf("one member: %s", got)
	}
}

// interrupted is a restore into an empty folder, as a mount point is, that fails
// for want of an object: the same command shall do when that is there.
func interrupted(tt *terminalTest, folder string, restore []string) {
	tt.t.Helper()
	bases, err := filepath.Glob(folder + "/*/tl/*/base/*/part-*")
	if err != nil || len(bases) == 0 {
		tt.t.Fatalf("pieces: %q, %v", bases, err)
	}
	if err := os.MkdirAll("out/n0", 0o700); err != nil {
		tt.t.Fatal(err)
	}
	for _, name := range bases {
		if err := os.Rename(name, name+"-away"); err != nil {
			tt.t.Fatal(err)
		}
	}
	if _, stderr, code := tt.run(0, "", restore...); code != exitFailed || !strings.Contains(stderr, "part-") {
		tt.t.Errorf("without the base: %d, %s", code, stderr)
	}
	for _, name := range bases {
		if err := os.Rename(name+"-away", name); err != nil {
			tt.t.Fatal(err)
		}
	}
}

// costOfArchive compares what backup cost says with backup ls.
func costOfArchive(tt *terminalTest, url string) {
	tt.t.Helper()
	var cost archive.Cost
	if err := json.Unmarshal([]byte(tt.must("backup", "cost", "--archive", url, "--keep", "1h,48h", "-w", "json")), &cost); err != nil ||
		len(cost.Kept) != 2 || cost.Kept[1].Keep != "48h0m0s" || cost.Kept[0].Stays != cost.Total || len(cost.Days) == 0 || cost.Total.Objects == 0 {
		tt.t.Errorf("cost: %+v, %v", cost, err)
	}
	if got := tt.must("backup", "cost", "--archive", url); !regexp.MustCompile(`total │ +\d+ │.*B │\n`).MatchString(got) || !strings.Contains(got, "720h0m0s") {
		tt.t.Errorf("cost: %s", got)
	}
}

// inspectedArchive inspects an archive as it is, and with one byte changed.
func inspectedArchive(tt *terminalTest, url, folder string) {
	tt.t.Helper()
	stdout, stderr, code := tt.run(0, "", "inspect", "archive", url)
	if code != 0 || !strings.Contains(stderr, "is whole: ") || !strings.Contains(stdout, "  entries ") || !strings.Contains(stdout, "1 pieces") {
		tt.t.Errorf("inspect archive: %d, %s%s", code, stdout, stderr)
	}
	found, err := filepath.Glob(folder + "/*/tl/*/log/*.hist")
	if err != nil || len(found) == 0 {
		tt.t.Fatalf("segments: %q, %v", found, err)
	}
	info, err := os.Stat(found[0])
	if err != nil {
		tt.t.Fatal(err)
	}
	spoil(tt.t.(*testing.T), found[0], info.Size()-40)
	stdout, stderr, code = tt.run(0, "", "inspect", "archive", url, "-w", "json")
	if at := filepath.Base(found[0]) + " is damaged at offset "; code != exitFailed || strings.Count(stdout, at) != 1 || !strings.Contains(stderr, at) {
		tt.t.Errorf("inspect archive with damage: %d, %s%s", code, stdout, stderr)
	}
	spoil(tt.t.(*testing.T), found[0], info.Size()-40)
}

// A prefix goes back to what it was, in the running cluster: what was deleted,
// what was changed, and what is new. Other keys stay.
func TestAPrefixIsTakenBackInTheRunningCluster(t *testing.T) {
	quick.LeaveOut(t)
	url := "file://" + filepath.Join(t.TempDir(), "archive")
	tt := newTerminal(t, func(c *server.Config) { c.ArchiveURL, c.ArchiveMode = url, server.ArchiveSync })
	for i := range 100 { // More than one transaction takes.
		tt.must("put", fmt.Sprintf("a/%03d", i), "value")
	}
	tt.must("put", "b", "1") // Revision 102.
	tt.must("del", "a/0", "--prefix")
	tt.must("put", "a/new", "x")
	tt.must("put", "a/zz", "later")
	tt.must("put", "b", "2")
	point := []string{"--archive", url, "at:revision=102", "live"}
	if got, _, code := tt.run(0, "", append([]string{"diff", "--prefix", "a/"}, point...)...); code != exitFailed || strings.Count(got, "- a/0") != 100 || !strings.Contains(got, "+ a/new") {
		t.Errorf("diff: %d, %s", code, got)
	}
	back := []string{"restore", "--from", url, "--to", "revision=102", "--prefix", "a/"}
	if got := tt.must(append(back, "--dry-run")...); strings.Count(got, "+ a/0") != 100 || !strings.Contains(got, "- a/new") {
		t.Errorf("dry run: %s", got)
	}
	if got := tt.must("get", "a/", "--prefix", "--keys-only"); strings.Contains(got, "a/0") {
		t.Errorf("after the dry run: %s", got)
	}
	if got := tt.must(back...); strings.Count(got, "+ a/0") != 100 {
		t.Errorf("restore: %s", got)
	}
	if got, _, code := tt.run(0, "", append([]string{"diff", "--prefix", "a/"}, point...)...); code != 0 || got != "" {
		t.Errorf("diff after it: %d, %s", code, got)
	}
	if got := tt.must("get", "b", "--print-value-only"); strings.TrimSpace(got) != "2" {
		t.Errorf("b is %s", got)
	}
	for _, x := range [][]string{
		{"restore", "--from", url, "--prefix", "a/", "--cluster", "spec.yaml"},
		{"restore", "--from", url},
		{"fork", "--archive", url, "x.snap"},
		{"restore", "--from", "x.snap", "--to", "revision=3", "--prefix", "a/"},
	} {
		if _, _, code := tt.run(0, "", x...); code != exitArguments {
			t.Errorf("%q: exit code %d", x, code)
		}
	}
}

// refusals are wrong commands after a restore, and what they are told.
func refusals(tt *terminalTest, url string, restore []string) {
	tt.t.Helper()
	for _, x := range []struct {
		args []string
		code int
		want string
	}{
		{restore, exitFailed, "--replace"},
		{append(restore[:7:7], "--member", "n1"), exitArguments, "--nonce"},
		{append(restore[:4:4], "revision=99", "--cluster", "spec.yaml"), exitFailed, "the archive holds timeline 1"},
		{append(restore[:4:4], "noon", "--cluster", "spec.yaml"), exitArguments, "time=RFC3339"},
		{[]string{"restore", "--from", url}, exitArguments, "--cluster"},
		{[]string{"restore", "--from", "s.db", "--to", "revision=3", "--cluster", "spec.yaml"}, exitArguments, "holds one point"},
		{[]string{"backup", "ls", "--archive", url + "-not"}, exitArguments, "archive-not"},
		{[]string{"backup", "ls", "--archive", url, "--cluster-uuid", "7"}, exitArguments, "UUID"},
		{[]string{"backup", "ls", "--archive", url, "--cluster-uuid", "00000000000000000000000000000000"}, exitArguments, "is no cluster's"},
		{[]string{"backup", "ls"}, exitArguments, "--archive is required"},
		{[]string{"backup", "cost", "--archive", url, "--keep", "-1h"}, exitArguments, "--keep"},
		{[]string{"inspect", "archive"}, exitArguments, "one URL"},
		{[]string{"inspect", "archive", "file://" + tt.t.(*testing.T).TempDir()}, exitFailed, "no archive there"},
		{[]string{"archive", "verify", "--archive", url, "--identity", "nobody"}, exitArguments, "nobody"},
	} {
		if _, stderr, code := tt.run(0, "", x.args...); code != x.code || !strings.Contains(stderr, x.want) {
			tt.t.Errorf("%q: code %d, %s", x.args, code, stderr)
		}
	}
}
