//go:build failpoints

package fail

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func arm(t *testing.T, name, action string) {
	t.Helper()
	if err := Set(name, action); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Set(name, ""); err != nil {
			t.Error(err)
		}
	})
}

func TestTermsAreWorkedOffInOrder(t *testing.T) {
	arm(t, "transport/send", "2*off->1*skip->1*sleep(1us)->2*skip")
	got := ""
	for range 8 {
		if Skip("transport/send") {
			got += "s"
		} else {
			got += "."
		}
	}
	if got != "..s.ss.." {
		t.Errorf("went %s", got)
	}
	for _, s := range List() {
		if s.Name == "transport/send" && (s.Passed < 8 || s.Fired != 4) {
			t.Errorf("%+v", s)
		}
	}
}

func TestActionsThatMeanNothingAreRefused(t *testing.T) {
	for action, want := range map[string]string{
		"explode": "want off, crash", "0*crash": "number of passes", "x*crash": "number of passes", "crash->off": "never reached",
		"sleep": "want off", "sleep(x)": "not a duration", "sleep(-1s)": "not a duration", "crash(1s)": "want off",
		"sleep(1s": "want off", "->crash": "want off", "skip": "nothing may be left out",
	} {
		if err := Set("wal/sync/before", action); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", action, err)
		}
	}
	if err := Set("wal/sink", "crash"); err == nil || !strings.Contains(err.Error(), "GET / lists") {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestPauseLastsUntilThePlaceIsCleared(t *testing.T) {
	server := httptest.NewServer(Handler())
	defer server.Close()
	do := func(method, path, body string) string {
		t.Helper()
		req, err := http.NewRequest(method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b strings.Builder
		if err := resp.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if got := do("PUT", "/mvcc/merge/after", "pause\n"); !strings.Contains(got, "204 No Content") {
		t.Fatal(got)
	}
	through := make(chan struct{})
	go func() { Here("mvcc/merge/after"); close(through) }()
	for !strings.Contains(strings.Join(strings.Fields(do("GET", "/", "")), " "), "mvcc/merge/after pause 1 1 1") {
		select {
		case <-through:
			t.Fatal("it did not pause")
		default:
		}
	}
	if got := do("DELETE", "/mvcc/merge/after", ""); !strings.Contains(got, "204 No Content") {
		t.Fatal(got)
	}
	<-through
	if got := do("PUT", "/mvcc/merge/after", "nap"); !strings.Contains(got, "400 Bad Request") || !strings.Contains(got, "want off") {
		t.Error(got)
	}
	if got := do("POST", "/", ""); !strings.Contains(got, "405") {
		t.Error(got)
	}
}

func TestAHookSeesEveryPass(t *testing.T) {
	var seen []string
	SetHook(func(name string) { seen = append(seen, name) })
	defer SetHook(nil)
	Here("wal/sync/before")
	Skip("raftnode/answer")
	if got := strings.Join(seen, " "); got != "wal/sync/before raftnode/answer" {
		t.Errorf("saw %s", got)
	}
}

func TestAProcessIsArmedFromItsEnvironmentAndDies(t *testing.T) {
	if os.Getenv(Variable) != "" {
		Here("wal/sync/before")
		Here("wal/sync/before")
		os.Exit(7)
	}
	for action, want := range map[string]string{"1*off->crash": "signal: killed", "2*off->crash": "exit status 7", "panic": "exit status 2", "cra": "exit status 2"} {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), Variable+"= wal/sync/before="+action+"; ;wal/sync/after=off")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Run(); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", action, err, want)
		}
	}
}
