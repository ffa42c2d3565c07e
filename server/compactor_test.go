package server

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
)

func TestRetentionIsReadInAllItsForms(t *testing.T) {
	for _, c := range []struct {
		mode, text string
		want       retention
		wrong      bool
	}{
		{compactPeriodic, "0", retention{}, false},
		{compactPeriodic, "2", retention{period: 2 * time.Hour}, false},
		{compactPeriodic, "90m", retention{period: 90 * time.Minute}, false},
		{compactPeriodic, "-1h", retention{}, true},
		{compactRevision, "1000", retention{revisions: 1000}, false},
		{compactRevision, "1h", retention{}, true},
		{"daily", "1", retention{}, true},
	} {
		got, err := parseRetention(c.mode, c.text)
		if got != c.want || (err != nil) != c.wrong {
			t.Errorf("%s %s: %+v, %v", c.mode, c.text, got, err)
		}
	}
}

func TestByTimeWhatWasTheHeadAPeriodAgoIsCompacted(t *testing.T) {
	c := &compactor{keep: retention{period: time.Hour}}
	if got := c.interval(); got != 6*time.Minute {
		t.Fatalf("looks every %v", got)
	}
	var got []ident.Revision
	for i := range 14 {
		got = append(got, c.target(time.Duration(i)*c.interval(), ident.Revision(100+i)))
	}
	if want := "[0 0 0 0 0 0 0 0 0 0 100 101 102 103]"; fmt.Sprint(got) != want {
		t.Fatalf("targets are %v, want %v", got, want)
	}
}

func TestTheShortestPeriodIsLookedAtTenTimesASecond(t *testing.T) {
	if got := (&compactor{keep: retention{period: 1}}).interval(); got != 100*time.Millisecond {
		t.Errorf("looks every %v", got)
	}
}

func TestByRevisionSoManyAreKept(t *testing.T) {
	c := &compactor{keep: retention{revisions: 30}}
	if got := c.target(0, 100); got != 70 || c.interval() != 5*time.Minute {
		t.Fatalf("target %d every %v", got, c.interval())
	}
}

func TestWhatARequestMayAddToTheStore(t *testing.T) {
	put := opPut("key").GetRequestPut()
	put.Value = make([]byte, 100)
	if got := costOfPut(put); got != 256+3+100 {
		t.Errorf("a put costs %d", got)
	}
	txn := &pb.TxnRequest{Success: ops(opPut("a"), opTxn(ops(opPut("b")), ops(opPut("c"), opPut("d")))), Failure: ops(opDelete("a", "b"))}
	if got, want := costOfTxn(txn), costOfPut(opPut("a").GetRequestPut())*3; got != want {
		t.Errorf("a transaction costs %d, want %d: its largest path", got, want)
	}
}
