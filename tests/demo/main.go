// Command demo shows on one screen what holdfast is for: a cluster of three
// processes with mTLS and an archive goes on when its leader is killed, takes
// back what somebody deleted, comes back when two of its members are destroyed,
// and when all of them are. It proves what it prints.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/client"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

const demoMax = 2 * time.Minute

func main() {
	bin := flag.String("bin", "bin", "folder with holdfast and holdfastctl")
	keep := flag.Bool("keep", false, "keep data, logs and certificates")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), demoMax)
	defer cancel()
	d := &demo{start: time.Now(), keep: *keep, written: map[string]int64{}}
	if err := d.run(ctx, *bin); err != nil {
		fmt.Fprintf(os.Stderr, "demo failed: %v\nlogs are in %s\n", err, d.dir)
		os.Exit(1)
	}
}

type demo struct {
	start time.Time
	keep  bool
	dir   string
	c     *cluster.Cluster
	cl    *client.Client

	archive string // URL.

	mu      sync.Mutex
	written map[string]int64 // Acknowledged: revision by key.
	failed  int
}

func (d *demo) say(format string, args ...any) {
	fmt.Printf("%5.1fs  %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) run(ctx context.Context, bin string) error {
	var err error
	if d.dir, err = os.MkdirTemp("", "holdfast-demo"); err != nil {
		return err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	d.archive = "file://" + filepath.Join(d.dir, "archive")
	d.c, err = cluster.New(d.dir, cluster.Binaries{Holdfast: filepath.Join(bin, "holdfast"), Ctl: filepath.Join(bin, "holdfastctl")}, 3, "--archive-url", d.archive)
	if err != nil {
		return err
	}
	defer d.c.KillAll()
	if err := os.WriteFile(d.specFile(), []byte(d.spec()), 0o600); err != nil {
		return err
	}
	d.say("made an authority and certificates for servers, peers and clients (ECDSA P-256, files 0600)")
	if err := d.c.StartAll(ctx); err != nil {
		return err
	}
	d.say("started three members; every connection is TLS with certificates on both sides; each change goes to an archive in a folder")
	if d.cl, err = d.c.Client(); err != nil {
		return err
	}
	defer d.cl.Close()
	for _, step := range []func(context.Context) error{d.writeAndRead, d.watch, d.killLeader, d.deleteByMistake, d.loseQuorum, d.loseAll} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.say("done")
	if d.keep {
		fmt.Println("kept in", d.dir)
		return nil
	}
	d.c.KillAll()
	return os.RemoveAll(d.dir) // The demonstration made it itself.
}

func (d *demo) put(ctx context.Context, key string) error {
	r, err := d.cl.Put(ctx, client.Put{Key: key, Value: []byte(key)})
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.failed++
		return err
	}
	d.written[key] = r.Header.Revision
	return nil
}

func (d *demo) writeAndRead(ctx context.Context) error {
	const n = 200
	for i := range n {
		if err := d.put(ctx, fmt.Sprintf("first/%04d", i)); err != nil {
			return err
		}
	}
	for _, m := range d.c.Members {
		cl, err := d.c.Client(m)
		if err != nil {
			return err
		}
		r, err := cl.Get(ctx, client.Get{Range: client.Prefix("first/")})
		if err := errors.Join(err, cl.Close()); err != nil {
			return err
		}
		if len(r.Kvs) != n {
			return fmt.Errorf("%s answers %d of %d keys", m.Name, len(r.Kvs), n)
		}
	}
	d.say("wrote %d keys and read all of them, linearizably, from each member", n)
	return nil
}

func (d *demo) watch(ctx context.Context) error {
	w := d.cl.Watch(ctx, client.Watch{Range: client.Prefix("first/"), Revision: 2})
	defer w.Cancel()
	seen := 0
	for seen < len(d.written) {
		r, ok := <-w.Reports()
		if !ok {
			return fmt.Errorf("watch ended: %w", w.Err())
		}
		for _, ev := range r.Events {
			if ev.Type != mvccpb.Event_PUT || d.written[string(ev.Kv.Key)] != ev.Kv.ModRevision {
				return fmt.Errorf("watch shows %v", ev)
			}
			seen++
		}
	}
	d.say("a watch from revision 2 showed all %d changes, in order, each once", seen)
	return nil
}

func (d *demo) leader(ctx context.Context) (*cluster.Member, error) {
	for _, m := range d.c.Members {
		cl, err := d.c.Client(m)
		if err != nil {
			return nil, err
		}
		r, err := cl.Status(ctx)
		if err := errors.Join(err, cl.Close()); err != nil {
			return nil, err
		}
		if r.Leader == r.Header.MemberId {
			return m, nil
		}
	}
	return nil, errors.New("nobody leads")
}

// killLeader kills the leader while others write, and counts.
func (d *demo) killLeader(ctx context.Context) error {
	leader, err := d.leader(ctx)
	if err != nil {
		return err
	}
	load, stop := context.WithCancel(ctx)
	var writers sync.WaitGroup
	var last time.Time
	var gap time.Duration
	for w := range 8 {
		writers.Go(func() {
			for i := 0; load.Err() == nil; i++ {
				put, cancel := context.WithTimeout(ctx, 5*time.Second)
				err := d.put(put, fmt.Sprintf("load/%d/%05d", w, i))
				cancel()
				d.mu.Lock()
				if now := time.Now(); err == nil {
					if !last.IsZero() {
						gap = max(gap, now.Sub(last))
					}
					last = now
				}
				d.mu.Unlock()
			}
		})
	}
	pause(ctx, time.Second)
	leader.Kill()
	d.say("killed the leader, %s, with SIGKILL while 8 clients write", leader.Name)
	pause(ctx, 3*time.Second)
	stop()
	writers.Wait()
	d.mu.Lock()
	acked, failed, longest := len(d.written), d.failed, gap
	d.mu.Unlock()
	d.say("writes went on: %d acknowledged so far, %d refused or unknown; longest pause %d ms", acked, failed, longest.Milliseconds())
	if err := leader.Start(); err != nil {
		return err
	}
	if err := leader.WaitReady(ctx); err != nil {
		return err
	}
	if err := d.checkAll(ctx); err != nil {
		return err
	}
	d.say("%s is back; every acknowledged write is on every member, and their hashes are equal", leader.Name)
	return nil
}

// checkAll looks for every acknowledged write on every member.
func (d *demo) checkAll(ctx context.Context) error {
	var hash uint32
	var at int64
	for i, m := range d.c.Members {
		cl, err := d.c.Client(m)
		if err != nil {
			return err
		}
		r, err := cl.Get(ctx, client.Get{Range: client.From("\x00")})
		if i == 0 && err == nil {
			at = r.Header.Revision
		}
		var h *pb.HashKVResponse
		if err == nil {
			h, err = cl.HashKV(ctx, at)
		}
		if err := errors.Join(err, cl.Close()); err != nil {
			return err
		}
		found := map[string]int64{}
		for _, kv := range r.Kvs {
			found[string(kv.Key)] = kv.ModRevision
		}
		for key, revision := range d.written {
			if found[key] != revision {
				return fmt.Errorf("%s lost %s, acknowledged at revision %d", m.Name, key, revision)
			}
		}
		if i > 0 && h.Hash != hash {
			return fmt.Errorf("hash of %s is %08x, of others %08x", m.Name, h.Hash, hash)
		}
		hash = h.Hash
	}
	return nil
}

func (d *demo) spec() string {
	var b strings.Builder
	b.WriteString("members:\n")
	for _, m := range d.c.Members {
		fmt.Fprintf(&b, "- name: %s\n  peer-urls: [%s]\n  client-urls: [%s]\n  data-dir: %s\n", m.Name, m.PeerURL, m.ClientURL, m.DataDir)
	}
	return b.String()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
