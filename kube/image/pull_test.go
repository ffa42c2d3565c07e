package image

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/image/imagetest"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// hub is a registry that others wrote, with what this test does to its answers.
type hub struct {
	*httptest.Server
	host string

	mu struct {
		sync.Mutex
		seen   []string
		before func(w http.ResponseWriter, r *http.Request) (answered bool)
	}
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{}
	real := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		before := h.mu.before
		if r.Method != http.MethodPut && r.Method != http.MethodPost && r.Method != http.MethodPatch {
			h.mu.seen = append(h.mu.seen, r.Method+" "+r.URL.Path)
		}
		h.mu.Unlock()
		if before == nil || !before(w, r) {
			real.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(h.Close)
	h.host = strings.TrimPrefix(h.URL, "http://")
	return h
}

func (h *hub) set(before func(w http.ResponseWriter, r *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.before, h.mu.seen = before, nil
}

// seen counts the requests whose method and path have both parts.
func (h *hub) seen(method, part string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, line := range h.mu.seen {
		if strings.HasPrefix(line, method+" ") && strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func (h *hub) put(t *testing.T, path, mediaType string, b []byte) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPut, h.URL+path, strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", mediaType)
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode >= 300 {
		t.Fatalf("put %s: %v, error %v", path, answer, err)
	}
	answer.Body.Close()
}

// push gives an image to the registry, and returns the hash of its manifest.
func (h *hub) push(t *testing.T, repository, tag string, image imagetest.Image) string {
	t.Helper()
	built := image.Build()
	for digest, b := range built.Blobs {
		h.put(t, "/v2/"+repository+"/blobs/uploads/1?digest="+digest, "application/octet-stream", b)
	}
	digest := imagetest.Digest(built.Manifest)
	for _, at := range []string{tag, digest} {
		h.put(t, "/v2/"+repository+"/manifests/"+at, ociManifest, built.Manifest)
	}
	return digest
}

var pulled = imagetest.Image{Layers: [][]byte{base, top}, Pack: imagetest.Gzip}

func TestAnImageIsPulledOnceForAllWhoAskAtTheSameTime(t *testing.T) {
	h := newHub(t)
	digest := h.push(t, "team/app", "v1", pulled)
	waiting := make(chan struct{})
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		<-waiting
		return false
	})
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	results := make(chan string, 8)
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			image, err := s.Resolve(t.Context(), h.host+"/team/app:v1", corev1.PullIfNotPresent, nil)
			if err != nil {
				results <- err.Error()
				return
			}
			results <- image.ID + image.Layers[0]
		}()
	}
	await(t, "all to wait", func() bool {
		s.flights.Lock()
		defer s.flights.Unlock()
		for _, fl := range s.flights.under {
			return fl.waiting == 8
		}
		return false
	})
	close(waiting)
	wg.Wait()
	close(results)
	first := <-results
	for r := range results {
		if r != first {
			t.Errorf("%s and %s", r, first)
		}
	}
	if gets := h.seen("GET", "/manifests/"); gets != 1 {
		t.Errorf("%d questions for the manifest", gets)
	}
	if gets := h.seen("GET", "/blobs/"); gets != 3 {
		t.Errorf("%d downloads of three blobs", gets)
	}
	image := never(t, s, h.host+"/team/app:v1")
	if got := tree(t, image.Layers[0]); got != "etc/ etc/new=2 etc/os=holdfast" {
		t.Errorf("pulled %s", got)
	}
	if list := s.List(); len(list) != 1 || list[0].Imported || list[0].Digests[0] != h.host+"/team/app@"+digest {
		t.Errorf("list %+v", list)
	}
}

// hasty is a clock on which pauses pass at once, and nothing stalls.
type hasty struct{ clock.Clock }

