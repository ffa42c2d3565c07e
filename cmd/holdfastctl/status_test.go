package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/build"
	"github.com/holdfast-db/holdfast/internal/quick"
	pb "github.com/holdfast-db/holdfast/proto/etcdserverpb"
	"github.com/holdfast-db/holdfast/server/servertest"
)

func statusOf(t *testing.T, c *servertest.Cluster, args ...string) (stdout string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	ctl := &ctl{in: strings.NewReader(""), out: &out, err: &errs, environ: []string{"ETCDCTL_ENDPOINTS=" + c.ClientURLs()[0], "ETCDCTL_COMMAND_TIMEOUT=30s"}}
	code = ctl.run(t.Context(), append([]string{"status"}, args...))
	if errs.Len() > 0 {
		t.Errorf("status %q: %s", args, &errs)
	}
	return out.String(), code
}

func TestStatusShowsTheClusterOnOnePage(t *testing.T) {
	quick.LeaveOut(t)
	c := servertest.New(t, 3, nil)
	c.Leader()
	page, code := statusOf(t, c)
	for _, want := range []string{"3 members", "leader    m", "quorum    3 of 3 voters answer, 1 more may fail", "alarms    none", "backup    no member says", "follower", "m0", "m1", "m2", "3.7."} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	if code != 0 || strings.Contains(page, "\n! ") {
		t.Errorf("exit code %d of\n%s", code, page)
	}
	c.Members[2].Stop()
	text, code := statusOf(t, c, "-w", "json", "--command-timeout", "5s")
	var st clusterStatus
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if code != 1 || st.Voters != 3 || st.Answering != 2 || st.Margin != 0 || len(st.Members) != 3 || st.Members[2].Role != "down" || st.Members[0].DiskFree == 0 || st.Members[0].Program != build.Version() {
		t.Errorf("exit code %d, %+v", code, st)
	}
	problems := strings.Join(st.Problems, "\n")
	if !strings.Contains(problems, "m2 is down") || !strings.Contains(problems, "no voter may fail any more") {
		t.Errorf("problems: %s", problems)
	}
}

func TestAVersionThatIsACommitIsShownAsThat(t *testing.T) {
	for version, want := range map[string]string{
		"": "", "(devel)": "(devel)", "v1.2.3": "v1.2.3", "v1.2.3-rc.1": "v1.2.3-rc.1",
		"v0.0.0-20261130120000-0123456789ab": "0123456789ab", "v1.2.4-0.20261130120000-0123456789ab+dirty": "0123456789ab+dirty",
	} {
		if got := shortVersion(version); got != want {
			t.Errorf("%q is shown as %q", version, got)
		}
	}
}

func TestAFreshBackupIsNotOfNoTimeAgo(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	b := &backupStatus{By: "m0", LastBase: now.Add(-29 * time.Second), LastDrill: now.Add(-25*time.Hour - 200*time.Second)}
	if got, want := b.text(now), "by m0: last base less than a minute ago, 0 B wait, last drill 25h3m ago"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A learner has no vote, whatever state it is in.
func TestALearnerThatDoesNotAnswerIsNoLostVoter(t *testing.T) {
	up := &pb.StatusResponse{Header: &pb.ResponseHeader{}}
	for _, role := range []string{"down", "unstarted"} {
		st := clusterStatus{Members: []memberStatus{
			{Name: "m0", Role: "leader", answer: up}, {Name: "m1", Role: "follower", answer: up}, {Name: "m2", Role: "follower", answer: up},
			{Name: "m3", Role: role, Learner: true},
		}}
		st.join()
		if st.Voters != 3 || st.Answering != 3 || st.Margin != 1 {
			t.Errorf("with a learner that is %s: %d of %d voters, margin %d", role, st.Answering, st.Voters, st.Margin)
		}
	}
}
