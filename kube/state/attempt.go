package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/leader"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// attempt is one try to decide a write: what it reads is what its transaction
// compares, so that what it decides holds at the revision at which it is done.
type attempt struct {
	service  *Service
	identity auth.Identity
	now      time.Time

	// fresh is what the store said of keys after a try that failed. Nil: no such key.
	fresh map[string]*mvccpb.KeyValue

	// drawn is what was drawn by chance, for the next try: one that draws other keys than
	// were asked of the store would never be final.
	drawn     [][]byte
	drawnNext int // Of this try.

	reads    []read // Of this try.
	fromHere bool   // Some came from the cache, which may be behind: an error is not final.
	ops      []client.Op
	written  []wrote
	warnings []string

	standing string // The key in whose line it is the first.

	counted  bool // Against the rate of its source; once for all tries.
	recovers bool // It records what runs: it asks neither for room nor for leave.
}

// read is a key that was looked at.
type read struct {
	key   string
	kv    *mvccpb.KeyValue // Nil: there is none.
	still client.Compare   // That it is so.
}

// wrote is a key that the transaction writes. Nil value: deletes.
type wrote struct {
	key    string
	value  []byte
	lease  int64
	object api.Object // That value encodes, if any. It is not the writer's any more.
}

// read looks at a key. Nil: there is none.
func (a *attempt) read(key string) *mvccpb.KeyValue {
	for i := range a.reads {
		if a.reads[i].key == key {
			return a.reads[i].kv
		}
	}
	kv, known := a.fresh[key]
	if !known {
		a.fromHere = true
		kv = a.service.cache.lookup(key)
	}
	a.reads = append(a.reads, read{key, kv, client.IfModified(key, client.Equal, kv.GetModRevision())})
	return kv
}

// shared reads an object that is only looked at: others have the same. To encode it
// is to write to it, as quantities remember how they are written.
func (a *attempt) shared(k *api.Kind, namespace, name string) (api.Object, int64, error) {
	key := k.Key(namespace, name)
	kv := a.read(key)
	if kv == nil {
		return nil, 0, nil
	}
	if e := a.service.cache.entry(key); e != nil && e.revision == kv.ModRevision {
		if o := e.decoded(); o != nil {
			return o, e.revision, nil
		}
	}
	o, err := api.Decode(k, kv.Value, kv.ModRevision)
	return o, kv.ModRevision, err
}

// object reads an object. It is not shared: the caller may change it.
func (a *attempt) object(k *api.Kind, namespace, name string) (api.Object, int64, error) {
	kv := a.read(k.Key(namespace, name))
	if kv == nil {
		return nil, 0, nil
	}
	o, err := api.Decode(k, kv.Value, kv.ModRevision)
	return o, kv.ModRevision, err
}

// draw fills b by chance: in each try with the same, as far as tries are the same.
func (a *attempt) draw(b []byte) error {
	if a.drawnNext < len(a.drawn) && len(a.drawn[a.drawnNext]) == len(b) {
		copy(b, a.drawn[a.drawnNext])
		a.drawnNext++
		return nil
	}
	if err := a.service.draw(b); err != nil {
		return err
	}
	a.drawn = append(a.drawn[:a.drawnNext], slices.Clone(b))
	a.drawnNext++
	return nil
}

// put writes an object.
func (a *attempt) put(k *api.Kind, o api.Object, lease int64) error {
	b, err := api.Encode(o)
	if err != nil {
		return err
	}
	return a.putEncoded(k, o, b, lease)
}

func (a *attempt) putEncoded(k *api.Kind, o api.Object, b []byte, lease int64) error {
	if len(b) > objectBytesMax {
		return invalid("%s %s has %d bytes; %d are the most", k.Name, full(o.GetNamespace(), o.GetName()), len(b), objectBytesMax)
	}
	a.putPlain(k.Key(o.GetNamespace(), o.GetName()), b, lease)
	a.written[len(a.written)-1].object = o
	return nil
}

// encoded is the stored form of an object that this write is about.
func (a *attempt) encoded(k *api.Kind, o api.Object) ([]byte, error) {
	key := k.Key(o.GetNamespace(), o.GetName())
	for _, w := range a.written {
		if w.key == key && w.value != nil {
			return w.value, nil
		}
	}
	return api.Encode(o)
}

