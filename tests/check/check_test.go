package check

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "repeat the history of this seed")
	agreeFlag  = flag.Int("agree", 2000, "on how many histories the two checkers must agree")
	simulation = flag.Int("simulate", 60, "how many right histories to check")
)

// seeds calls fn for chosen seeds, or for the one that was asked for.
func seeds(t *testing.T, n int, fn func(t *testing.T, seed uint64)) {
	if *seedFlag != 0 {
		fn(t, *seedFlag)
		return
	}
	for range n {
		seed := rand.Uint64()
		fn(t, seed)
		if t.Failed() {
			t.Fatalf("repeat with -seed %d", seed)
		}
	}
}

func TestACompactionBelowAFreshStoreCompactsNothing(t *testing.T) {
	x := compactions{asked: []sighting{{time: 10, rev: -6}, {time: 20, rev: 3}}}
	for at, want := range map[int64]int64{5: -1, 15: -1, 25: 3} {
		if got := x.possibly(at); got != want {
			t.Errorf("at %d %d can have been compacted, want %d", at, got, want)
		}
	}
}

func TestRightHistoriesPass(t *testing.T) {
	var sum Counts
	seeds(t, *simulation, func(t *testing.T, seed uint64) {
		c := newCluster(seed)
		h := c.run(6, 1500)
		c.watches(10)
		r := Check(h, Options{})
		r.Windows(SearchOptions{Ops: 300})
		if err := r.Err(); err != nil {
			t.Errorf("%+v\n%v", r.Counts, err)
		}
		sum.Ops += r.Counts.Ops
		sum.Refused += r.Counts.Refused
		sum.Unknown += r.Counts.Unknown
		sum.Resolved += r.Counts.Resolved
		sum.Expired += r.Counts.Expired
		sum.Serializable += r.Counts.Serializable
		sum.Events += r.Counts.Events
	})
	if *seedFlag == 0 && (sum.Resolved == 0 || sum.Expired == 0 || sum.Serializable == 0 || sum.Events == 0 || sum.Refused == 0) {
		t.Errorf("too little happened: %+v", sum)
	}
	t.Logf("%+v", sum)
}

// everything has porcupine look at a whole history at once, without the
// revisions that the checker gave to operations.
func (c *checker) everything(t *testing.T) bool {
	w := window{1, c.head}
	list := c.window(w, 1000)
	last := list[len(list)-1]
	list = list[:0]
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		made := c.narrow.made[int32(i)] > 0
		if op.Outcome == Refused || op.Outcome == Unknown && !made || c.info[i].serializable {
			continue
		}
		p := last
		p.ClientId, p.Input, p.Call, p.Return = op.Client, step{op: op, rev: c.narrow.made[int32(i)]}, op.Call, op.Return
		if made {
			p.Return = never
		}
		last.Call = max(last.Call, op.Call+1, op.Return+1)
		list = append(list, p)
	}
	last.Return = last.Call + 1
	verdict, _, _ := watched(newEngine().porcupine(), append(list, last), time.Minute)
	switch verdict {
	case "Ok":
		return true
	case "Illegal":
		return false
	}
	t.Fatalf("porcupine has no verdict")
	return false
}

// mutate changes something that clients saw.
func mutate(r *rand.Rand, h *History) string {
	for {
		op := &h.Ops[r.IntN(len(h.Ops))]
		if op.Outcome != Acknowledged {
			continue
		}
		op.Response = proto.Clone(op.Response)
		header := op.Response.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader()
		switch r.IntN(7) {
		case 0:
			header.Revision += 1 - 2*r.Int64N(2)
			return fmt.Sprintf("revision of %d", op.ID)
		case 1:
			if res, ok := op.Response.(*pb.RangeResponse); ok && len(res.Kvs) > 0 && len(res.Kvs[0].Value) > 0 {
				res.Kvs[0].Value = []byte("another")
				return fmt.Sprintf("value in %d", op.ID)
			}
		case 2:
			by := r.Int64N(40*ms) - 20*ms
			op.Call, op.Return = op.Call+by, op.Return+by
			return fmt.Sprintf("time of %d", op.ID)
		case 3:
			op.Outcome, op.Response = Unknown, nil
			return fmt.Sprintf("answer of %d is lost", op.ID)
		case 4:
			op.Return = op.Call + (op.Return-op.Call)/4
			return fmt.Sprintf("%d returns sooner", op.ID)
		case 5:
			other := &h.Ops[r.IntN(len(h.Ops))]
			if other.Outcome == Acknowledged && fmt.Sprintf("%T", other.Response) == fmt.Sprintf("%T", op.Response) {
				op.Response, other.Response = other.Response, op.Response
				return fmt.Sprintf("answers of %d and %d", op.ID, other.ID)
			}
		case 6:
			if put, ok := op.Request.(*pb.PutRequest); ok {
				put = proto.Clone(put).(*pb.PutRequest)
				put.Value, put.IgnoreValue = []byte("never"), false
				op.Request = put
				return fmt.Sprintf("value of %d", op.ID)
			}
		}
	}
}

