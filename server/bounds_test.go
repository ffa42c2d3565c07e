package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/holdfast-db/holdfast/proto/authpb"
	"github.com/holdfast-db/holdfast/statemachine/auth"
)

// Who tries passwords without end fills a queue, and no more than that.
func TestAFullQueueOfLoginsAnswersAtOnce(t *testing.T) {
	p := newPasswords(bcrypt.MinCost, make([]byte, 32))
	user := &authpb.User{Name: []byte("u"), Password: []byte("no hash")}
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	for range hashesWaitingMax {
		p.queue <- struct{}{}
	}
	if err := p.check(t.Context(), user, "x"); !errors.Is(err, errTooManyRequests) {
		t.Errorf("beside a full queue: %v", err)
	}
	<-p.queue
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.check(gone, user, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("who does not wait any more: %v", err)
	}
	<-p.slots
	if err := p.check(t.Context(), user, "x"); !errors.Is(err, auth.ErrFailed) { // Who has gone has left its place.
		t.Errorf("with a place: %v", err)
	}
	if len(p.queue) != hashesWaitingMax-1 || len(p.slots) != cap(p.slots)-1 {
		t.Errorf("%d wait, %d are compared", len(p.queue), len(p.slots))
	}
}

func TestTooManyWebSocketsAreTold(t *testing.T) {
	g := &jsonGateway{sockets: make(chan struct{})} // Room for none.
	r := httptest.NewRequest(http.MethodGet, "/v3/watch", nil)
	r.Header.Set("Connection", "upgrade")
	r.Header.Set("Upgrade", "websocket")
	w := httptest.NewRecorder()
	if g.ServeHTTP(w, r); w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}
