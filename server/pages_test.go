package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/server/replica"
	"github.com/holdfast-db/holdfast/statemachine"
	"github.com/holdfast-db/holdfast/statemachine/alarm"
)

// What pages say of a member in a state that lasts a moment only, or must not be
// brought about.
func TestPagesOfAMemberThatIsNotYetOrNoLongerOfUse(t *testing.T) {
	s := &Server{core: &core{
		cfg: DefaultConfig(hclog.NewNullLogger()), log: hclog.NewNullLogger(), metrics: &metrics{},
		replica: &replica.Replica{Machine: &statemachine.Machine{Alarms: alarm.NewTable()}},
	}}
	s.fenced.Store(true)
	for _, c := range []struct {
		page http.HandlerFunc
		url  string
		code int
		want string
	}{
		{s.version, "/version", http.StatusOK, `"etcdcluster":"not_decided"`},
		{s.health, "/health?serializable=true", http.StatusServiceUnavailable, `{"health":"false","reason":"RANGE ERROR:etcdserver: corrupt cluster"}`},
	} {
		w := httptest.NewRecorder()
		c.page(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil))
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s", c.url, w.Code, w.Body)
		}
	}
}

func TestProgressIsToldAtMostTenTimesASecond(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{time.Millisecond: 100 * time.Millisecond, time.Second: time.Second, 10 * time.Minute: 10 * time.Minute} {
		cfg := DefaultConfig(hclog.NewNullLogger())
		cfg.WatchProgressInterval = asked
		for range 20 {
			if got, err := (&watchService{core: &core{cfg: cfg.withDefaults()}}).progressInterval(); err != nil || got < want || got > want+want/10 {
				t.Errorf("every %v: %v, %v", asked, got, err)
			}
		}
	}
}
