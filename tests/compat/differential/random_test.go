package differential

import (
	"fmt"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	sequences       = 4    // Random sequences in a run.
	sequenceLength  = 5500 // Requests in each.
	shortLength     = 3000 // With -short.
	differencesMax  = 8    // Seen until a sequence is given up: what follows would say the same again.
	barrierInterval = 120  // Requests between two moments at which all watches are compared.
)

func TestRandomSequencesOfRequestsGetTheAnswersThatEtcdGives(t *testing.T) {
	seeds := seedsOf(sequences)
	length := sequenceLength
	if testing.Short() {
		length = shortLength
	}
	if *requests != 0 {
		length = *requests
	}
	for _, s := range seeds {
		t.Run(fmt.Sprint("seed ", s), func(t *testing.T) {
			t.Parallel()
			t.Logf("again: go test -C tests/compat ./differential -run TestRandom -seed=%d -requests=%d", s, length)
			newSequence(t, s).run(length)
		})
	}
}

// seedsOf are those of a run: the one that was asked for, else drawn ones; the
// first few with -short, so that what stops a build is what somebody changed.
func seedsOf(n int) (seeds []uint64) {
	if *seed != 0 {
		return []uint64{*seed}
	}
	for i := range n * *long {
		if testing.Short() {
			seeds = append(seeds, uint64(i)+1)
		} else {
			seeds = append(seeds, rand.Uint64N(1<<32)+1)
		}
	}
	return seeds
}

// sequence is one random sequence under way.
type sequence struct {
	*pair
	w          *world
	streams    []*watchPair
	keepAlive  *keepAlivePair
	alarmedFor int // Requests until the alarm is taken away.
	alarm      pb.AlarmType
	sinceQuiet int // Requests since all watches were compared.
}

func newSequence(t *testing.T, seed uint64) *sequence {
	s := &sequence{pair: newPair(t, options{}), w: newWorld(seed)}
	s.stopAfter = differencesMax
	return s
}

func (s *sequence) run(length int) {
	s.keepAlive = newKeepAlivePair(s.pair)
	for i := range streamsPerSequence {
		s.streams = append(s.streams, newWatchPair(s.pair, i == streamsPerSequence-1))
	}
	for s.sent = 0; s.sent < length && !s.spent(); s.sent++ {
		s.step()
		if s.sinceQuiet++; s.sinceQuiet >= barrierInterval {
			s.quiet()
		}
	}
	if s.spent() {
		return
	}
	s.disarm()
	s.quiet()
	s.afterRestart()
}

func (s *sequence) step() {
	w := s.w
	if s.alarmedFor > 0 {
		if s.alarmedFor--; s.alarmedFor == 0 {
			s.disarm()
		}
	}
	switch n := w.IntN(1000); {
	case n < 260:
		s.note(s.call(w.rangeRequest(), w.meta()...))
	case n < 520:
		s.note(s.call(w.put(), w.meta()...))
	case n < 590:
		s.note(s.call(w.delete()))
	case n < 800:
		s.note(s.call(w.txn(), w.meta()...))
	case n < 812:
		s.compact()
	case n < 890:
		s.lease()
	case n < 940:
		s.watch()
	case n < 965:
		s.maintain()
	case n < 985:
		s.cluster()
	case n < 987:
		s.arm()
	default:
		s.malformed()
	}
}

// meta is metadata of a request, most often none.
func (w *world) meta() []string {
	switch w.IntN(20) {
	case 0:
		return []string{"hasleader", "true"}
	case 1:
		return []string{"client-api-version", "3.7", "hasleader", "yes"}
	}
	return nil
}

func (s *sequence) note(a answer) {
	if a.msg == nil {
		return
	}
	if h, ok := a.msg.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		s.w.note(h.GetHeader())
	}
}

// compact waits for all watches first: one that is still catching up would be
// cancelled by a race.
func (s *sequence) compact() {
	s.quiet()
	r := s.w.compact()
	if got := s.call(r); got.msg != nil {
		s.w.compacted = r.Revision
	}
}

// quiet compares all watches at a moment at which nothing changes.
func (s *sequence) quiet() {
	s.sinceQuiet = 0
	s.disarm()
	s.note(s.call(&pb.PutRequest{Key: sentinel}))
	for _, st := range s.streams {
		st.quiet(s.w.revision)
	}
}

// afterRestart stops both members and starts them again on their data.
func (s *sequence) afterRestart() {
	for _, st := range s.streams {
		st.close()
	}
	s.keepAlive.close()
	both(s.pair, func(side *target) any {
		side.stop()
		side.start()
		return nil
	})
	s.call(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	s.call(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: s.w.compacted})
	s.call(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: s.w.compacted - 1})
	s.call(&pb.MemberListRequest{Linearizable: true})
	s.call(&pb.AlarmRequest{})
	s.call(&pb.LeaseLeasesRequest{})
	for _, id := range s.w.leases {
		s.fullTime(id)
	}
	s.call(&pb.CompactionRequest{Revision: s.w.compacted})
	s.call(&pb.PutRequest{Key: []byte("after"), Value: []byte("restart"), PrevKv: true})
}

// fullTime compares a lease after a restart, which gives it its whole time
// again: the sides have started at different moments.
func (s *sequence) fullTime(id int64) {
	req := &pb.LeaseTimeToLiveRequest{ID: id, Keys: true}
	ours, theirs := both(s.pair, func(side *target) answer {
		a := side.call(s.t.Context(), methods["Lease/LeaseTimeToLive"], req)
		if r, isAnswer := a.msg.(*pb.LeaseTimeToLiveResponse); isAnswer && r.TTL > r.GrantedTTL-60 {
			r.TTL = r.GrantedTTL
		}
		return a
	})
	covered.request("Lease/LeaseTimeToLive", req)
	s.compare("Lease/LeaseTimeToLive", req, ours, theirs)
}
