package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/raftnode/transport"
	"github.com/holdfast-db/holdfast/statemachine/member"
)

var (
	errNotInCluster = errors.New("this member is not part of --initial-cluster")
	errWiped        = errors.New("this member was part of the cluster before and its data directory is gone: remove it with `member remove` and add it again with `member add`")
	errNoPeer       = errors.New("no member of the cluster answers")
	errOtherCluster = errors.New("that is another cluster than --initial-cluster and --initial-cluster-token make: to join a running cluster add this member with `member add` and start it with --initial-cluster-state=existing; to make a new one use other addresses")
)

// plan is what a member without data will become.
type plan struct {
	id      datadir.Identity
	members []*holdfastpb.Member // Initial ones; empty for a member that joins.
}

// boot finds out who a member is, or decides who it shall be.
type boot struct {
	cfg         Config
	dir         *datadir.Dir
	peerDialTLS func() *tls.Config // Nil for cleartext.
	random      func() (uint64, error)
}

// rosterTimeout bounds the question to one peer at start: peers that start at
// the same time do not answer.
const rosterTimeout = time.Second

// identify reads who lives in the directory, or decides who shall. In the
// second case p is not nil and nothing has been written.
func (b *boot) identify(ctx context.Context) (id datadir.Identity, p *plan, err error) {
	id, err = b.dir.Identity()
	if err == nil {
		return id, nil, nil
	}
	if !errors.Is(err, datadir.ErrEmpty) {
		return id, nil, err
	}
	initial, err := b.initial(ctx)
	if err != nil {
		return id, nil, err
	}
	if b.cfg.InitialClusterState == StateExisting {
		p, err = b.planJoin(ctx, initial)
	} else {
		p, err = b.planNew(ctx, initial)
	}
	if err != nil {
		return id, nil, err
	}
	incarnation, err := b.random()
	if err != nil {
		return id, nil, err
	}
	p.id.Incarnation = incarnation
	return p.id, p, nil
}

// planNew derives all IDs from the configuration, as each initial member does
// alone and with the same result.
func (b *boot) planNew(ctx context.Context, initial map[string][]string) (*plan, error) {
	own, ok := initial[b.cfg.Name]
	if !ok {
		return nil, fmt.Errorf("%w: --name is %q, the names are %s", errNotInCluster, b.cfg.Name, strings.Join(names(initial), ", "))
	}
	if !sameURLs(own, b.cfg.AdvertisePeerURLs) && b.cfg.DiscoverySRV == "" { // DNS was compared by address.
		return nil, fmt.Errorf("--initial-cluster has %s=%s but --initial-advertise-peer-urls is %s: make them equal",
			b.cfg.Name, strings.Join(own, ","), strings.Join(b.cfg.AdvertisePeerURLs, ","))
	}
	p := &plan{id: datadir.Identity{Timeline: 1}}
	var ids []ident.MemberID
	for _, name := range names(initial) {
		id := member.InitialID(initial[name], b.cfg.InitialClusterToken)
		if name == b.cfg.Name {
			p.id.Member = id
		}
		ids = append(ids, id)
		p.members = append(p.members, &holdfastpb.Member{Id: uint64(id), PeerUrls: slices.Sorted(slices.Values(initial[name]))})
	}
	slices.SortFunc(p.members, func(a, b *holdfastpb.Member) int {
		if a.Id < b.Id {
			return -1
		}
		return 1
	})
	p.id.Cluster = member.ClusterID(ids)
	return p, b.checkNotWiped(ctx, initial, p.id)
}

// checkNotWiped asks the others whether this member lived before. If it did,
// it has lost its vote with its data, and voting again under the old name could
// elect two leaders in one term. Others of another cluster would refuse each
// message for ever: a wrong address or token, which is better said now.
func (b *boot) checkNotWiped(ctx context.Context, initial map[string][]string, id datadir.Identity) error {
	for _, name := range names(initial) {
		if name == b.cfg.Name {
			continue
		}
		for _, u := range initial[name] {
			r, err := b.roster(ctx, u)
			if err != nil || len(r.Members) == 0 {
				continue // Not up yet, or about to join and knows nobody yet.
			}
			if r.Cluster != id.Cluster {
				return fmt.Errorf("%s is a member of cluster %s: %w", u, r.Cluster, errOtherCluster)
			}
			i := slices.IndexFunc(r.Members, func(m transport.RosterMember) bool { return m.ID == id.Member })
			if slices.Contains(r.Removed, id.Member) || i < 0 || r.Members[i].Incarnation != 0 {
				return fmt.Errorf("member %s, asked %s: %w", id.Member, u, errWiped)
			}
		}
	}
	return nil
}

// planJoin asks the members of a running cluster which of them this one is.
func (b *boot) planJoin(ctx context.Context, initial map[string][]string) (*plan, error) {
	var asked []error
	for _, name := range names(initial) {
		if name == b.cfg.Name {
			continue
		}
		for _, u := range initial[name] {
			r, err := b.roster(ctx, u)
			if err != nil {
				asked = append(asked, fmt.Errorf("%s: %w", u, err))
				continue
			}
			p, err := b.joinAs(r, u)
			if err == nil || errors.Is(err, errWiped) {
				return p, err
			}
			asked = append(asked, err) // That one may be new itself, or behind.
		}
	}
	if err := errors.Join(asked...); errors.Is(err, errNotInCluster) {
		return nil, err
	}
	return nil, fmt.Errorf("--initial-cluster-state is existing: %w: %w", errNoPeer, errors.Join(asked...))
}

func (b *boot) joinAs(r *transport.Roster, from string) (*plan, error) {
	for _, m := range r.Members {
		if !sameURLs(m.PeerURLs, b.cfg.AdvertisePeerURLs) {
			continue
		}
		if m.Incarnation != 0 {
			return nil, fmt.Errorf("member %s, asked %s: %w", m.ID, from, errWiped)
		}
		return &plan{id: datadir.Identity{Cluster: r.Cluster, Member: m.ID, Timeline: r.Timeline}}, nil
	}
	return nil, fmt.Errorf("%w: %s knows no member with peer URLs %s; add it first with `member add`",
		errNotInCluster, from, strings.Join(b.cfg.AdvertisePeerURLs, ","))
}

func (b *boot) roster(ctx context.Context, url string) (*transport.Roster, error) {
	ctx, cancel := context.WithTimeout(ctx, rosterTimeout)
	defer cancel()
	return transport.FetchRoster(ctx, transport.RosterConfig{TLS: b.peerDialTLS}, url)
}

func names(members map[string][]string) []string {
	list := make([]string, 0, len(members))
	for name := range members { //tidy:ordered sorted below
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func sameURLs(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
