package linear

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/tests/cluster"
	"github.com/holdfast-db/holdfast/tests/ports"
)

// backupsMax are restored at the end of a run; the others are only verified.
const backupsMax = 2

// checkBackups restores snapshots that were saved under faults into clusters of
// their own and compares what those have with what was there at that revision.
func (r *run) checkBackups(ctx context.Context) {
	for i, b := range r.backups {
		rev, err := r.revisionOf(ctx, b)
		if err != nil {
			r.rec.violate("a saved snapshot is not whole: %v", err)
			continue
		}
		if i >= backupsMax {
			continue
		}
		if err := r.restoreBackup(ctx, b, rev); err != nil {
			r.rec.violate("restore of %s: %v", filepath.Base(b.file), err)
		}
	}
}

func (r *run) restoreBackup(ctx context.Context, b backup, rev int64) error {
	dir, err := os.MkdirTemp(r.dir, "restored")
	if err != nil {
		return err
	}
	place, err := r.backupPlace()
	if err != nil {
		return err
	}
	c, err := cluster.NewAt(dir, r.env.bin, []cluster.Place{place})
	if err != nil {
		return err
	}
	defer c.KillAll()
	m := c.Members[0]
	if _, err := c.Offline(ctx, "snapshot", "restore", b.file, "--name", m.Name, "--data-dir", m.DataDir,
		"--initial-cluster", c.Initial(), "--initial-advertise-peer-urls", m.PeerURL); err != nil {
		return err
	}
	if err := c.StartAll(ctx); err != nil {
		return err
	}
	secure, err := c.ClientTLS()
	if err != nil {
		return err
	}
	w, err := connect(m.ClientURL, secure, r.mesh.Dial)
	if err != nil {
		return err
	}
	defer w.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	got, err := w.kv.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: rev})
	if err != nil {
		return err
	}
	return r.sameAsThen(got, rev)
}

// revisionOf is the revision at which a snapshot was taken.
func (r *run) revisionOf(ctx context.Context, b backup) (int64, error) {
	out, err := r.cluster.Offline(ctx, "snapshot", "status", b.file, "--write-out=json")
	if err != nil {
		return 0, err
	}
	var status struct {
		Revision int64 `json:"revision"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil || status.Revision < 1 {
		return 0, fmt.Errorf("status says %q: %v", out, err)
	}
	return status.Revision, nil
}

// sameAsThen compares everything a restored cluster has at the revision of the
// snapshot with what the events up to it leave.
func (r *run) sameAsThen(got *pb.RangeResponse, rev int64) error {
	if head := r.shadow.at(); rev > head {
		return fmt.Errorf("it is at revision %d, and the cluster was never beyond %d", rev, head)
	}
	want := r.shadow.state(rev)
	if len(want) != len(got.Kvs) {
		return fmt.Errorf("it has %d keys at revision %d, there were %d", len(got.Kvs), rev, len(want))
	}
	for _, kv := range got.Kvs {
		if !proto.Equal(kv, want[string(kv.Key)]) {
			return fmt.Errorf("it has %v at revision %d, there was %v", kv, rev, want[string(kv.Key)])
		}
	}
	return nil
}

// backupPlace is where the clients are, or loopback.
func (r *run) backupPlace() (p cluster.Place, err error) {
	addrs := []string{"127.0.0.1:3379", "127.0.0.1:3380"} // A namespace of our own has them free.
	if r.env.spaces != nil && !r.s.Loopback {
		p.Launch = r.mesh.Launch
	} else if addrs, err = ports.Free(2); err != nil {
		return p, err
	}
	p.ClientURL, p.PeerURL = "https://"+addrs[0], "https://"+addrs[1]
	return p, nil
}

// grepLogs looks for what no member may ever say, and for complaints that are
// for operators, of which harmless faults must not cause any.
func (r *run) grepLogs() {
	for _, p := range r.places {
		f, err := os.Open(p.LogFile())
		if err != nil {
			r.rec.violate("the log of %s: %v", p.Name, err)
			continue
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for n := 1; lines.Scan(); n++ {
			skewed := r.counts["clock-skew"] > 0 && strings.Contains(lines.Text(), "the clock of this leader is wrong")
			if bad := complaint(lines.Text()); bad != "" && !(bad == "error" && (p.excused.Load() || skewed)) {
				r.rec.violate("%s logs (line %d): %s", p.Name, n, lines.Text())
			}
		}
		f.Close()
	}
}

// complaint tells what is wrong with a line of a log.
func complaint(line string) string {
	for _, bad := range []string{"panic:", "fatal error:", "goroutine ", "DATA RACE"} {
		if strings.HasPrefix(line, bad) || strings.Contains(line, "WARNING: DATA RACE") {
			return "panic"
		}
	}
	var l struct {
		Level string `json:"level"`
	}
	if err := json.Unmarshal([]byte(line), &l); err == nil && (l.Level == "error" || l.Level == "fatal") {
		return "error"
	}
	return ""
}
