package model

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/entry"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
	"github.com/holdfast-db/holdfast/mvcc"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/holdfastpb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/lease"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "repeat the sequence of this seed")
	seedsFlag = flag.Int("seeds", 40, "how many sequences")
)

// product is a state machine on a store, driven as a server does.
type product struct {
	t     testing.TB
	cfg   mvcc.Config
	store *mvcc.Store
	m     *statemachine.Machine
	index ident.Index
}

func newProduct(t testing.TB, dir string) *product {
	t.Helper()
	p := &product{t: t, cfg: mvcc.Config{ // History in memory: a disk would make the tests wait.
		FS: vfstest.NewMem(), Dir: "/gen", BaseFS: vfs.OS(), BaseDir: dir, Clock: clock.Real(), Logger: hclog.NewNullLogger(), Manual: true, BaseNoSync: true,
		SegmentBytes: 8 << 10, RingBytes: 16 << 10, BaseMapBytes: 64 << 20,
	}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	store, err := mvcc.Create(p.cfg, mvcc.Identity{Cluster: 1, Timeline: 1})
	if err != nil {
		t.Fatal(err)
	}
	p.use(store)
	return p
}

func (p *product) use(store *mvcc.Store) {
	p.t.Helper()
	m, err := statemachine.New(store)
	if err != nil {
		p.t.Fatal(err)
	}
	p.store, p.m = store, m
}

// work does what the background would do, and sometimes starts anew from disk.
func (p *product) work(d *rand.Rand) {
	p.t.Helper()
	for range d.IntN(20) {
		if more, err := p.store.Step(); err != nil || !more {
			if err != nil {
				p.t.Fatal(err)
			}
			break
		}
	}
	if d.IntN(20) > 0 {
		return
	}
	p.checkpoint()
	if err := p.store.Close(); err != nil {
		p.t.Fatal(err)
	}
	store, err := mvcc.Open(p.cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.use(store)
}

func (p *product) checkpoint() {
	p.t.Helper()
	done := make(chan error, 1)
	go func() { done <- p.store.Checkpoint(p.t.Context()) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				p.t.Fatal(err)
			}
			return
		default:
			if _, err := p.store.Step(); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// command is what a server writes into the log for a request.
func command(req proto.Message) *holdfastpb.Command {
	switch r := req.(type) {
	case *pb.PutRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_Put{Put: r}}
	case *pb.DeleteRangeRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_DeleteRange{DeleteRange: r}}
	case *pb.TxnRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_Txn{Txn: r}}
	case *pb.CompactionRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_Compaction{Compaction: r}}
	case *pb.LeaseGrantRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_LeaseGrant{LeaseGrant: &holdfastpb.LeaseGrant{Id: r.ID, Ttl: max(r.TTL, 2)}}}
	case *pb.LeaseRevokeRequest:
		return &holdfastpb.Command{Command: &holdfastpb.Command_LeaseRevoke{LeaseRevoke: &holdfastpb.LeaseRevoke{Id: r.ID}}}
	}
	return nil
}

// words are those of the wire for what the machine says.
var words = map[error]error{
	mvcc.ErrCompacted: ErrCompacted, mvcc.ErrFutureRevision: ErrFutureRevision, mvcc.ErrKeyNotFound: ErrKeyNotFound,
	lease.ErrNotFound: ErrLeaseNotFound, lease.ErrExists: ErrLeaseExists, lease.ErrTTL: ErrLeaseTTL,
}

func wire(err error) error {
	for ours, theirs := range words {
		if errors.Is(err, ours) {
			return theirs
		}
	}
	return err
}

// apply runs requests as one entry of the log.
func (p *product) apply(reqs []proto.Message) []entry.Answer {
	p.t.Helper()
	p.index++
	e := entry.Entry{Index: p.index, Term: 2, Time: int64(p.index)}
	for _, req := range reqs {
		data, err := command(req).MarshalVT()
		if err != nil {
			p.t.Fatal(err)
		}
		e.Requests = append(e.Requests, entry.Request{Data: data})
	}
	answers, err := p.m.Apply([]entry.Entry{e})
	if err != nil {
		p.t.Fatal(err)
	}
	return answers
}

// read answers what needs no entry.
func (p *product) read(req proto.Message) (proto.Message, error) {
	p.t.Helper()
	v := p.store.View()
	defer v.Release()
	if t, ok := req.(*pb.TxnRequest); ok {
		return answer(statemachine.ReadTxn(p.t.Context(), v, t))
	}
	res, err := v.Range(p.t.Context(), statemachine.RangeArgs(req.(*pb.RangeRequest)))
	if err != nil {
		return nil, err
	}
	got := &pb.RangeResponse{Header: header(int64(res.Revision)), Count: res.Count, More: res.More}
	for _, row := range res.KVs {
		kv := &mvccpb.KeyValue{}
		if err := kv.UnmarshalVT(row); err != nil {
			p.t.Fatal(err)
		}
		got.Kvs = append(got.Kvs, kv)
	}
	return got, nil
}

// pair is the model and the product side by side.
type pair struct {
	*product
	model   *Store
	d       *Draw
	pending []proto.Message // For one entry.
	kinds   map[string]int  // Of answers, so that a test can tell that it met them.
}

