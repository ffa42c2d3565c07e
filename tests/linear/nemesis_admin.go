package linear

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

// replaceMember destroys a member, disk and all, removes it from the cluster,
// and starts an empty one in its place, as a voter or by way of a learner. Once
// begun it is carried through: nobody leaves a cluster like that.
func replaceMember(learner bool) func(context.Context, *attack) bool {
	return func(ctx context.Context, a *attack) bool {
		select {
		case a.damage <- struct{}{}:
		default:
			return false // Another disk is being destroyed: more than the cluster promises to bear.
		}
		defer func() { <-a.damage }()
		i := a.rng.Intn(len(a.places))
		if !a.claim(i) {
			return false
		}
		defer a.release(i)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replaceLimit)
		defer cancel()
		a.text = "replaced " + a.places[i].Name
		if err := a.replace(ctx, i, learner); err != nil {
			a.rec.violate("replace member %s: %v", a.places[i].Name, err)
		}
		return true
	}
}

const replaceLimit = 60 * time.Second

func (a *attack) replace(ctx context.Context, i int, learner bool) error {
	p := a.places[i]
	var id uint64
	err := a.persist(ctx, i, "list members", func(ctx context.Context, w *wire) error {
		res, err := w.group.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		if err == nil {
			id = idOf(res.Members, p.PeerURL)
		}
		return err
	})
	if err != nil || id == 0 {
		return fmt.Errorf("no member has the address: %w", err)
	}
	p.Kill()
	if err := os.Rename(p.DataDir, fmt.Sprintf("%s-destroyed-%d", p.DataDir, p.generation.Load())); err != nil {
		return err
	}
	p.generation.Add(1)
	err = a.persist(ctx, i, "remove it", func(ctx context.Context, w *wire) error {
		_, err := w.group.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
		if err != nil && strings.Contains(status.Convert(err).Message(), "member not found") {
			return nil // An attempt that timed out was carried out.
		}
		return err
	})
	if err != nil {
		return err
	}
	var members []*pb.Member
	err = a.persist(ctx, i, "add another", func(ctx context.Context, w *wire) error {
		res, err := w.group.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		if err != nil {
			return err
		}
		if members = res.Members; idOf(members, p.PeerURL) != 0 {
			return nil // So was this one.
		}
		added, err := w.group.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{p.PeerURL}, IsLearner: learner})
		if err == nil {
			members = added.Members
		}
		return err
	})
	if err != nil {
		return err
	}
	p.Existing, p.Initial = true, a.initial(members)
	if err := p.Start(); err != nil {
		return err
	}
	if !learner {
		return nil
	}
	return a.persist(ctx, i, "promote it", func(ctx context.Context, w *wire) error {
		if !p.Running() && p.excused.Load() { // Its disk was full. Who supervises it leaves it to us.
			if err := p.Start(); err != nil {
				return err
			}
		}
		_, err := w.group.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: idOf(members, p.PeerURL)})
		if err != nil && strings.HasSuffix(status.Convert(err).Message(), "can only promote a learner member") {
			return nil
		}
		return err
	})
}

func idOf(members []*pb.Member, peerURL string) uint64 {
	for _, m := range members {
		if len(m.PeerURLs) == 1 && m.PeerURLs[0] == peerURL {
			return m.ID
		}
	}
	return 0
}

// initial is the value of --initial-cluster for the members of a running cluster.
func (a *attack) initial(members []*pb.Member) string {
	var parts []string
	for _, p := range a.places {
		if idOf(members, p.PeerURL) != 0 {
			parts = append(parts, p.Name+"="+p.PeerURL)
		}
	}
	return strings.Join(parts, ",")
}

