package image

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// pull fetches an image with the first of the logins that the registry takes, in the
// end with none: what is public needs none, though a secret may be out of date. Those
// with the same logins share one pull: nobody gets an image by another's right.
func (s *Store) pull(ctx context.Context, ref Reference, logins []runtime.Login) error {
	logins = append(logins, runtime.Login{})
	// Passwords do not stay around as keys.
	key := sha256.Sum256([]byte(fmt.Sprintf("%q", logins)))
	err := s.join(ctx, "pull "+ref.String()+" "+hex.EncodeToString(key[:]), func(ctx context.Context) error {
		var err error
		for _, login := range logins {
			if err = s.pullAs(ctx, ref, login); !errors.Is(err, ErrRefused) {
				break
			}
		}
		return err
	})
	if err == nil || errors.Is(err, runtime.ErrImage) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", runtime.ErrImage, ref, err)
}

func (s *Store) pullAs(ctx context.Context, ref Reference, login runtime.Login) error {
	var auth authn.Authenticator = authn.Anonymous
	if login.User != "" || login.Password != "" {
		auth = &authn.Basic{Username: login.User, Password: login.Password}
	}
	wire := s.wire()
	defer wire.CloseIdleConnections()
	puller, err := remote.NewPuller(remote.WithAuth(auth), remote.WithTransport(guarded{wire}), remote.WithUserAgent("holdfast"),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1})) // What is tried again is decided here.
	if err != nil {
		return err
	}
	repository, err := name.NewRepository(ref.Name())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrName, err)
	}
	p := &pull{store: s, puller: puller, repository: repository, ref: ref, began: s.clock.Mono()}
	return p.run(ctx)
}

// wire is for one pull, so that no connection outlives its login.
func (s *Store) wire() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 30 * time.Second
	if s.cfg.Roots != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: s.cfg.Roots, MinVersion: tls.VersionTLS12}
	}
	return t
}

// guarded lets nothing out in plain text but to this machine: the library would take
// HTTP for all private addresses, and follow redirections to it.
type guarded struct{ *http.Transport }

func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !loopback(r.URL.Hostname()) {
		return nil, fmt.Errorf("%w: %s answers in plain HTTP only, which is for registries on this machine: give it a certificate", runtime.ErrImage, r.URL.Host)
	}
	return g.Transport.RoundTrip(r)
}

// loopback takes no names but localhost: others may lead anywhere.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// pull is one that is under way.
type pull struct {
	store      *Store
	puller     *remote.Puller
	repository name.Repository
	ref        Reference
	began      time.Duration

	bytes atomic.Int64 // That have come.
}

func (p *pull) run(ctx context.Context) error {
	s := p.store
	if p.unchanged(ctx) {
		return nil
	}
	digests, m, b, err := p.manifest(ctx)
	if err != nil {
		return err
	}
	defer s.pin(append(digests, m.Config.Digest)...)()
	if _, err := s.putBytes(b); err != nil {
		return err
	}
	if m.Config.Size > documentBytesMax {
		return fmt.Errorf("%w: a configuration of %d bytes", ErrContent, m.Config.Size)
	}
	if err := p.blob(ctx, m.Config.Digest, m.Config.Size); err != nil {
		return err
	}
	configBytes, err := s.readBlob(m.Config.Digest)
	if err != nil {
		return err
	}
	r, err := recordOf(digests[len(digests)-1], m, configBytes)
	if err != nil {
		return fmt.Errorf("%s: %w", p.ref, err)
	}
	defer s.pin(r.digests()...)()
	if err := p.layers(ctx, r); err != nil {
		return err
	}
	if p.ref.Digest == "" {
		r.Names = []string{p.ref.String()}
	}
	for _, d := range digests {
		r.Pins = union(r.Pins, []string{p.ref.Name() + "@" + d})
	}
	if err := s.add(r); err != nil {
		return err
	}
	s.log.Info("image pulled", "image", p.ref.String(), "bytes", p.bytes.Load(), "seconds", (s.clock.Mono() - p.began).Seconds())
	return nil
}

// unchanged asks what a tag stands for now, which registries that count give for
// nothing.
func (p *pull) unchanged(ctx context.Context) bool {
	if p.ref.Digest != "" {
		return false
	}
	r := p.store.find(p.ref)
	if r == nil || p.store.complete(r) != nil {
		return false
	}
	d, err := p.puller.Head(ctx, p.repository.Tag(p.ref.Tag))
	// Where this fails the whole question tells why.
	return err == nil && slices.Contains(r.Pins, p.ref.Name()+"@"+d.Digest.String())
}

// manifest gets the manifest for this machine, and the hashes that led to it: of a
// list, if there was one, and its own last.
func (p *pull) manifest(ctx context.Context) (digests []string, m *manifest, b []byte, err error) {
	var at name.Reference = p.repository.Tag(p.ref.Tag)
	want := p.ref.Digest
	for range 3 { // A list of lists is unusual, more is a circle.
		if want != "" {
			at = p.repository.Digest(want)
		}
		err := p.again(ctx, "manifest", func(ctx context.Context) error {
			d, err := p.puller.Get(ctx, at)
			if err == nil {
				b = d.Manifest
			}
			return err
		})
		if err != nil {
			return nil, nil, nil, err
		}
		got := digestOf(b)
		if want != "" && got != want {
			return nil, nil, nil, fmt.Errorf("%w: %s: the manifest has the hash %s", ErrContent, at, got)
		}
		digests = append(digests, got)
		if m, err = parseManifest(b); err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", at, err)
		}
		if !m.isList() {
			return digests, m, b, nil
		}
		chosen, err := m.choose()
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", at, err)
		}
		want = chosen.Digest
	}
	return nil, nil, nil, fmt.Errorf("%w: %s: lists of lists", ErrContent, p.ref)
}

