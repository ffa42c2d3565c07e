package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

const archivedMax = 10 * time.Second

// untilArchived repeats a command that wants a point in time which may be on its
// way to the archive still.
func (d *demo) untilArchived(ctx context.Context, run func() (string, error)) (string, error) {
	for end := time.Now().Add(archivedMax); ; pause(ctx, 200*time.Millisecond) {
		out, err := run()
		if err == nil || !strings.Contains(err.Error(), "outside") || time.Now().After(end) {
			return out, err
		}
	}
}

// deleteByMistake deletes a prefix, looks at what that was, and takes it back.
func (d *demo) deleteByMistake(ctx context.Context) error {
	const prefix = "first/"
	r, err := d.cl.Delete(ctx, client.Delete{Range: client.Prefix(prefix)})
	if err != nil {
		return err
	}
	d.say("somebody deletes %d keys under %s at revision %d", r.Deleted, prefix, r.Header.Revision)
	point := fmt.Sprintf("before-revision=%d", r.Header.Revision)
	m := d.c.Members[0]
	out, err := d.untilArchived(ctx, func() (string, error) {
		return m.Ctl(ctx, "restore", "--from", d.archive, "--to", point, "--prefix", prefix, "--dry-run")
	})
	if err != nil {
		return err
	}
	if n := strings.Count(out, "+ "+prefix); int64(n) != r.Deleted {
		return fmt.Errorf("the archive shows %d keys that were deleted, not %d", n, r.Deleted)
	}
	if _, err := m.Ctl(ctx, "restore", "--from", d.archive, "--to", point, "--prefix", prefix); err != nil {
		return err
	}
	back, err := d.cl.Get(ctx, client.Get{Range: client.Prefix(prefix)})
	if err != nil {
		return err
	}
	for _, kv := range back.Kvs {
		if string(kv.Value) != string(kv.Key) {
			return fmt.Errorf("%s came back as %q", kv.Key, kv.Value)
		}
		d.written[string(kv.Key)] = kv.ModRevision
	}
	if int64(len(back.Kvs)) != r.Deleted {
		return fmt.Errorf("%d keys came back of %d", len(back.Kvs), r.Deleted)
	}
	d.say("one command took the running cluster's keys back to %s: all %d are there, everything else stayed", point, len(back.Kvs))
	return nil
}

// lose kills all members and destroys what some of them had.
func (d *demo) lose(members []*cluster.Member) error {
	d.c.KillAll()
	for _, m := range members {
		if err := os.RemoveAll(m.DataDir); err != nil { // The disaster itself.
			return err
		}
	}
	return nil
}

var planID = regexp.MustCompile(`--accept-loss ([0-9a-f]+)`)

// loseQuorum destroys two members and recovers from the log of the third.
func (d *demo) loseQuorum(ctx context.Context) error {
	before, err := d.cl.Get(ctx, client.Get{Range: client.From("\x00")})
	if err != nil {
		return err
	}
	if err := d.lose(d.c.Members[:2]); err != nil {
		return err
	}
	d.say("destroyed two of three members, disks and all: the quorum is gone for good")
	survivor := d.c.Members[2]
	args := []string{"recover", "auto", "--dead", "m1,m2", "--cluster", d.specFile(), "--out", filepath.Join(d.dir, "plan.json"), survivor.DataDir}
	_, err = d.c.Offline(ctx, args...)
	if err == nil {
		return errors.New("one of three survives, and nobody was asked whether a loss is accepted")
	}
	id := planID.FindStringSubmatch(err.Error())
	if id == nil {
		return err
	}
	if _, err := d.c.Offline(ctx, append(args, "--accept-loss", id[1])...); err != nil {
		return err
	}
	after, err := d.again(ctx)
	if err != nil {
		return err
	}
	if before.Header.ClusterId == after {
		return errors.New("the recovered cluster has the identity of the old one")
	}
	d.say("recover auto rebuilt all three from the log of %s; it says that writes may be lost, and none is: %d keys at their revisions, under a new identity", survivor.Name, len(before.Kvs))
	return nil
}

// loseAll destroys every member and restores them from the archive.
func (d *demo) loseAll(ctx context.Context) error {
	if err := d.put(ctx, "the last one"); err != nil {
		return err
	}
	last := d.written["the last one"]
	uuid, err := d.newest()
	if err != nil {
		return err
	}
	args := []string{"restore", "--from", d.archive, "--cluster-uuid", uuid, "--to", fmt.Sprintf("revision=%d", last), "--cluster", d.specFile()}
	if _, err := d.untilArchived(ctx, func() (string, error) { return d.c.Offline(ctx, append(args, "--dry-run", "--replace")...) }); err != nil {
		return err
	}
	if err := d.lose(d.c.Members); err != nil {
		return err
	}
	d.say("destroyed all three members")
	if _, err := d.c.Offline(ctx, args...); err != nil {
		return err
	}
	if _, err := d.again(ctx); err != nil {
		return err
	}
	d.say("one command made all three anew from the archive, to the last write at revision %d; every acknowledged write is there", last)
	return d.put(ctx, "afterwards")
}

// newest is the cluster whose archive was begun last: each recovery begins one.
func (d *demo) newest() (uuid string, err error) {
	folder := strings.TrimPrefix(d.archive, "file://")
	names, err := filepath.Glob(filepath.Join(folder, "*", "META.json"))
	var newest time.Time
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return "", err
		}
		if info.ModTime().After(newest) {
			newest, uuid = info.ModTime(), filepath.Base(filepath.Dir(name))
		}
	}
	return uuid, err
}

// again starts all members and looks for everything that was acknowledged.
func (d *demo) again(ctx context.Context) (clusterID uint64, err error) {
	if err := d.c.StartAll(ctx); err != nil {
		return 0, err
	}
	r, err := d.cl.Get(ctx, client.Get{Range: client.One("x")})
	if err != nil {
		return 0, err
	}
	return r.Header.ClusterId, d.checkAll(ctx)
}

func (d *demo) specFile() string { return filepath.Join(d.dir, "cluster.yaml") }