// TestTheTwoCheckersAgree lets both look at right histories in which something
// was changed, which often but not always makes them wrong.
func TestTheTwoCheckersAgree(t *testing.T) {
	n := *agreeFlag
	if testing.Short() {
		n = min(n, 300)
	}
	wrong := 0
	seeds(t, n, func(t *testing.T, seed uint64) {
		c := newCluster(seed)
		c.calm, c.plain = true, c.IntN(2) == 0
		h := c.run(2+c.IntN(5), 60+c.IntN(100))
		var what []string
		for range 1 + c.IntN(2) {
			what = append(what, mutate(c.Rand, h))
		}
		r := Check(h, Options{})
		one, two := r.Err() == nil, r.checker.everything(t)
		if one != two {
			t.Errorf("%s: by revision right is %v, by porcupine %v\n%v", strings.Join(what, ", "), one, two, r.Err())
		}
		if !one {
			wrong++
		}
	})
	if *seedFlag == 0 && (wrong < n/4 || wrong > n*19/20) {
		t.Errorf("%d of %d histories are wrong: that tells little", wrong, n)
	}
	t.Logf("%d of %d histories are wrong", wrong, n)
}

func TestAHistorySurvivesItsFile(t *testing.T) {
	c := newCluster(7)
	h := c.run(5, 400)
	c.watches(6)
	h.Hashes = []Hash{{Member: 1, Revision: 2, Hash: 3}}
	h.Holds = []Hold{{Client: 1, Prefix: "a", Token: h.Log[0].Kv.ModRevision, From: 1 << 60}}
	h.Holds[0].Prefix = string(h.Log[0].Kv.Key)
	h.Compactions = []Compaction{{Revision: 2, NotBefore: 1}}
	h.Spans = []Span{{Lane: "network", Text: "cut", From: 1, To: 2, Fault: true}}
	var file, again bytes.Buffer
	if err := Write(&file, h); err != nil {
		t.Fatal(err)
	}
	text := file.String()
	got, err := Read(&file)
	if err != nil {
		t.Fatal(err)
	}
	if one, two := Check(h, Options{}), Check(got, Options{}); one.Counts != two.Counts || one.Err() != nil || two.Err() != nil {
		t.Fatalf("%+v and, read again, %+v\n%v", one.Counts, two.Counts, two.Err())
	}
	if err := Write(&again, got); err != nil {
		t.Fatal(err)
	}
	if strings.ReplaceAll(again.String(), " ", "") != strings.ReplaceAll(text, " ", "") {
		t.Fatal("what was read is not what was written")
	}
	for _, bad := range []string{"{}", `{"seen":{"watch":3}}`, `{"op":{"request":{"name":"no.Such","body":{}}}}`, "x"} {
		if _, err := Read(strings.NewReader(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestThePageHasEverythingInIt(t *testing.T) {
	c := newCluster(3)
	h := c.run(4, 200)
	h.Spans = []Span{{Lane: "leader", Text: "member 1", From: 0, To: 100 * ms}, {Lane: "network", Text: "cut <b>", From: 5 * ms, To: 50 * ms, Fault: true}}
	h.Ops[0].Outcome, h.Ops[0].Error = Refused, model0
	r := Check(h, Options{})
	r.Windows(SearchOptions{Ops: 100})
	var page bytes.Buffer
	if err := r.HTML(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"lane":"leader"`, `"kind":"fault"`, "client 1", "srcdoc=", "violations"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page has no %s", want)
		}
	}
	if strings.Contains(page.String(), "cut <b>") {
		t.Error("text is not escaped")
	}
	if strings.Contains(page.String(), `src="http`) {
		t.Error("the page wants something from elsewhere")
	}
}

const model0 = "etcdserver: key is not provided"

// BenchmarkCheck: how many operations does the checker get through in a second?
func BenchmarkCheck(b *testing.B) {
	c := newCluster(1)
	c.plain, c.calm = true, true
	h := c.run(8, 200_000)
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		if err := Check(h, Options{}).Err(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(h.Ops))*float64(b.N)/(cpu(b)-before).Seconds(), "ops/cpu-s")
}

// cpu is the time that this process has had: machines that test are busy.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWindows: how many windows of 2,000 operations does the second
// opinion get through?
func BenchmarkWindows(b *testing.B) {
	c := newCluster(1)
	c.calm = true
	r := Check(c.run(8, 20_000), Options{})
	before := cpu(b)
	for b.Loop() {
		r.Searched = SearchCounts{}
		r.Windows(SearchOptions{})
		if err := r.Err(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(r.Searched.Searched)*float64(b.N)/(cpu(b)-before).Seconds(), "windows/cpu-s")
}

// TestNothingThatClientsSawStopsTheChecker changes right histories of all kinds
// of requests: what is found is then a violation, never a panic.
func TestNothingThatClientsSawStopsTheChecker(t *testing.T) {
	found := 0
	seeds(t, 100, func(t *testing.T, seed uint64) {
		c := newCluster(seed)
		h := c.run(5, 300)
		c.watches(5)
		for range 3 {
			mutate(c.Rand, h)
		}
		if r := Check(h, Options{ElectionTimeout: time.Second}); r.Err() != nil {
			found++
		}
	})
	if *seedFlag == 0 && found < 50 {
		t.Errorf("%d of 100 were found to be wrong", found)
	}
}

func TestOnlyDefiniteErrorsSayThatNothingHappened(t *testing.T) {
	for want, errs := range map[Outcome][]error{
		Acknowledged: {nil},
		Refused: {
			status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
			status.Error(codes.Unavailable, "etcdserver: leader changed"),
		},
		Unknown: {
			status.Error(codes.Unavailable, "etcdserver: request timed out"),
			status.Error(codes.Unavailable, "etcdserver: server stopped"),
			status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 8)"),
			context.DeadlineExceeded, errors.New("connection reset by peer"),
		},
	} {
		for _, err := range errs {
			if got, _ := OutcomeOf(err); got != want {
				t.Errorf("%v says %v, want %v", err, got, want)
			}
		}
	}
}