func (hasty) After(time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- time.Time{}
	return c
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestAPullGoesOnUntilTheLastWhoWaitsLeaves(t *testing.T) {
	h := newHub(t)
	h.push(t, "team/app", "v1", pulled)
	var held atomic.Int32
	gone := make(chan struct{}, 10)
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			held.Add(1)
			<-r.Context().Done()
			gone <- struct{}{}
		}
		return false
	})
	s := open(t, t.TempDir())
	first, leaveFirst := context.WithCancel(t.Context())
	second, leaveSecond := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	for _, ctx := range []context.Context{first, second} {
		go func() {
			_, err := s.Resolve(ctx, h.host+"/team/app:v1", corev1.PullAlways, nil)
			errs <- err
		}()
	}
	await(t, "both", func() bool {
		s.flights.Lock()
		defer s.flights.Unlock()
		for _, fl := range s.flights.under {
			return fl.waiting == 2 && held.Load() == 1
		}
		return false
	})
	leaveFirst()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	select {
	case <-gone:
		t.Error("the pull ended with the first who left")
	default:
	}
	leaveSecond()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("the second: %v", err)
	}
	<-gone // The request ends.
	h.set(nil)
	if _, err := s.Resolve(t.Context(), h.host+"/team/app:v1", corev1.PullAlways, nil); err != nil {
		t.Errorf("a third, after both: %v", err)
	}
}

func TestFailuresThatPassAreTriedAgainAndOthersAreNot(t *testing.T) {
	type failing struct {
		name     string
		part     string // Of the path.
		times    int32
		fail     func(w http.ResponseWriter)
		want     error // nil: it succeeds.
		requests int   // For that part, with all tries.
	}
	status := func(code int) func(w http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(code) }
	}
	cut := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "100")
		w.Write([]byte("abc"))
		panic(http.ErrAbortHandler)
	}
	layerBlob := digits(imagetest.Digest(imagetest.Gzip(base)))
	for _, c := range []failing{
		{"busy", "/manifests/", 2, status(503), nil, 3},
		{"too many requests", "/manifests/", 1, status(429), nil, 2},
		{"a download breaks off", layerBlob, 2, cut, nil, 3},
		{"always busy", "/manifests/", 100, status(500), runtime.ErrImage, pullTries},
		{"not there", "/manifests/", 100, status(404), ErrUnknown, 1},
		{"no right", "/manifests/", 100, status(403), ErrRefused, 1},
		{"another content", layerBlob, 100, func(w http.ResponseWriter) { w.Write(imagetest.Gzip(top)) }, runtime.ErrImage, 1},
		{"the same size, another content", layerBlob, 100, func(w http.ResponseWriter) {
			w.Write([]byte(strings.Repeat("x", len(imagetest.Gzip(base)))))
		}, ErrContent, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHub(t)
			h.push(t, "team/app", "v1", pulled)
			var left atomic.Int32
			left.Store(c.times)
			h.set(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, c.part) || r.Method != http.MethodGet || left.Add(-1) < 0 {
					return false
				}
				c.fail(w)
				return true
			})
			s := open(t, t.TempDir(), func(cfg *Config) { cfg.Clock = hasty{clocktest.New()} })
			_, err := s.Resolve(t.Context(), h.host+"/team/app:v1", corev1.PullAlways, nil)
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if got := h.seen("GET", c.part); got != c.requests {
				t.Errorf("%d requests, want %d", got, c.requests)
			}
			if err != nil && len(s.List()) != 0 {
				t.Errorf("a failed pull left %+v", s.List())
			}
		})
	}
}