func (a *attempt) putPlain(key string, value []byte, lease int64) {
	a.ops = append(a.ops, client.Put{Key: key, Value: value, Lease: lease})
	a.written = append(a.written, wrote{key: key, value: value, lease: lease})
}

func (a *attempt) delete(key string) {
	a.ops = append(a.ops, client.Delete{Range: client.One(key)})
	a.written = append(a.written, wrote{key: key})
}

// write decides by f and commits, until that succeeds or f refuses by what the store
// says. It returns the revision of the write; 0 if there was nothing to do.
func (s *Service) write(ctx context.Context, p *kubepb.Preconditions, dryRun bool, f func(*attempt) error) (_ int64, _ *attempt, err error) {
	id, err := auth.Of(ctx)
	if err != nil {
		return 0, nil, err
	}
	defer func() { s.logDenied(id, err) }()
	if err := checkPreconditions(p); err != nil {
		return 0, nil, err
	}
	if err := s.reach(ctx, 1); err != nil { // The cache is filled.
		return 0, nil, err
	}
	a := &attempt{service: s, identity: id, fresh: map[string]*mvccpb.KeyValue{}}
	defer a.leave()
	for range writeTriesMax {
		if err := a.decide(ctx, p, f); err != nil {
			return 0, nil, err
		}
		if dryRun || len(a.ops) == 0 {
			return 0, a, nil
		}
		if key := s.lines.of(a.written); key != "" && a.standing == "" {
			if err := a.stand(ctx, key); err != nil {
				return 0, nil, err
			}
			continue
		}
		revision, err := a.commit(ctx)
		if errors.Is(err, client.ErrLeaseNotFound) {
			s.events.forget() // Of events only: the store was restored, or somebody revoked it.
			continue
		}
		if err != nil || revision > 0 {
			return revision, a, err
		}
		if err := a.stand(ctx, a.lostBy()); err != nil {
			return 0, nil, err
		}
	}
	return 0, nil, fmt.Errorf("decided %d times, and each time others were faster: %w", writeTriesMax, errConflict)
}

