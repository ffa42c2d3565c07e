package backend

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"
)

// Report is what Verify found in an intact file.
type Report struct {
	TxID      uint64
	Rows      int64 // Logical rows, long keys included.
	LongRows  int64
	SmallRows int64
	LeaseRows int64 // Keys attached to leases.
	StateHash Sum
	Bytes     int64 // Of the file's pages.
	FreeBytes int64 // Of them, in pages that hold nothing.
}

// Verify reads every row of the last commit, and recomputes from the bytes
// read what meta says about them: the number of rows, the hash of the state,
// the keys of leases (rule 9). That is what notices a row which a damaged page
// hides. progress, if not nil, is told now and then how many rows were read,
// out of how many.
func (db *DB) Verify(ctx context.Context, progress func(done, total int64)) (Report, error) {
	v := db.View()
	defer v.Release()
	r, err := v.verify(ctx, progress)
	r.FreeBytes = db.free.Load() * int64(v.pageSize)
	return r, err
}

// verifier adds up what it reads.
type verifier struct {
	ctx      context.Context
	view     *View
	progress func(done, total int64)
	report   Report
	read     int64
	total    int64
	scratch  []byte

	leaseHash Sum // From the rows of keys.
	leaseRows int64
	smallHash Sum
}

func (v *View) verify(ctx context.Context, progress func(done, total int64)) (report Report, err error) {
	defer catchFault(v.file, debug.SetPanicOnFault(true), &err)
	r := &verifier{ctx: ctx, view: v, progress: progress, total: v.meta.Rows + v.meta.smallRows + v.meta.leaseRows}
	r.report.TxID, r.report.Bytes = v.meta.txID, int64(len(v.data))
	for _, step := range []func() error{r.readKeys, r.readSmall, r.readLeases, r.readPages} {
		if err := step(); err != nil {
			return r.report, err
		}
	}
	return r.report, nil
}

// step counts one row, and now and then looks up.
func (r *verifier) step() error {
	if r.read++; r.read%pollRows != 0 {
		return nil
	}
	if r.progress != nil {
		r.progress(r.read, r.total)
	}
	return r.ctx.Err()
}

func (r *verifier) differs(what string, found, noted any) error {
	return &DamageError{File: r.view.file, Row: -1, Reason: fmt.Sprintf("%s: the file has %v, its last commit noted %v", what, found, noted)}
}

// readKeys reads all logical rows, in order.
func (r *verifier) readKeys() error {
	c := r.view.Cursor()
	var last []byte
	for key, kv, err := c.Seek(nil); key != nil || err != nil; key, kv, err = c.Next() {
		if err != nil {
			return err
		}
		if last != nil && bytes.Compare(key, last) <= 0 {
			return &DamageError{File: r.view.file, Row: -1, Reason: fmt.Sprintf("keys do not rise at row %d", r.report.Rows)}
		}
		last = key
		if err := r.addKey(key, kv); err != nil {
			return err
		}
	}
	m := r.view.meta
	if r.report.Rows != m.Rows {
		return r.differs("rows", r.report.Rows, m.Rows)
	}
	if r.report.StateHash != m.StateHash {
		return r.differs("hash of the state", r.report.StateHash, m.StateHash)
	}
	return nil
}

func (r *verifier) addKey(key, kv []byte) error {
	var hash Sum
	hash, r.scratch = hashRow(r.scratch, key, kv)
	r.report.StateHash.add(hash)
	r.report.Rows++
	if len(key) > shortKeyBytesMax {
		r.report.LongRows++
		return r.step()
	}
	lease, err := leaseOf(kv)
	if err != nil {
		return fmt.Errorf("row %d of %s: %w", r.report.Rows, r.view.file, err)
	}
	if lease != 0 {
		hash, r.scratch = hashRow(r.scratch, leaseKey(lease, key), nil)
		r.leaseHash.add(hash)
		r.leaseRows++
	}
	return r.step()
}

func (r *verifier) readSmall() error {
	err := r.view.rows.scan(nil, func(key, payload []byte) (bool, error) {
		var hash Sum
		hash, r.scratch = hashRow(r.scratch, key, payload)
		r.smallHash.add(hash)
		r.report.SmallRows++
		return true, r.step()
	})
	if err != nil {
		return err
	}
	m := r.view.meta
	if r.report.SmallRows != m.smallRows || r.smallHash != m.smallHash {
		return r.differs("small rows", r.report.SmallRows, m.smallRows)
	}
	return nil
}

// readLeases compares the keys of leases with what the rows of the keys say.
func (r *verifier) readLeases() error {
	var sum Sum
	err := r.view.leaseKeys.scan(nil, func(key, _ []byte) (bool, error) {
		var hash Sum
		hash, r.scratch = hashRow(r.scratch, key, nil)
		sum.add(hash)
		r.report.LeaseRows++
		return true, r.step()
	})
	if err != nil {
		return err
	}
	m := r.view.meta
	if r.report.LeaseRows != m.leaseRows || sum != m.leaseHash {
		return r.differs("keys of leases", r.report.LeaseRows, m.leaseRows)
	}
	if r.leaseRows != r.report.LeaseRows || r.leaseHash != sum {
		return r.differs("keys with a lease", r.leaseRows, r.report.LeaseRows)
	}
	return nil
}

// readPages checks that each page is used once at most: by one place in one
// tree, or by the list of free pages. A page that is both used and free would
// be overwritten some day.
func (r *verifier) readPages() error {
	v := r.view
	used := make([]bool, uint64(len(v.data))/v.pageSize)
	free, err := v.freePages(v.freePage)
	if err != nil {
		return err
	}
	for _, id := range free {
		if err := v.claim(used, id, 1); err != nil {
			return err
		}
	}
	directory := &tree{pages: &v.pages, rootID: v.rootPage}
	for _, t := range []*tree{directory, v.keys, v.leaseKeys, v.longKeys, v.rows} {
		if t.inline != nil {
			continue
		}
		if err := t.claimAll(used, t.rootID, 0); err != nil {
			return err
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (p *pages) claim(used []bool, id, count uint64) error {
	for i := id; i < id+count; i++ {
		if i < 2 || i >= uint64(len(used)) || used[i] {
			return p.damaged(i, -1, "page is used twice, or free and used")
		}
		used[i] = true
	}
	return nil
}

func (t *tree) claimAll(used []bool, id uint64, depth int) error {
	n, err := t.node(id)
	if err != nil {
		return err
	}
	if depth == treeDepthMax {
		return t.damaged(id, -1, "tree is deeper than any can be")
	}
	if err := t.claim(used, id, uint64(len(n.buf))/t.pageSize); err != nil || n.leaf {
		return err
	}
	for i := range n.count {
		if err := t.claimAll(used, n.child(i), depth+1); err != nil {
			return err
		}
	}
	return nil
}
