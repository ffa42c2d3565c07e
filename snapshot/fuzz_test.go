package snapshot

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/mvcc"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
)

// FuzzReceive makes a store of anything, also of what is wrong behind good
// checksums. It is refused and leaves nothing, or is a store that opens.
func FuzzReceive(f *testing.F) {
	f.Add(small(f), false)
	f.Add(small(f), true)
	a, sc := newStore(f), &script{r: rand.New(rand.NewPCG(3, 4))}
	sc.begin(f, a)
	sc.run(f, a, 10)
	f.Add(snapshotOf(f, a, WriteOptions{NoCompression: true}), true)
	closeStore(f, a)
	current := newStore(f)
	f.Cleanup(func() { current.Close() })
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal {
			data = resealed(data)
		}
		cfg := storeConfig(t.TempDir() + "/gen")
		state, err := Receive(bytes.NewReader(data), cfg, current)
		if err != nil {
			if _, err := vfs.OS().Stat(cfg.Dir); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("a refused snapshot left its folder: %v", err)
			}
			return
		}
		s, err := mvcc.Open(cfg)
		if err != nil {
			t.Fatalf("what was received does not open: %v", err)
		}
		if got := s.Applied().Position; got != state.Position {
			t.Errorf("stands at %v, said %v", got, state.Position)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzHave: what is understood is what was said.
func FuzzHave(f *testing.F) {
	f.Add(EncodeHave(mvcc.State{Identity: mvcc.Identity{Cluster: 1, Timeline: 2}, Position: ident.Position{Index: 3}, Digest: ident.Digest{4}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, ok := decodeHave(data)
		if !ok {
			return
		}
		s := mvcc.State{Identity: mvcc.Identity{Cluster: h.cluster, Timeline: h.timeline}, Position: ident.Position{Index: h.index}, Digest: h.digest}
		if again := EncodeHave(s); !bytes.Equal(again, data) {
			t.Fatalf("%x is understood as %x", data, again)
		}
	})
}

// FuzzPlan plans a restore of any header into any cluster: refused, or a plan
// in which every member has an ID and a place of its own.
func FuzzPlan(f *testing.F) {
	header := &holdfastpb.SnapshotHeader{Term: 3, Revision: 9, Applied: &holdfastpb.Position{Index: 7}}
	data, err := header.MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, "members:\n- name: a\n  peer-urls: [https://10.0.0.1:2380]\n  data-dir: x/a\n- {name: b, peer-urls: [https://10.0.0.2:2380], data-dir: x/b}\n", "", "", "token", int64(5), true)
	f.Add(data, "members: [{name: a, peer-urls: ['http://a:1', 'http://b:1'], data-dir: a, wal-dir: b}]", "a", "0f", "", int64(0), false)
	f.Add([]byte{}, "members: []\nmembers: 3", "", "", "", int64(-1), false)
	f.Fuzz(func(t *testing.T, head []byte, spec, only, nonce, token string, bump int64, mark bool) {
		members, err := ParseSpec([]byte(spec))
		h := &holdfastpb.SnapshotHeader{}
		if err != nil || h.UnmarshalVT(head) != nil {
			return
		}
		p, err := PlanRestore(h, RestoreOptions{Members: members, Only: only, Nonce: nonce, Token: token, BumpRevision: bump, MarkCompacted: mark})
		if err != nil {
			return
		}
		ids, dirs := map[ident.MemberID]bool{}, map[string]bool{}
		for _, m := range p.Members {
			if m.ID == 0 || ids[m.ID] || m.Make && (m.DataDir == "" || dirs[m.DataDir]) {
				t.Errorf("member %+v in %+v", m, p)
			}
			ids[m.ID] = true
			dirs[m.DataDir] = dirs[m.DataDir] || m.Make
			for _, u := range m.PeerURLs {
				if parsed, err := url.Parse(u); err != nil || parsed.Host == "" {
					t.Errorf("member %s has peer URL %q", m.Name, u)
				}
			}
		}
		if len(p.Members) != len(members) || bump < 0 || (bump > 0) != mark || !strings.Contains(p.String(), p.Members[0].ID.String()) {
			t.Errorf("%s from %+v", p, members)
		}
	})
}