func TestAListIsFollowedToThisMachine(t *testing.T) {
	h := newHub(t)
	foreign := imagetest.Image{Layers: [][]byte{top}, Architecture: "s390x"}
	ours, theirs := h.push(t, "team/app", "ours", pulled), h.push(t, "team/app", "theirs", foreign)
	list := func(tag string, entries ...[2]string) string {
		t.Helper()
		var manifests []descriptor
		for _, e := range entries {
			p := platform{OS: "linux", Architecture: e[1]}
			if e[1] == "" {
				p = pulledPlatform()
			}
			manifests = append(manifests, descriptor{MediaType: ociManifest, Digest: e[0], Size: 1, Platform: &p})
		}
		b, err := json.Marshal(manifest{SchemaVersion: 2, MediaType: ociIndex, Manifests: manifests})
		if err != nil {
			t.Fatal(err)
		}
		digest := imagetest.Digest(b)
		h.put(t, "/v2/team/app/manifests/"+tag, ociIndex, b)
		h.put(t, "/v2/team/app/manifests/"+digest, ociIndex, b)
		return digest
	}
	both := list("both", [2]string{theirs, "s390x"}, [2]string{ours, ""})
	list("foreign", [2]string{theirs, "s390x"})
	s := open(t, t.TempDir())
	for _, at := range []string{":both", "@" + both, "@" + ours, ":ours"} {
		image, err := s.Resolve(t.Context(), h.host+"/team/app"+at, corev1.PullAlways, nil)
		if err != nil || image.ID != imagetest.Digest(pulled.Build().Config) {
			t.Errorf("%s is %+v, error %v", at, image, err)
		}
		never(t, s, h.host+"/team/app"+at)
	}
	if n := h.seen("GET", "/blobs/"); n != 3 {
		t.Errorf("one image under four names took %d downloads", n)
	}
	for _, at := range []string{":foreign", ":theirs", "@" + theirs} {
		if _, err := s.Resolve(t.Context(), h.host+"/team/app"+at, corev1.PullAlways, nil); !errors.Is(err, ErrPlatform) {
			t.Errorf("%s: error %v", at, err)
		}
	}
	// A registry that gives something else for a hash.
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ours) || r.Method != http.MethodGet {
			return false
		}
		w.Header().Set("Content-Type", ociManifest)
		w.Write(foreign.Build().Manifest)
		return true
	})
	if _, err := s.Resolve(t.Context(), h.host+"/team/app@"+ours, corev1.PullAlways, nil); !errors.Is(err, runtime.ErrImage) {
		t.Errorf("another manifest for a hash: error %v", err)
	}
}

func pulledPlatform() platform {
	var c config
	if err := json.Unmarshal(pulled.Build().Config, &c); err != nil {
		panic(err)
	}
	return c.platform
}

func TestATagIsAskedForAgainAndFetchedOnlyIfItMoved(t *testing.T) {
	h := newHub(t)
	h.push(t, "team/app", "v1", pulled)
	s := open(t, t.TempDir())
	resolve := func() string {
		t.Helper()
		image, err := s.Resolve(t.Context(), h.host+"/team/app:v1", corev1.PullAlways, nil)
		if err != nil {
			t.Fatal(err)
		}
		return image.ID
	}
	before := resolve()
	h.set(nil)
	if after := resolve(); after != before || h.seen("HEAD", "/manifests/") != 1 || h.seen("GET", "/manifests/")+h.seen("GET", "/blobs/") != 0 {
		t.Errorf("unchanged: %s, then %s", before, after)
	}
	moved := pulled
	moved.Layers = [][]byte{base, imagetest.Layer(file("moved", "1"))}
	h.push(t, "team/app", "v1", moved)
	if after := resolve(); after == before {
		t.Error("the tag moved, the image did not")
	}
}