// step draws a request and, now and then, has what was drawn happen.
func (p *pair) step() {
	p.t.Helper()
	req := p.d.Request(p.model)
	if err := Validate(req); err != nil {
		p.kinds[err.Error()]++ // A server lets none of these into the log: that is another test.
		return
	}
	t, txn := req.(*pb.TxnRequest)
	if _, get := req.(*pb.RangeRequest); get || txn && statemachine.ReadOnly(t) && p.d.one(2) {
		p.flush()
		want, wantErr := p.model.Execute(req)
		got, err := p.read(req)
		p.compare(req, got, err, want, wantErr)
		return
	}
	p.pending = append(p.pending, req)
	if p.d.one(2) {
		p.flush()
		p.work(p.d.Rand)
	}
}

func (p *pair) flush() {
	p.t.Helper()
	if len(p.pending) == 0 {
		return
	}
	for i, a := range p.apply(p.pending) {
		got, _ := a.Value.(proto.Message)
		want, err := p.model.Execute(p.pending[i])
		p.compare(p.pending[i], got, a.Err, want, err)
	}
	p.pending = nil
}

func (p *pair) compare(req, got proto.Message, gotErr error, want proto.Message, wantErr error) {
	p.t.Helper()
	if gotErr = wire(gotErr); gotErr != wantErr {
		p.t.Fatalf("%s\nis answered with error %v, the model has %v", show(req), gotErr, wantErr)
	}
	if wantErr != nil {
		p.kinds[wantErr.Error()]++
		return
	}
	p.kinds[fmt.Sprintf("%T", want)]++
	if !proto.Equal(got, want) {
		p.t.Fatalf("%s\nis answered with\n%s\nthe model has\n%s", show(req), show(got), show(want))
	}
}

func show(m proto.Message) string { return fmt.Sprintf("%T\n%s", m, prototext.Format(m)) }

// compareStates holds everything that is left against each other: keys, leases
// and events.
func (p *pair) compareStates() {
	p.t.Helper()
	p.flush()
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	got, err := p.read(all)
	want, wantErr := p.model.Execute(all)
	p.compare(all, got, err, want, wantErr)
	if got, want := fmt.Sprint(p.m.Leases.List()), fmt.Sprint(p.model.Leases()); got != want {
		p.t.Fatalf("leases are %s, the model has %s", got, want)
	}
	if got, want := int64(p.store.Compacted()), p.model.Compacted(); got != want {
		p.t.Fatalf("compacted at %d, the model at %d", got, want)
	}
	for _, id := range p.model.Leases() {
		v := p.store.View()
		keys, err := v.LeaseKeys(ident.LeaseID(id))
		v.Release()
		if err != nil {
			p.t.Fatal(err)
		}
		if got, want := fmt.Sprintf("%q", keys), fmt.Sprintf("%q", p.model.LeaseKeys(id)); got != want {
			p.t.Fatalf("on lease %d hang %s, in the model %s", id, got, want)
		}
	}
}

func newPair(t testing.TB, dir string, r *rand.Rand) *pair {
	return &pair{product: newProduct(t, dir), model: New(), d: NewDraw(r), kinds: map[string]int{}}
}

func TestTheStateMachineAnswersAsTheModel(t *testing.T) {
	kinds := map[string]int{}
	n := *seedsFlag
	if testing.Short() {
		n = min(n, 10)
	}
	for i := range n {
		seed := rand.Uint64()
		if *seedFlag != 0 {
			seed = *seedFlag
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			p := newPair(t, t.TempDir(), rand.New(rand.NewPCG(seed, 0)))
			defer func() { p.store.Close() }()
			p.kinds = kinds
			for range 800 {
				p.step()
			}
			p.compareStates()
		})
		if *seedFlag != 0 && i == 0 {
			return
		}
	}
	for _, kind := range []string{
		"*etcdserverpb.RangeResponse", "*etcdserverpb.PutResponse", "*etcdserverpb.DeleteRangeResponse", "*etcdserverpb.TxnResponse",
		"*etcdserverpb.CompactionResponse", "*etcdserverpb.LeaseGrantResponse", "*etcdserverpb.LeaseRevokeResponse",
		ErrKeyNotFound.Error(), ErrCompacted.Error(), ErrFutureRevision.Error(), ErrLeaseTTL.Error(), ErrLeaseNotFound.Error(), ErrLeaseExists.Error(),
	} {
		if kinds[kind] == 0 {
			t.Errorf("no answer was %s", kind)
		}
	}
	t.Logf("answers: %v", kinds)
}

// FuzzMachine has the bytes decide what is asked.
func FuzzMachine(f *testing.F) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 800)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		f.Add(data)
	}
	base, stores := f.TempDir(), 0
	f.Fuzz(func(t *testing.T, data []byte) {
		src := &Bytes{Data: data[:min(len(data), 2000)]}
		stores++
		p := newPair(t, filepath.Join(base, strconv.Itoa(stores)), rand.New(src))
		defer func() { p.store.Close() }()
		for len(src.Data) > 1 {
			p.step()
		}
		p.compareStates()
	})
}