// persist asks one member after the other, but one, until it is done.
func (a *attack) persist(ctx context.Context, but int, what string, ask func(context.Context, *wire) error) error {
	var last error
	for ctx.Err() == nil {
		for _, j := range a.others(a.rng, but) {
			try, cancel := context.WithTimeout(ctx, time.Second)
			last = ask(try, a.admin.wires[j])
			cancel()
			if last == nil {
				return nil
			}
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return fmt.Errorf("%s: %w", what, last)
}

func leaderTransfer(ctx context.Context, a *attack) bool {
	for try := 0; try < 5 && ctx.Err() == nil; try++ {
		if a.transfer(ctx) {
			return true
		}
		a.wait(ctx, 100, 400) // Nobody leads, or somebody else by now.
	}
	return false
}

func (a *attack) transfer(ctx context.Context) bool {
	from := a.leader(a.rng)
	to := a.others(a.rng, from)[0]
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	target, err := a.admin.wires[to].admin.Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return false
	}
	_, err = a.admin.wires[from].admin.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: target.Header.MemberId})
	a.text = fmt.Sprintf("from %s to %s", a.places[from].Name, a.places[to].Name)
	return err == nil
}

// compactionStorm keeps close behind what the shadow has seen: what is
// compacted before anybody saw it could not be checked.
func compactionStorm(ctx context.Context, a *attack) bool {
	n := 0
	c := &client{run: a.run, id: adminID + 1, wires: a.admin.wires, rng: a.rng}
	for end := 5 + a.rng.Intn(10); n < end && ctx.Err() == nil; {
		rev := a.shadow.at() - a.rng.Int63n(20)
		if _, err := c.at(ctx, a.rng.Intn(len(a.places)), &pb.CompactionRequest{Revision: rev, Physical: a.rng.Intn(3) == 0}); err == nil {
			n++
		}
		a.wait(ctx, 20, 200)
	}
	a.text = fmt.Sprintf("%d compactions", n)
	return n > 0
}

func defragmentStorm(ctx context.Context, a *attack) bool {
	n := 0
	for end := 3 + a.rng.Intn(6); n < end && ctx.Err() == nil; {
		try, cancel := context.WithTimeout(ctx, 3*time.Second)
		if _, err := a.admin.wires[a.rng.Intn(len(a.places))].admin.Defragment(try, &pb.DefragmentRequest{}); err == nil {
			n++
		}
		cancel()
		a.wait(ctx, 20, 200)
	}
	a.text = fmt.Sprintf("%d defragmentations", n)
	return n > 0
}

// snapshotRestore saves a snapshot from any member. What it holds is compared
// when the run ends.
func snapshotRestore(ctx context.Context, a *attack) bool {
	i := a.rng.Intn(len(a.places))
	file := filepath.Join(a.dir, fmt.Sprintf("%s-%d.snap", a.places[i].Name, a.rec.now()))
	save, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, err := a.places[i].Ctl(save, "snapshot", "save", file)
	if err != nil {
		return false // The member was not there.
	}
	a.text = "of " + a.places[i].Name
	a.mu.Lock()
	defer a.mu.Unlock()
	a.backups = append(a.backups, backup{file: file})
	return true
}

// rotateCertificates replaces the certificates and sees whether members show
// the new ones without a restart.
func rotateCertificates(ctx context.Context, a *attack) bool {
	i := a.rng.Intn(len(a.places))
	before, err := a.serial(ctx, i)
	if err != nil {
		return false
	}
	if err := a.cluster.Renew(); err != nil {
		a.rec.violate("renew certificates: %v", err)
		return false
	}
	a.text = "all, seen at " + a.places[i].Name
	deadline := time.Now().Add(4 * time.Second) // They are looked for once a second.
	for time.Now().Before(deadline) {
		sleep(context.WithoutCancel(ctx), 300*time.Millisecond)
		now, err := a.serial(context.WithoutCancel(ctx), i)
		if err != nil {
			return true // Gone meanwhile.
		}
		if now.Cmp(before) != 0 {
			return true
		}
	}
	a.rec.violate("member %s still shows the certificate that was replaced", a.places[i].Name)
	return true
}

// serial is the number of the certificate that a member shows to clients.
func (a *attack) serial(ctx context.Context, i int) (*big.Int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	raw, err := a.mesh.Dial(ctx, strings.TrimPrefix(a.places[i].ClientURL, "https://"))
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	secure := a.secure.Clone()
	host, _, _ := strings.Cut(strings.TrimPrefix(a.places[i].ClientURL, "https://"), ":")
	secure.ServerName = host
	conn := tls.Client(raw, secure)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0].SerialNumber, nil
}