func TestLoginsAreTriedInTurnAndNotSharedAmongPulls(t *testing.T) {
	h := newHub(t)
	h.push(t, "team/app", "v1", pulled)
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		if user == "right" && password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	s := open(t, t.TempDir())
	login := func(user string) Login {
		return Login{Registry: h.host, Login: runtime.Login{User: user, Password: "secret"}}
	}
	for _, c := range []struct {
		logins Logins
		want   error
	}{
		{nil, ErrRefused},
		{Logins{login("wrong")}, ErrRefused},
		{Logins{{Registry: "docker.io", Login: login("right").Login}}, ErrRefused},
		{Logins{login("wrong"), login("right")}, nil},
		{nil, ErrRefused}, // Though the image is here now: the policy asks the registry.
	} {
		_, err := s.Resolve(t.Context(), h.host+"/team/app:v1", corev1.PullAlways, c.logins)
		if c.want == nil && err != nil || !errors.Is(err, c.want) {
			t.Errorf("%d logins: error %v, want %v", len(c.logins), err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestPlainHTTPIsForThisMachineAlone(t *testing.T) {
	for host, plain := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.5.6.7": true, "::1": true, "10.0.0.1": false, "192.168.1.1": false, "registry.local": false, "localhost.example.com": false, "fd00::1": false,
	} {
		if got := loopback(host); got != plain {
			t.Errorf("%s: %v", host, got)
		}
	}
	// A private address that answers in plain HTTP, by way of a wire that leads to a
	// registry here.
	h := newHub(t)
	h.push(t, "team/app", "v1", pulled)
	wire := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, h.host)
	}}
	ref, err := name.ParseReference("10.9.8.7:5000/team/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Get(ref, remote.WithTransport(wire)); err != nil {
		t.Fatalf("without the guard it should be had: %v", err)
	}
	h.set(nil)
	if _, err := remote.Get(ref, remote.WithTransport(guarded{wire}), remote.WithRetryBackoff(remote.Backoff{Steps: 1})); !errors.Is(err, runtime.ErrImage) || h.seen("GET", "/manifests/") != 0 {
		t.Errorf("error %v", err)
	}
	// A registry here that sends on to one in plain HTTP elsewhere.
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		http.Redirect(w, r, "http://registry.example.com/blob", http.StatusTemporaryRedirect)
		return true
	})
	s := open(t, t.TempDir())
	if _, err := s.Resolve(t.Context(), h.host+"/team/app:v1", corev1.PullAlways, nil); !errors.Is(err, runtime.ErrImage) || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("redirected: error %v", err)
	}
}

func TestARegistryIsKnownByItsCertificate(t *testing.T) {
	real := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer real.Close()
	real.Config.ErrorLog = log.New(io.Discard, "", 0)
	roots := x509.NewCertPool()
	roots.AddCert(real.Certificate())
	at, err := url.Parse(real.URL)
	if err != nil {
		t.Fatal(err)
	}
	// By its name; the certificate of httptest is for example.com and loopback.
	missing := at.Host + "/team/app:v1"
	trusting := open(t, t.TempDir(), func(c *Config) { c.Roots = roots })
	if _, err := trusting.Resolve(t.Context(), missing, corev1.PullAlways, nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("with its authority: error %v", err)
	}
	wary := open(t, t.TempDir(), func(c *Config) { c.Roots = x509.NewCertPool() })
	if _, err := wary.Resolve(t.Context(), missing, corev1.PullAlways, nil); errors.Is(err, ErrUnknown) || err == nil {
		t.Errorf("without its authority: error %v", err)
	}
}

func TestWhatTheDiskCannotTakeIsNotBegun(t *testing.T) {
	h := newHub(t)
	built := pulled.Build()
	huge := strings.Replace(string(built.Manifest), `"size":`+strconv.Itoa(len(built.Packed[0])), `"size":9000000000000000`, 1)
	h.push(t, "team/app", "v1", pulled)
	h.put(t, "/v2/team/app/manifests/huge", ociManifest, []byte(huge))
	s := open(t, t.TempDir())
	if _, err := s.Resolve(t.Context(), h.host+"/team/app:huge", corev1.PullAlways, nil); !errors.Is(err, runtime.ErrImage) || !strings.Contains(fmt.Sprint(err), "9000000000000000") && !strings.Contains(fmt.Sprint(err), "the disk takes") {
		t.Errorf("error %v", err)
	}
	if n := h.seen("GET", digits(imagetest.Digest(built.Packed[0]))); n != 0 {
		t.Errorf("%d downloads", n)
	}
}
