package dr

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

const archiveOfThePages = "file:///backups/holdfast"

// archived is a cluster with some keys, all of them in an archive.
func archived(t *testing.T) (c *cluster.Cluster, url string, stored *acknowledged) {
	t.Helper()
	url = "file://" + t.TempDir()
	c = newCluster(t, 3, "--archive-url", url)
	untilArchiveBegun(t, c, url)
	stored = fill(t, c, "load")
	untilArchived(t, c, url, putLast(t, c, stored))
	return c, url, stored
}

func TestTheRunbookForABadWrite(t *testing.T) {
	t.Parallel()
	const prefix = "/registry/pods/"
	c, url, stored := archived(t)
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	put := func(key, value string) {
		if _, err := cl.Put(t.Context(), client.Put{Key: key, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		put(fmt.Sprintf("%s%02d", prefix, i), "good")
	}
	pause(t.Context(), 10*time.Millisecond)
	good := time.Now()
	pause(t.Context(), 10*time.Millisecond)
	if _, err := cl.Delete(t.Context(), client.Delete{Range: client.Range{Key: prefix + "20", End: prefix + "90"}}); err != nil {
		t.Fatal(err)
	}
	put(prefix+"10", "bad")
	put(prefix+"new", "bad")
	untilArchived(t, c, url, putLast(t, c, stored))

	p := openPage(t, c, "bad-write.md")
	p.Names = []string{archiveOfThePages, url, "2026-11-28T09:00:00Z", good.UTC().Format(time.RFC3339Nano)}
	p.Types(0)
	if out := p.Types(1); strings.Count(out, "- "+prefix) != 70 || !strings.Contains(out, "~ "+prefix+"10") || !strings.Contains(out, "+ "+prefix+"new") {
		t.Error("not the differences that there are")
	}
	p.Names = append(p.Names, "http://127.0.0.1:40123", p.forks())
	if out := p.Types(0); strings.Count(out, prefix) != 100 || strings.Contains(out, "new") {
		t.Error("the fork has other keys than there were")
	}
	p.Types(0)
	p.Types(0)
	p.Types(0)
	r, err := cl.Get(t.Context(), client.Get{Range: client.Prefix(prefix)})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range r.Kvs {
		if string(kv.Value) != "good" {
			t.Errorf("%s is %q", kv.Key, kv.Value)
		}
	}
	if len(r.Kvs) != 100 {
		t.Errorf("%d keys came back of 100", len(r.Kvs))
	}
	if _, err := cl.Delete(t.Context(), client.Delete{Range: client.Prefix(prefix)}); err != nil {
		t.Fatal(err)
	}
	check(t, c, stored)
}

var toIndex = regexp.MustCompile(`--to (index=\S+) --bump-revision (\d+) `)

func TestTheRunbookForTheLossOfAll(t *testing.T) {
	t.Parallel()
	c, url, stored := archived(t)
	destroyAll(t, c)
	p := openPage(t, c, "lost-all.md")
	p.Names = []string{archiveOfThePages, url}
	for range 4 {
		p.Types(0)
	}
	flags := c.Members[0].Flags
	for _, m := range c.Members { // What is done to this one is not archived beside the other.
		m.Flags = nil
	}
	if err := c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, c, stored)

	destroyAll(t, c)
	to := toIndex.FindStringSubmatch(p.Types(0))
	if to == nil {
		t.Fatal("the first member does not say what the others restore to")
	}
	p.Names = append(p.Names, "index=48211", to[1], "17179866326", to[2])
	third := *p.Page
	third.Names = append([]string{"--member m2", "--member m3"}, p.Names...)
	third.Types(0)
	p.Types(0)
	for _, m := range c.Members {
		m.Flags = flags
	}
	if err := c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := p.Types(0); strings.Count(out, "is healthy") != 3 {
		t.Error("not three healthy members")
	}
	check(t, c, stored)
}

func TestTheRunbookForARestoreElsewhere(t *testing.T) {
	t.Parallel()
	c, url, stored := archived(t)
	other := stopped(t, 3)
	p := openPage(t, c, "restore-elsewhere.md")
	p.Names = []string{archiveOfThePages, url}
	for i, m := range other.Members {
		m.Name = fmt.Sprintf("n%d", i+1)
		m.DataDir = filepath.Join(other.Dir, m.Name)
		host := fmt.Sprintf("https://10.0.1.%d", i+1)
		p.Names = append(p.Names, host+":2380", m.PeerURL, host+":2379", m.ClientURL, "/var/lib/holdfast/"+m.Name, m.DataDir)
	}
	for range 3 {
		p.Types(0)
	}
	if err := other.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.c = other
	if out := p.Types(0); strings.Count(out, "is healthy") != 3 {
		t.Error("not three healthy members")
	}
	check(t, other, stored)
	check(t, c, stored)
}

func TestTheRunbookForADrill(t *testing.T) {
	t.Parallel()
	c, url, _ := archived(t)
	p := openPage(t, c, "drill.md")
	p.Names = []string{archiveOfThePages, url}
	p.Types(0)
	if out := p.Types(0); !strings.Contains(out, "last verified") || strings.Contains(out, "missing: ") {
		t.Error("the drill is not in the list")
	}
	p.Types(0)
}
