package linear

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/tests/fusefs"
)

// diskFull takes every byte of the small disk, and writes as much as no file
// that is there already has room for. The member may refuse, wait, or end; it
// goes on when there is room again. It counts if the member says why.
func diskFull(ctx context.Context, a *attack) bool {
	i := slices.IndexFunc(a.places, func(p *place) bool { return p.small != "" })
	p := a.places[i]
	p.excused.Store(true)
	before := mentions(p.LogFile(), noSpace)
	name := filepath.Join(p.small, "filler")
	size, err := fill(name)
	if err != nil {
		a.rec.violate("fill the disk: %v", err)
	}
	c := &client{run: a.run, id: adminID + 3, wires: a.admin.wires, rng: a.rng}
	for n := 0; n < largeMax && ctx.Err() == nil; n++ {
		c.do(ctx, put("harness/large", append(c.value(), make([]byte, largeBytes)...)))
	}
	try, cancel := context.WithTimeout(ctx, 2*time.Second)
	a.admin.wires[i].admin.Defragment(try, &pb.DefragmentRequest{}) // It needs a new file, and fails.
	cancel()
	a.wait(ctx, 500, 2500)
	if err := os.Remove(name); err != nil {
		a.rec.violate("empty the disk: %v", err)
	}
	sleep(context.Background(), 300*time.Millisecond) // A member may be at its end.
	a.text = fmt.Sprintf("%s had %d bytes less", p.Name, size)
	return mentions(p.LogFile(), noSpace) > before
}

const (
	noSpace    = "no space left on device"
	largeBytes = 400 << 10
	largeMax   = 16
)

// mentions counts how often a file has a text.
func mentions(name, text string) int {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	return strings.Count(string(data), text)
}

func fill(name string) (size int64, err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for piece := 1 << 20; piece > 0; {
		n, err := f.Write(make([]byte, piece))
		size += int64(n)
		switch {
		case errors.Is(err, syscall.ENOSPC):
			piece /= 16
		case err != nil:
			return size, err
		}
	}
	return size, nil
}

// lying are the places with disks that can fail.
func (a *attack) lying() (list []int) {
	for i, p := range a.places {
		if p.fs != nil {
			list = append(list, i)
		}
	}
	return list
}

// diskErrors makes a call on one member's disk fail. After a failed write or
// sync the member must end or refuse; it is started again on the same disk.
func diskErrors(ctx context.Context, a *attack) bool {
	list := a.lying()
	i := list[a.rng.Intn(len(list))]
	if !a.claim(i) {
		return false
	}
	defer a.release(i)
	p := a.places[i]
	p.excused.Store(true)
	rule := fusefs.Rule{
		Op:  []string{fusefs.Sync, fusefs.Sync, fusefs.Write, fusefs.Create, fusefs.Rename}[a.rng.Intn(5)],
		Err: []syscall.Errno{syscall.EIO, syscall.ENOSPC}[a.rng.Intn(2)], After: a.rng.Intn(20), Times: 1 + a.rng.Intn(2),
	}
	if rule.Op == fusefs.Write && a.rng.Intn(2) == 0 {
		rule.Short = true
	}
	hit := false
	for try := 0; !hit && try < 3; try++ {
		if try > 0 { // Nobody did that so often: what is done all the time fails instead.
			rule.Op, rule.After, rule.Short = fusefs.Sync, a.rng.Intn(3), false
		}
		before := p.fs.Counters()["failed "+rule.Op]
		p.fs.Set(rule)
		a.wait(ctx, 500, 1500)
		p.fs.Set()
		hit = p.fs.Counters()["failed "+rule.Op] > before
	}
	a.text = fmt.Sprintf("%s: %s %v, hit: %t", p.Name, rule.Op, rule.Err, hit)
	sleep(context.Background(), 200*time.Millisecond)
	if !p.Running() {
		a.start(i)
	}
	return hit
}

var images = []vfstest.Image{vfstest.Nothing, vfstest.Nothing, vfstest.Prefix, vfstest.Random, vfstest.Torn}

// diskForgets cuts the power of some members, or of all at once, each in its
// own way.
func diskForgets(ctx context.Context, a *attack) bool {
	victims := a.lying()
	a.rng.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	victims = victims[:1+a.rng.Intn(len(victims))]
	victims = slices.DeleteFunc(victims, func(i int) bool { return !a.claim(i) })
	for _, i := range victims {
		defer a.release(i)
		a.places[i].Signal(syscall.SIGKILL)
	}
	lost := 0
	for _, i := range victims {
		p := a.places[i]
		p.Kill()
		lost += p.fs.Pending()
		if err := p.fs.PowerCut(images[a.rng.Intn(len(images))], a.rng.Uint64()); err != nil {
			a.rec.violate("power cut: %v", err)
		}
	}
	a.text = fmt.Sprintf("power cut of %s, %d changes were not synced", a.names(victims), lost)
	a.wait(ctx, 0, 1000)
	for _, i := range victims {
		a.start(i)
	}
	return len(victims) > 0
}

func slowSync(ctx context.Context, a *attack) bool {
	list := a.lying()
	a.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	list = list[:1+a.rng.Intn(len(list))]
	delay := time.Duration(20+a.rng.Intn(1000)) * time.Millisecond
	for _, i := range list {
		a.places[i].fs.Set(fusefs.Rule{Op: fusefs.Sync, Delay: delay})
	}
	a.text = fmt.Sprintf("%v on %s", delay, a.names(list))
	a.wait(ctx, 500, 2500)
	for _, i := range list {
		a.places[i].fs.Set()
	}
	return true
}
