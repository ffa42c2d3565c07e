package blobstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
	"github.com/holdfast-db/holdfast/snapshot/blobstore/blobstoretest"
)

// places gives each case of the suite a prefix of its own.
func places(server *blobstoretest.Server, timeout time.Duration) func(t *testing.T) blobstoretest.Place {
	n := 0
	return func(t *testing.T) blobstoretest.Place {
		n++
		url := server.URL(fmt.Sprintf("suite-%d/x", n))
		return blobstoretest.Place{URL: url, Timeout: timeout, Open: func() blobstore.Store {
			return openStore(t, url, blobstore.Config{Timeout: timeout})
		}}
	}
}

func TestAnS3ServerKeepsThePromises(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel() // With the next: both wait most of the time.
	blobstoretest.Conformance(t, places(blobstoretest.StartS3(t), 0))
}

func TestAnS3ServerBehindABadNetworkKeepsThePromises(t *testing.T) {
	quick.LeaveOut(t)
	t.Parallel()
	const seed, perMille = 5, 60
	t.Logf("seed %d, a fault for %d of 1,000 requests", seed, perMille)
	server := blobstoretest.StartS3(t)
	server.Proxy.Choose(blobstoretest.NowAndThen(seed, perMille))
	blobstoretest.Conformance(t, places(server, 2*time.Second))
	for _, f := range blobstoretest.Faults {
		if server.Proxy.Seen(f) == 0 {
			t.Errorf("no request was %s", f)
		}
	}
}

// TestEveryMethodOutlivesEachFault meets each fault with the first request of a
// call. A write that landed and was not answered is found to be the call's own.
func TestEveryMethodOutlivesEachFault(t *testing.T) {
	server := blobstoretest.StartS3(t)
	// Fourteen calls wait for an answer that never comes: 300 ms each by this clock.
	s := openStore(t, server.URL("p"), blobstore.Config{Timeout: 6 * time.Second, Clock: clocktest.Fast(20)})
	defer s.Close()
	ctx := t.Context()
	for _, f := range blobstoretest.Faults {
		name := "a/" + string(f)
		during := func(method string, act func() error) {
			t.Helper()
			before := server.Proxy.Seen(f)
			server.Proxy.Choose(blobstoretest.First(1, method, f))
			err := act()
			server.Proxy.Choose(nil)
			if err != nil || server.Proxy.Seen(f) != before+1 {
				t.Errorf("%s, %s: %v", f, method, err)
			}
		}
		one, two := bytes.Repeat([]byte("one"), 1000), bytes.Repeat([]byte("two"), 1000)
		var tag blobstore.Tag
		during(http.MethodPut, func() (err error) {
			tag, err = s.Put(ctx, name, one, blobstore.Condition{Absent: true})
			return err
		})
		during(http.MethodPut, func() (err error) {
			tag, err = s.Put(ctx, name, two, blobstore.Condition{Match: tag})
			return err
		})
		during(http.MethodGet, func() error {
			data, gotTag, err := s.Get(ctx, name)
			if err == nil && (!bytes.Equal(data, two) || gotTag != tag) {
				err = fmt.Errorf("read %d bytes with tag %s, want %s", len(data), gotTag, tag)
			}
			return err
		})
		during(http.MethodGet, func() error {
			data, err := s.GetRange(ctx, name, 10, 1000)
			if err == nil && !bytes.Equal(data, two[10:1010]) {
				err = fmt.Errorf("read %d bytes", len(data))
			}
			return err
		})
		during(http.MethodGet, func() error {
			found := ""
			err := s.List(ctx, name, "", func(o blobstore.Object) error { found += o.Name; return nil })
			if err == nil && found != name {
				err = fmt.Errorf("listed %q", found)
			}
			return err
		})
		during(http.MethodHead, func() error { _, err := s.GetRange(ctx, name, 0, 0); return err })
		during(http.MethodDelete, func() error { return s.Delete(ctx, name) })
		if got := get(t, s, name); got != "-" {
			t.Errorf("%s: still there after its deletion", f)
		}
	}
}