// layers fetches what is not here, a few at a time.
func (p *pull) layers(ctx context.Context, r *record) error {
	s := p.store
	var missing []layer
	total := int64(0)
	for _, l := range r.Layers {
		if !s.has(r, l) && !slices.Contains(missing, l) {
			missing = append(missing, l)
			total += l.Bytes
		}
	}
	if room, err := s.budget(archiveBytesMax); err != nil || total > room {
		return errors.Join(err, fmt.Errorf("%w: %s has %d bytes to fetch, the disk takes %d", runtime.ErrImage, p.ref, total, room))
	}
	done := p.report(total)
	defer done()
	g := task.New(ctx)
	for _, l := range missing {
		g.Go("layer "+strconv.FormatInt(l.Bytes, 10), func(ctx context.Context) error { return p.blob(ctx, l.Blob, l.Bytes) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// has tells whether a layer need not be fetched.
func (s *Store) has(r *record, l layer) bool {
	if exists(s.blobPath(l.Blob)) {
		return true
	}
	if s.cfg.KeepBlobs {
		return false
	}
	if s.cfg.Rootless {
		return exists(s.rootPath(r.Manifest))
	}
	return exists(s.layerPath(l.Diff))
}

// report tells people from time to time how far a long pull is.
func (p *pull) report(total int64) (done func()) {
	ticker := p.store.clock.NewTicker(10 * time.Second)
	end := task.New(context.Background())
	end.Go("progress", func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C():
				p.store.log.Info("image is being pulled", "image", p.ref.String(), "bytes", p.bytes.Load(), "of", total)
			}
		}
	})
	return func() {
		ticker.Stop()
		end.Stop()
		end.Wait()
	}
}

// blob fetches one, unless another pull does already.
func (p *pull) blob(ctx context.Context, digest string, bytes int64) error {
	s := p.store
	return s.join(ctx, "blob "+digest, func(ctx context.Context) error {
		select {
		case s.downloads <- struct{}{}:
			defer func() { <-s.downloads }()
		case <-ctx.Done():
			return ctx.Err()
		}
		return p.again(ctx, "blob "+digest, func(ctx context.Context) error { return p.download(ctx, digest, bytes) })
	})
}

func (p *pull) download(ctx context.Context, digest string, bytes int64) error {
	if exists(p.store.blobPath(digest)) {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l, err := p.puller.Layer(ctx, p.repository.Digest(digest))
	if err != nil {
		return err
	}
	body, err := l.Compressed()
	if err != nil {
		return err
	}
	defer body.Close()
	stalled := p.store.clock.AfterFunc(stallMax, func() { cancel(errStalled) })
	defer stalled.Stop()
	in := &watched{from: body, pull: p, came: func() { stalled.Reset(stallMax) }}
	err = p.store.putBlob(digest, bytes, in)
	if err != nil {
		p.bytes.Add(-in.bytes)
	}
	if errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

var errStalled = fmt.Errorf("the registry sent nothing for %v", stallMax)

// watched counts what comes.
type watched struct {
	from io.Reader
	pull *pull
	came func()

	bytes int64
}

func (r *watched) Read(b []byte) (int, error) {
	n, err := r.from.Read(b)
	r.pull.bytes.Add(int64(n))
	r.bytes += int64(n)
	if n > 0 {
		r.came()
	}
	return n, err
}

// again repeats what fails in a way that may pass, with longer and longer pauses.
func (p *pull) again(ctx context.Context, what string, f func(ctx context.Context) error) error {
	delay := pullDelayMin
	for try := 1; ; try++ {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !passes(err) || try == pullTries {
			return p.explain(err, try)
		}
		p.store.log.Debug("a registry failed and is asked again", "image", p.ref.String(), "what", what, "try", try, "error", err)
		select {
		case <-p.store.clock.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
		delay = min(2*delay, pullDelayMax)
	}
}

// passes tells whether it makes sense to ask again.
func passes(err error) bool {
	var answer *transport.Error
	if errors.As(err, &answer) {
		return answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusRequestTimeout
	}
	if errors.Is(err, runtime.ErrImage) {
		return false
	}
	var network net.Error
	return errors.Is(err, errStalled) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPIPE) ||
		errors.As(err, &network) && network.Timeout()
}

// explain makes a case of what a registry said.
func (p *pull) explain(err error, tries int) error {
	kind := runtime.ErrImage
	var answer *transport.Error
	switch {
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		kind = ErrRefused
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		kind = ErrUnknown
	case errors.Is(err, ErrContent):
		kind = ErrContent
	}
	if tries > 1 {
		return fmt.Errorf("%w: %s: %d tries: %w", kind, p.ref, tries, err)
	}
	return fmt.Errorf("%w: %s: %w", kind, p.ref, err)
}
