package tunnel

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// scripted is a server whose sessions answer with words, one after the other:
//
//	open          the node is there
//	@N            a place in the log
//	=TEXT         output
//	end           the outcome
//	CODE          the end of the stream
type scripted struct {
	kubepb.ClusterStateClient
	t        *testing.T
	sessions []string
	asked    []string // From where, and with which limit.
}

func (s *scripted) Connect(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[kubepb.Frame, kubepb.Frame], error) {
	if len(s.sessions) == 0 {
		return nil, status.Error(codes.Unavailable, "nobody answers")
	}
	words := strings.Fields(s.sessions[0])
	s.sessions = s.sessions[1:]
	return &scriptedStream{server: s, words: words}, nil
}

type scriptedStream struct {
	grpc.BidiStreamingClient[kubepb.Frame, kubepb.Frame]
	server *scripted
	words  []string
}

func (s *scriptedStream) Send(f *kubepb.Frame) error {
	r := f.GetAsk().GetLogs()
	from := "the start"
	if r.After != nil {
		from = fmt.Sprint(r.After.Offset)
	}
	s.server.asked = append(s.server.asked, fmt.Sprintf("%s limit %d", from, r.LimitBytes))
	return nil
}

func (s *scriptedStream) Recv() (*kubepb.Frame, error) {
	if len(s.words) == 0 {
		return nil, io.EOF
	}
	word := s.words[0]
	s.words = s.words[1:]
	switch word[0] {
	case '@':
		p := &kubepb.LogPlace{}
		_, err := fmt.Sscanf(word, "@%d", &p.Offset)
		return &kubepb.Frame{What: &kubepb.Frame_Output{}, Place: p}, err
	case '=':
		return &kubepb.Frame{What: &kubepb.Frame_Output{Output: []byte(word[1:])}}, nil
	}
	switch word {
	case "open":
		return &kubepb.Frame{What: &kubepb.Frame_Opened{Opened: &kubepb.Opened{}}}, nil
	case "end":
		return &kubepb.Frame{What: &kubepb.Frame_Outcome{Outcome: &kubepb.Outcome{}}}, nil
	}
	for code := range codes.Code(17) {
		if code.String() == word {
			return nil, status.Error(code, "it said so")
		}
	}
	s.server.t.Errorf("there is no word %q", word)
	return nil, io.EOF
}

// hasty is a clock that does not wait, and counts it as waited.
type hasty struct {
	clock.Clock
	now *time.Duration
}

func (h hasty) Mono() time.Duration { return *h.now }
func (h hasty) After(d time.Duration) <-chan time.Time {
	*h.now += d
	c := make(chan time.Time, 1)
	c <- time.Time{}
	return c
}

func TestWhoFollowsALogIsAnsweredOverManySessions(t *testing.T) {
	for _, c := range []struct {
		says     string
		limit    int64
		sessions []string
		asked    string
		out      string
		told     string
		code     codes.Code
	}{
		{
			"bytes that come again are dropped, wherever places lie", 0,
			[]string{"open @0 =ab @2 =cd =e Unavailable", "open @2 =c Unavailable", "open @2 =cd @4 =ef @6 =g Unavailable", "open @6 =gh end"},
			"the start limit 0, 2 limit 0, 2 limit 0, 6 limit 0", "abcdefgh", "lost lost lost", codes.OK,
		},
		{
			"a limit is of all together", 7, []string{"open @0 =ab @2 =cd Unavailable", "open @2 =cd @4 =e Unavailable", "open @4 =efg end"},
			"the start limit 7, 2 limit 5, 4 limit 3", "abcdefg", "lost lost", codes.OK,
		},
		{"a limit that is reached as the node is lost", 4, []string{"open @0 =ab @2 =cd @4 Unavailable", "open @4 =efg end"}, "the start limit 4", "abcd", "lost", codes.OK},
		{
			"a node that comes back by and by", 0,
			[]string{"open @0 =a Unavailable", "Unavailable", "FailedPrecondition", "open NotFound", "open @0 =ab end"},
			"the start limit 0, 0 limit 0, 0 limit 0, 0 limit 0, 0 limit 0", "ab", "lost", codes.OK,
		},
		{
			"what was between is gone", 0, []string{"open @0 =a @1 =b Unavailable", "open @7 =xy @9 Unavailable", "open @9 =z end"},
			"the start limit 0, 1 limit 0, 9 limit 0", "abxyz", "lost gap lost", codes.OK,
		},
		{"an older kubelet takes over", 0, []string{"open @0 =a Unavailable", "open =a =b end"}, "the start limit 0, 0 limit 0", "a", "lost", codes.Unknown},
		{"an older kubelet", 0, []string{"open =a Unavailable"}, "the start limit 0", "a", "", codes.Unavailable},
		{"a node that is not there", 0, []string{"Unavailable"}, "the start limit 0", "", "", codes.Unavailable},
		{"the pod is gone", 0, []string{"open @0 =a Unavailable", "NotFound"}, "the start limit 0, 0 limit 0", "a", "lost", codes.NotFound},
		{"the log is gone", 0, []string{"open @0 =a Unavailable", "open FailedPrecondition"}, "the start limit 0, 0 limit 0", "a", "lost", codes.FailedPrecondition},
		{"the log fails", 0, []string{"open @0 =a FailedPrecondition"}, "the start limit 0", "a", "", codes.FailedPrecondition},
		{"nobody comes back", 0, []string{"open @0 =a Unavailable"}, "the start limit 0", "a", "lost", codes.Unavailable},
	} {
		now := time.Duration(0)
		var out bytes.Buffer
		var told []string
		server := &scripted{t: t, sessions: c.sessions}
		err := Follow(t.Context(), server, &kubepb.LogsRequest{LimitBytes: c.limit}, &out, Following{
			Clock: hasty{clock.Real(), &now},
			Lost:  func(error) { told = append(told, "lost") },
			Gap:   func() { told = append(told, "gap") },
		})
		if status.Code(err) != c.code || out.String() != c.out || strings.Join(told, " ") != c.told || strings.Join(server.asked, ", ") != c.asked {
			t.Errorf("%s: %q, %v, told %v, asked from %v", c.says, &out, err, told, server.asked)
		}
		if now > followLostMax {
			t.Errorf("%s: it was waited for %v", c.says, now)
		}
	}
}
