package crash

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// damageLoads are workloads whose files show all there is.
func damageLoads(t *testing.T, names ...string) []workload {
	t.Helper()
	if *workloadFlag != "" {
		names = []string{*workloadFlag}
	} else if *longFlag {
		names = nil
		for _, w := range workloads(*seedFlag) {
			names = append(names, w.name)
		}
	}
	var loads []workload
	for _, name := range names {
		w, err := find(name, *seedFlag)
		if err != nil {
			t.Fatal(err)
		}
		loads = append(loads, w)
	}
	if *workloadFlag != "" {
		return loads
	}
	return ofShard(t, loads)
}

// lastBytes of a log are cut at every byte: some records. Before those it is cut
// where records may begin.
func lastBytes() int64 {
	if *longFlag {
		return 4000
	}
	return 160
}

// The last records are cut at every byte, and every sector of the tail becomes
// zeroes: what was acknowledged is there, or the member knows that it is not.
func TestTailsCutAndZeroed(t *testing.T) {
	for i, load := range damageLoads(t, "segments-1", "everything-1", "conflicts-1", "long-2") {
		for _, inOrder := range []bool{true, false} {
			if !*longFlag && inOrder != (i%2 == 0) {
				continue
			}
			t.Run(fmt.Sprintf("%s/inOrder=%v", load.name, inOrder), func(t *testing.T) {
				t.Parallel()
				p, row := newPatient(t, load, inOrder), tails.row(load.name)
				defer tails.done(row, "tails", time.Now())
				for kind, paths := range p.files() {
					if kind != "wal" && kind != "history" {
						continue
					}
					p.tail(row, kind, paths)
				}
			})
		}
	}
}

func (p *patient) tail(row *row, kind string, paths []string) {
	slices.Sort(paths)
	// The newest that holds anything.
	path := paths[len(paths)-1]
	for i := len(paths) - 1; i > 0 && written(p.read(paths[i])) < 64; i-- {
		path = paths[i-1]
	}
	end := written(p.read(path))
	try := func(what string, harm func(*disk) error, markLost bool) {
		if markLost {
			what, harm = what+", without mark", unmarked(path, harm)
		}
		verdict, err := p.examineAs(harm, markLost)
		p.judge(row, fmt.Sprintf("%s %s", path, what), strings.Fields(what)[0]+" "+kind, verdict, err)
	}
	marks := []bool{false}
	if kind == "wal" { // As the power may leave it: the mark of what is synced is not written back yet.
		marks = append(marks, true)
	}
	content := p.read(path)
	size, first := int64(len(content)), max(0, end-lastBytes())
	for at := int64(0); at <= end; at += step(at, first) {
		for _, markLost := range marks {
			try(fmt.Sprintf("cut at %d", at), change(path, at, nil), markLost)
			if at > 0 && step(at-1, first) == 1 && content[at-1] == 0 {
				row.equal++ // To the one before.
				continue
			}
			try(fmt.Sprintf("zeroed from %d", at), change(path, at, make([]byte, size-at)), markLost)
		}
	}
	for sector := int64(0); sector <= end; sector += 512 {
		try(fmt.Sprintf("sector %d zeroed", sector/512), change(path, sector, make([]byte, min(512, size-sector))), false)
	}
}

// step goes through every byte from first on, and before that through the places
// where a record may begin.
func step(at, first int64) int64 {
	const align = 8
	if at < first-align {
		return align
	}
	return 1
}

// unmarked takes the mark of a log away before other harm is done.
func unmarked(path string, harm func(*disk) error) func(*disk) error {
	return func(d *disk) error {
		if err := d.mem.Remove(filepath.Join(filepath.Dir(path), "SYNCED")); err != nil {
			return err
		}
		return harm(d)
	}
}
