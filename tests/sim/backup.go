package sim

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
	"github.com/holdfast-db/holdfast/raftnode/wal"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/tests/model"
)

// backup is a snapshot that a client took.
type backup struct {
	revision int64
	data     []byte
	model    *model.Store // What it must hold.
	rights   *rights
	writes   int // That led to it.
}

// backup takes a snapshot of a member, as a client does.
func (w *World) backup(m *Member) {
	if !m.serves() || m.pausedUntil > w.now {
		return
	}
	defer m.settle()
	f, size, done, err := m.replica.SnapshotFile(context.Background(), m.id)
	if err != nil {
		w.logf(m.id, "backup failed: %v", err)
		if m.blame(err) == "" {
			w.fail("backup of member %s: %v", m.id, err)
		}
		return
	}
	data := make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if errors.Is(err, io.EOF) && n == len(data) {
		err = nil
	}
	if err := errors.Join(err, done()); err != nil {
		if m.blame(err) == "" {
			w.fail("backup of member %s: %v", m.id, err)
		}
		return
	}
	w.fired("A7")
	w.note(hashBytes(data))
	if m.replica.Store().Applied().Position.Index+1 != w.shadow.next {
		return // Somebody else is ahead: the model is not what this one holds.
	}
	w.backups = append(w.backups, &backup{revision: int64(m.replica.Store().Head()), data: data, model: w.shadow.model.Clone(), rights: w.shadow.rights[len(w.shadow.rights)-1].rights, writes: w.shadow.writes})
}

// restoreOne makes a new cluster of the newest backup, and lets it live for a
// while: it must begin with exactly what the backup held, and serve.
func (w *World) restoreOne() {
	if len(w.backups) == 0 {
		return
	}
	b := w.backups[len(w.backups)-1]
	dir := filepath.Join(w.root, "restore")
	path := filepath.Join(dir, "backup")
	fsys := vfs.OS()
	if err := errors.Join(fsys.MkdirAll(dir), os.WriteFile(path, b.data, 0o600)); err != nil {
		w.fail("write a backup: %v", err)
	}
	status, err := snapshot.ReadHeader(fsys, path)
	if err != nil {
		w.fail("D3: backup of revision %d: %v", b.revision, err)
	}
	o := snapshot.RestoreOptions{Nonce: "of the simulation"}
	for i := range 1 + 2*int(w.cfg.Seed%2) {
		name := "r" + itoa(i)
		o.Members = append(o.Members, snapshot.Target{Name: name, PeerURLs: []string{"http://" + name + ":2380"}, DataDir: filepath.Join(dir, name)})
	}
	plan, err := snapshot.PlanRestore(status.Header, o)
	if err != nil {
		w.fail("D1: plan to restore a backup of revision %d: %v", b.revision, err)
	}
	err = snapshot.Restore(context.Background(), snapshot.RestoreConfig{
		FS: fsys, Clock: &memberClock{w: w}, Logger: w.quiet, Random: stream(w.cfg.Seed, "restore"),
		Tune: w.tune,
	}, path, plan)
	if err != nil {
		w.fail("D1: restore a backup of revision %d: %v", b.revision, err)
	}
	w.fired("A8")
	w.live(b, plan)
}

// live runs the restored cluster in a world of its own.
func (w *World) live(b *backup, plan *snapshot.Plan) {
	cfg := w.cfg
	cfg.Seed, cfg.Voters, cfg.Loss, cfg.Duplicate = w.cfg.Seed^0x7265, 0, 0, 0
	sub := newBareWorld(cfg, filepath.Join(w.root, "restored"), Options{Log: w.log, Tape: w.tape})
	sub.now = w.now
	defer sub.close()
	mark := wal.Mark{Index: plan.At, Term: plan.Term}
	sub.check = raftnodetest.NewChecker(checked{sub}, mark)
	sub.shadow.model, sub.shadow.next = b.model, plan.At+1
	sub.shadow.rights = []since{{0, b.rights}}
	for _, id := range b.model.Leases() {
		sub.shadow.leases[id] = &leaseTime{ttl: 0}
	}
	w.logf(nil, "a backup of revision %d becomes a new cluster of %d", b.revision, len(plan.Members))
	var ids []ident.MemberID
	for _, p := range plan.Members {
		m := sub.addMember(p.ID, mark)
		if err := m.disk.load(p.DataDir); err != nil {
			w.fail("read a restored directory: %v", err)
		}
		ids = append(ids, p.ID)
	}
	sub.each(func(m *Member) { m.restart() })
	sub.supervise()
	sub.phase = healed
	sub.mustServe(ids)
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	sub.each(func(m *Member) {
		answer, err := m.rangeOf(all)
		sub.shadow.checkRange(m, all, answer, err)
	})
	sub.check.Fired["D1"]++
	sub.addClients()
	sub.run(3 * second)
	for _, c := range sub.clients {
		c.quiet = true
	}
	if !sub.runUntil(sub.now+convergeTime, func() bool { return sub.level() && sub.watchersDone() }) {
		sub.fail("V2: the restored cluster does not agree: %s%s", sub.describe(), sub.lateWatchers())
	}
	sub.compareAll()
	for name, n := range sub.check.Fired { //tidy:ordered sums
		w.check.Fired[name] += n
	}
	w.count.Add(&sub.count)
	w.shadow.reads += sub.shadow.reads
	w.shadow.writes += sub.shadow.writes - b.writes
	w.note(sub.trace)
	w.now = sub.now
}

// load takes in a data directory of the machine's file system.
func (d *disk) load(dir string) error {
	d.inside = true
	defer func() { d.inside = false }()
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name := filepath.Join(dataDir, rel)
		if e.IsDir() {
			return errors.Join(d.mem.MkdirAll(name), d.mem.SyncDir(filepath.Dir(name)))
		}
		data, err := os.ReadFile(path)
		if err != nil || e.Name() == "LOCK" {
			return err
		}
		if e.Name() == "base.db" {
			d.base[rel] = data
			return nil
		}
		f, err := d.mem.Create(name)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(data, 0)
		return errors.Join(err, f.SyncData(), f.Close(), d.mem.SyncDir(filepath.Dir(name)))
	})
}