// decide calls f until it decides, or refuses by what the store says.
func (a *attempt) decide(ctx context.Context, p *kubepb.Preconditions, f func(*attempt) error) error {
	for range writeTriesMax {
		a.now, a.reads, a.ops, a.written, a.warnings, a.fromHere = a.service.clock.Wall(), a.reads[:0], nil, nil, nil, false
		a.drawnNext = 0
		err := a.fence(p.GetFence()) // First: who leads no more shall learn that, not what else is wrong.
		if err == nil {
			err = f(a)
		}
		if err == nil {
			err = a.guard(p)
		}
		if err == nil || !a.fromHere || final(err) {
			return err
		}
		if err := a.refresh(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("what it depends on could not be settled in %d reads: %w", writeTriesMax, errConflict)
}

// final errors do not depend on what is stored.
func final(err error) bool {
	return errors.Is(err, errNotHere) || errors.Is(err, context.Canceled)
}

// commit executes what was decided if what it was decided by still holds. 0: it does
// not, and fresh says what does. Only who has lost before asks for that in the same
// transaction: all members have each question in their logs, and few are answered.
func (a *attempt) commit(ctx context.Context) (int64, error) {
	if len(a.reads) > readsMax {
		return 0, invalid("the write depends on %d objects; %d are the most", len(a.reads), readsMax)
	}
	txn := client.Txn{Then: a.ops}
	for i := range a.reads {
		txn.If = append(txn.If, a.reads[i].still)
		if len(a.fresh) > 0 {
			txn.Else = append(txn.Else, client.Get{Range: client.One(a.reads[i].key)})
		}
	}
	r, err := a.execute(ctx, txn)
	switch {
	case err != nil:
		return 0, err
	case !r.Succeeded && txn.Else == nil:
		return 0, a.refresh(ctx)
	case !r.Succeeded:
		a.learn(r.Responses)
		return 0, nil
	}
	revision := r.Header.Revision
	for _, w := range a.written {
		var kv *mvccpb.KeyValue
		if w.value != nil {
			// Where it was created matters of keys that are written elsewhere only.
			kv = &mvccpb.KeyValue{Key: []byte(w.key), Value: w.value, ModRevision: revision, Lease: w.lease}
		}
		a.service.cache.wrote(w.key, revision, kv)
	}
	return revision, nil
}

func (a *attempt) execute(ctx context.Context, txn client.Txn) (*pb.TxnResponse, error) {
	for _, w := range a.written {
		if w.object != nil {
			a.service.makings.add(w.key, w.value, w.object)
		}
	}
	r, err := a.service.store.Txn(ctx, txn)
	if err != nil || !r.Succeeded {
		for _, w := range a.written {
			a.service.makings.take(w.key, w.value)
		}
	}
	return r, err
}

// refresh asks the store for all that was read.
func (a *attempt) refresh(ctx context.Context) error {
	if len(a.reads) > readsMax {
		return invalid("the write depends on %d objects; %d are the most", len(a.reads), readsMax)
	}
	txn := client.Txn{}
	for i := range a.reads {
		txn.Then = append(txn.Then, client.Get{Range: client.One(a.reads[i].key)})
	}
	if len(txn.Then) == 0 {
		return nil
	}
	r, err := a.service.store.Txn(ctx, txn)
	if err == nil {
		a.learn(r.Responses)
	}
	return err
}

func (a *attempt) learn(answers []*pb.ResponseOp) {
	for i, answer := range answers {
		if i >= len(a.reads) {
			return
		}
		a.fresh[a.reads[i].key] = nil
		if kvs := answer.GetResponseRange().GetKvs(); len(kvs) > 0 {
			a.fresh[a.reads[i].key] = kvs[0]
		}
	}
}

// guard looks at the guards of a request.
func (a *attempt) guard(p *kubepb.Preconditions) error {
	for _, g := range p.GetGuards() {
		k, err := checkRef(g.GetObject())
		if err != nil {
			return err
		}
		// What a guard answers is what a read tells of its object.
		if err := a.authorize(&auth.Request{Verb: auth.Get, Kind: k, Namespace: g.Object.Namespace, Name: g.Object.Name}); err != nil {
			return err
		}
		at := a.read(k.Key(g.Object.Namespace, g.Object.Name)).GetModRevision()
		if at != g.ResourceVersion {
			return fmt.Errorf("guard: %s %s is at %d, not %d: %w", k.Name, full(g.Object.Namespace, g.Object.Name), at, g.ResourceVersion, errGuard)
		}
	}
	return nil
}

// fence looks whether a leadership lasts.
func (a *attempt) fence(f *kubepb.Fence) error {
	if f == nil {
		return nil
	}
	kv := a.read(f.Key)
	if kv == nil || kv.CreateRevision != f.CreateRevision {
		return &fenceOver{f}
	}
	for i := range a.reads { // The leader may tell another value: that it leads matters.
		if a.reads[i].key == f.Key {
			a.reads[i].still = client.IfCreated(f.Key, client.Equal, f.CreateRevision)
		}
	}
	return nil
}

func checkPreconditions(p *kubepb.Preconditions) error {
	if len(p.GetGuards()) > guardsMax {
		return invalid("preconditions: %d guards; %d are the most", len(p.Guards), guardsMax)
	}
	if p.GetResourceVersion() < 0 {
		return invalid("preconditions: %d is no resource version", p.ResourceVersion)
	}
	for _, g := range p.GetGuards() {
		if _, err := checkRef(g.GetObject()); err != nil {
			return err
		}
	}
	return checkFence(p.GetFence())
}

func checkFence(f *kubepb.Fence) error {
	if f == nil {
		return nil
	}
	if !strings.HasPrefix(f.Key, leader.Prefix) || f.CreateRevision <= 0 || len(f.Key) > 2*nameBytesMax {
		return invalid("fence: it is a key below %s and the revision that created it", leader.Prefix)
	}
	return nil
}

// hold compares what a request says of the object that it changes.
func hold(p *kubepb.Preconditions, k *api.Kind, o api.Object, revision int64) error {
	what := k.Name + " " + full(o.GetNamespace(), o.GetName())
	if want := p.GetUid(); want != "" && want != string(o.GetUID()) {
		return fmt.Errorf("%s has uid %s, not %s: %w", what, o.GetUID(), shorten(want), errConflict)
	}
	if want := p.GetResourceVersion(); want != 0 && want != revision {
		return conflict(what, want, revision)
	}
	return nil
}

func conflict(what string, want, is int64) error {
	return fmt.Errorf("%s is at resource version %d, the change is to %d: %w", what, is, want, errConflict)
}
