package tunnel

import (
	"context"
	"io"
	"runtime"
	"testing"

	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// spoken is a stream of a node that says this, and nothing more.
type spoken struct {
	ctx  context.Context
	says chan *kubepb.Frame
}

func (s spoken) Context() context.Context { return s.ctx }
func (s spoken) Send(*kubepb.Frame) error { return nil }
func (s spoken) Recv() (*kubepb.Frame, error) {
	select {
	case f := <-s.says:
		return f, nil
	case <-s.ctx.Done():
		return nil, io.EOF
	}
}

// On one processor the user goes before who reads the node's stream runs on.
func TestANodeThatToldTheOutcomeIsNotToldThatItsUserWent(t *testing.T) {
	h, _ := newHub(t)
	told := make(chan *kubepb.TunnelResponse, 10)
	join(t, h, told)
	s, err := h.begin("n", "ann")
	if err != nil {
		t.Fatal(err)
	}
	s.secret = []byte("secret")
	h.mu.Lock()
	h.mu.waiting[s.number] = s
	h.mu.Unlock()
	says := make(chan *kubepb.Frame, 2)
	says <- &kubepb.Frame{What: &kubepb.Frame_Output{Output: []byte("all")}}
	says <- &kubepb.Frame{What: &kubepb.Frame_Outcome{Outcome: &kubepb.Outcome{}}}

	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	ended := make(chan error, 1)
	go func() {
		ended <- h.Serve(spoken{t.Context(), says}, &kubepb.Credential{Node: "n", Session: s.number, Secret: s.secret})
	}()
	for range 1000 { // Until the outcome waits for the output to be taken.
		runtime.Gosched()
	}
	<-s.toUser
	if f := <-s.toUser; f.GetOutcome() == nil {
		t.Fatalf("no outcome but %v", f)
	}
	close(s.userGone)
	if err := <-ended; err != nil {
		t.Errorf("the node is told %v", err)
	}
	h.end(s)
}