// TestEqualBytesOfAnotherAreNotTakenForOurs lets another win with the very bytes
// of a call whose first try got lost on its way.
func TestEqualBytesOfAnotherAreNotTakenForOurs(t *testing.T) {
	server := blobstoretest.StartS3(t)
	us := openStore(t, server.URL("p"), blobstore.Config{})
	defer us.Close()
	other := openStore(t, server.URL("p"), blobstore.Config{})
	defer other.Close()
	var once sync.Once
	server.Proxy.Choose(func(r *http.Request) blobstoretest.Fault {
		fault := blobstoretest.None
		once.Do(func() {
			fault = blobstoretest.Refused
			server.Proxy.Choose(nil)
			if _, err := other.Put(t.Context(), "epoch", []byte("same"), blobstore.Condition{Absent: true}); err != nil {
				t.Error(err)
			}
		})
		return fault
	})
	if _, err := us.Put(t.Context(), "epoch", []byte("same"), blobstore.Condition{Absent: true}); !errors.Is(err, blobstore.ErrCondition) {
		t.Errorf("got %v, want ErrCondition", err)
	}
}

func TestAStoreThatStaysDownIsGivenUpAndNamed(t *testing.T) {
	server := blobstoretest.StartS3(t)
	s := openStore(t, server.URL("p"), blobstore.Config{Tries: 3})
	defer s.Close()
	server.Proxy.Choose(func(*http.Request) blobstoretest.Fault { return blobstoretest.Busy })
	_, err := s.Put(t.Context(), "a", []byte("x"), blobstore.Condition{})
	if err == nil || !strings.Contains(err.Error(), "tried 3 times") || !strings.Contains(err.Error(), "s3://archive/p") {
		t.Errorf("got %v", err)
	}
	if n := server.Proxy.Seen(blobstoretest.Busy); n != 3 {
		t.Errorf("sent %d times", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	server.Proxy.Choose(func(*http.Request) blobstoretest.Fault { return blobstoretest.Hanging })
	if _, _, err := s.Get(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
}

// naive takes conditions and forgets them, or looks first and writes then: many at
// once where an object shall be absent, one after the other where it is replaced.
type naive struct {
	blobstore.Store
	looks *sync.Mutex
}

func (n naive) Put(ctx context.Context, name string, data []byte, c blobstore.Condition) (blobstore.Tag, error) {
	if n.looks != nil {
		if c.Match != "" {
			n.looks.Lock()
			defer n.looks.Unlock()
		}
		_, tag, err := n.Get(ctx, name)
		if c.Absent && err == nil || c.Match != "" && tag != c.Match {
			return "", blobstore.ErrCondition
		}
	}
	return n.Store.Put(ctx, name, data, blobstore.Condition{})
}

func TestAProbeTellsStoresThatKeepConditionsFromOthers(t *testing.T) {
	memory := func() *blobstoretest.Memory { return blobstoretest.NewMemory(clock.Real()) }
	together := memory() // All that look have looked before the first writes.
	var looking sync.WaitGroup
	looking.Add(8)
	var mu sync.Mutex
	left := 8
	together.Hook(func(_ context.Context, c blobstoretest.Call) error {
		mu.Lock()
		mine := c.Verb == blobstoretest.Get && c.Done && left > 0
		if mine {
			left--
		}
		mu.Unlock()
		if mine {
			looking.Done()
			looking.Wait()
		}
		return nil
	})
	for _, c := range []struct {
		name  string
		store blobstore.Store
		want  blobstore.Honours
	}{
		{"a folder", openStore(t, "file://"+t.TempDir(), blobstore.Config{}), blobstore.Honours{Absent: true, Match: true}},
		{"memory", memory(), blobstore.Honours{Absent: true, Match: true}},
		{"a server", openStore(t, blobstoretest.S3(t), blobstore.Config{}), blobstore.Honours{Absent: true, Match: true}},
		{"forgets", naive{Store: memory()}, blobstore.Honours{}},
		{"looks", naive{Store: together, looks: new(sync.Mutex)}, blobstore.Honours{Match: true}},
		{"cannot", openStore(t, answering(t, http.StatusNotImplemented, "NotImplemented", "If-"), blobstore.Config{}), blobstore.Honours{}},
	} {
		got, err := blobstore.Probe(t.Context(), c.store)
		if err != nil || got.Absent != c.want.Absent || got.Match != c.want.Match || (got.Why == "") != (got.Absent && got.Match) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
		if c.name != "cannot" && len(list(t, c.store)) != 0 {
			t.Errorf("%s: left %q", c.name, list(t, c.store))
		}
		c.store.Close()
	}
	down := memory()
	down.Hook(func(context.Context, blobstoretest.Call) error { return errors.New("down") })
	if h, err := blobstore.Probe(t.Context(), down); err == nil {
		t.Errorf("a store that is down was judged: %+v", h)
	}
}

// answering starts a server that answers with an error, to all requests or to
// those with a header that begins so, and else with success.
func answering(t *testing.T, status int, code, header string) (url string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		fails := header == ""
		for name := range r.Header {
			fails = fails || strings.HasPrefix(name, header)
		}
		if !fails {
			w.Header().Set("ETag", `"x"`)
			return
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
	}))
	t.Cleanup(server.Close)
	return "s3://bucket/p?path-style=true&access-key-id=me&secret-access-key=hunter2&endpoint=" + server.URL
}

func TestErrorsOfAnObjectStoreAreNamedWithTheMend(t *testing.T) {
	for _, c := range []struct {
		status     int
		code, want string
	}{
		{404, "NoSuchBucket", "make the bucket"},
		{403, "AccessDenied", "s3:PutObject"},
		{403, "InvalidAccessKeyId", "correct or renew"},
		{403, "SignatureDoesNotMatch", "correct or renew"},
		{301, "PermanentRedirect", "region="},
		{400, "AuthorizationHeaderMalformed", "region="},
		{403, "RequestTimeTooSkewed", "set it"},
		{501, "NotImplemented", "If-None-Match"},
		{503, "SlowDown", "tried 2 times"},
		{409, "ConditionalRequestConflict", "tried 2 times"},
		{400, "RequestTimeout", "tried 2 times"},
		{400, "EntityTooLarge", "EntityTooLarge"},
	} {
		s := openStore(t, answering(t, c.status, c.code, ""), blobstore.Config{Tries: 2})
		_, err := s.Put(t.Context(), "a", []byte("x"), blobstore.Condition{Absent: true})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "a in s3://bucket/p?endpoint=http://127.0.0.1") {
			t.Errorf("%d %s: %v", c.status, c.code, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") || strings.Contains(s.String(), "hunter2") {
			t.Errorf("%d %s shows a secret: %v, %s", c.status, c.code, err, s)
		}
		s.Close()
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	s := openStore(t, "s3://bucket?access-key-id=me&secret-access-key=hunter2&path-style=true&endpoint="+closed.URL, blobstore.Config{Tries: 2})
	if _, _, err := s.Get(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("got %v", err)
	}
}

func TestCredentialsComeFromTheEnvironmentAndAreAskedFor(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none",
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "", "AWS_REGION": "",
	} {
		t.Setenv(name, value)
	}
	server := blobstoretest.StartS3(t)
	url := "s3://archive/p?path-style=true&endpoint=" + server.Proxy.URL
	without := openStore(t, url, blobstore.Config{})
	if _, err := without.Put(t.Context(), "a", []byte("x"), blobstore.Condition{}); err == nil || !strings.Contains(err.Error(), "set AWS_ACCESS_KEY_ID") {
		t.Errorf("got %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "tester")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "tester-secret")
	with := openStore(t, url, blobstore.Config{})
	if _, err := with.Put(t.Context(), "a", []byte("x"), blobstore.Condition{}); err != nil {
		t.Error(err)
	}
	if _, err := blobstore.Open(t.Context(), url+"&profile=none", blobstore.Config{}); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a profile that nobody wrote: %v", err)
	}
}

// A machine without a role gets a 404 where it asks for credentials, which is no object
// that is missing.
func TestThatNobodyGivesCredentialsIsNotThatThereIsNoObject(t *testing.T) {
	asked := httptest.NewServer(http.NotFoundHandler())
	defer asked.Close()
	for name, value := range map[string]string{
		"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": asked.URL, "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none",
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "", "AWS_REGION": "",
	} {
		t.Setenv(name, value)
	}
	s := openStore(t, "s3://archive/p?path-style=true&endpoint="+blobstoretest.StartS3(t).Proxy.URL, blobstore.Config{Tries: 1})
	_, _, err := s.Get(t.Context(), "a")
	if err == nil || errors.Is(err, blobstore.ErrNotFound) || !strings.Contains(err.Error(), "set AWS_ACCESS_KEY_ID") {
		t.Errorf("got %v", err)
	}
}
