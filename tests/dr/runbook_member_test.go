package dr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/tests/bounded"
	"github.com/holdfast-db/holdfast/tests/cluster"
)

// replaceThird types the runbook for a lost member, with the third for itself.
func replaceThird(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	m := c.Members[2]
	p := openPage(t, c, "lost-member.md", "Replace it")
	p.Names = []string{"https://10.0.0.4:2380", m.PeerURL, "m4", "m3"}
	p.Types(0)
	p.starts(m)
	p.Types(0)
}

func TestTheRunbookForADamagedLog(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	stored := fill(t, c, "load")
	m := c.Members[2]
	m.Kill()
	logs, err := filepath.Glob(filepath.Join(m.DataDir, "wal", "*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatal(logs, err)
	}
	data, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	data[2000] ^= 8
	if err := os.WriteFile(logs[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), filepath.Base(logs[0])) {
		t.Fatalf("started with a damaged log, or does not name it: %v", err)
	}
	p := openPage(t, c, "damage.md")
	if out := p.Types(1); !strings.Contains(out, filepath.Base(logs[0])) {
		t.Error("the file is not named")
	}
	p.Types(0)
	replaceThird(t, c)
	check(t, c, stored)
}

func TestTheRunbookForCorruption(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	stored := fill(t, c, "load")
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	raiseCorrupt(t, c, cl)
	p := openPage(t, c, "corruption.md")
	if out := p.Types(0); !strings.Contains(out, "alarm:CORRUPT") {
		t.Error("the alarm is not shown")
	}
	if _, err := cl.Put(t.Context(), client.Put{Key: "no", Value: []byte("no")}); err == nil {
		t.Error("a write is taken while the cluster is corrupt")
	}
	p.Types(0)
	m := c.Members[2]
	m.Kill()
	if err := os.Rename(m.DataDir, m.DataDir+"-aside"); err != nil {
		t.Fatal(err)
	}
	replaceThird(t, c)
	p.Types(0)
	putLast(t, c, stored)
	check(t, c, stored)
}

// raiseCorrupt raises the alarm that no member of the test has a reason for.
func raiseCorrupt(t *testing.T, c *cluster.Cluster, cl *client.Client) {
	t.Helper()
	secure, err := c.ClientTLS()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(strings.TrimPrefix(c.Members[0].ClientURL, "https://"), grpc.WithTransportCredentials(credentials.NewTLS(secure)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	members, err := cl.MemberList(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members.Members {
		if m.Name == c.Members[2].Name {
			_, err := pb.NewMaintenanceClient(conn).Alarm(t.Context(), &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: m.ID, Alarm: pb.AlarmType_CORRUPT})
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no third member")
}

func TestTheRunbookForAQuotaThatIsReached(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, "--quota-backend-bytes", "8000000")
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	fillUp := func(key func(i int) string) {
		value := []byte(strings.Repeat("x", 70_000))
		for i := 0; ; i++ {
			_, err := cl.Put(t.Context(), client.Put{Key: key(i), Value: value})
			if err != nil && strings.Contains(err.Error(), "database space exceeded") {
				break
			}
			if err != nil || i > 1000 {
				t.Fatalf("%d writes of %d bytes are within the quota: %v", i, len(value), err)
			}
		}
		p := openPage(t, c, "full-disk.md", "The quota is reached")
		if out := p.Types(0); !strings.Contains(out, "alarm:NOSPACE") {
			t.Error("the alarm is not shown")
		}
	}
	giveBack := func() {
		p := openPage(t, c, "full-disk.md", "Give the space back")
		p.Types(0)
		if out := p.Types(0); strings.Contains(out, "NOSPACE") {
			t.Error("the alarm is there still")
		}
	}
	fillUp(func(int) string { return "one" })
	openPage(t, c, "full-disk.md", "History fills it").Types(0)
	giveBack()
	fillUp(func(i int) string { return fmt.Sprint("/events/", i) })
	if out := openPage(t, c, "full-disk.md", "Keys fill it").Types(0); !strings.Contains(out, " events") {
		t.Error("what the keys are is not shown")
	}
	giveBack()
}

// lately is a clock that makes certificates end soon.
type lately struct {
	clock.Clock
	ago time.Duration
}

func (l lately) Wall() time.Time { return l.Clock.Wall().Add(-l.ago) }

func TestTheRunbookForCertificatesThatExpired(t *testing.T) {
	t.Parallel()
	const valid = 30 * time.Second // A busy machine needs some to start three members.
	c := stopped(t, 3)
	certs := filepath.Join(c.Dir, "certs")
	ends := time.Now().Add(valid)
	endSoon(t, certs, valid)
	if err := c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	pause(t.Context(), time.Until(ends)+2*time.Second)
	m := c.Members[2]
	m.Kill()
	if err := errors.Join(m.Start(), m.WaitReady(t.Context())); err == nil || !strings.Contains(err.Error(), "certificate has expired") {
		t.Fatalf("a member starts with an expired certificate: %v", err)
	}
	p := openPage(t, c, "certificates.md", "Check", "Renew", "The authority expires", "See that it worked")
	p.Names = []string{"/etc/holdfast/certs", certs}
	if out := p.Types(1); strings.Count(out, "(EXPIRED)") != 5 {
		t.Errorf("not the three files and two ports whose certificates have ended:\n%s", out)
	}
	healthy := *p.Page
	healthy.Blocks = p.Blocks[len(p.Blocks)-1:]
	unhealthy := healthy
	unhealthy.Types(1)
	p.Types(0)
	if err := errors.Join(m.Start(), m.WaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
	for range 4 { // Renewed, and then each step of another authority.
		again := healthy
		until(t, func() error {
			cmd := bounded.Group(again.Command(again.Blocks[0].Text))
			if err := cmd.Start(); err != nil {
				return err
			}
			return bounded.Wait(cmd, bounded.CommandMax)
		})
		if len(p.Blocks) > 1 {
			p.Types(0)
		}
	}
	p.Types(0)
	fill(t, c, "load")
}

// endSoon replaces all certificates by some that are valid for a short time still.
func endSoon(t *testing.T, dir string, valid time.Duration) {
	t.Helper()
	const age = 24 * time.Hour
	s := pki.Store{FS: vfs.OS(), Clock: lately{clock.Real(), age}, Dir: dir, Replace: true}
	ca, err := s.Authority()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []pki.Profile{pki.Server, pki.Peer, pki.Client} {
		req := pki.Request{Profile: p, CommonName: "test", Validity: age + valid}
		if p != pki.Client {
			req.Hosts = []string{"127.0.0.1"}
		}
		if _, err := s.Issue(ca, "", req); err != nil {
			t.Fatal(err)
		}
	}
}
