package transport

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/leak"
)

// upLogger calls a function when a stream comes up, before anything is done with it.
type upLogger struct {
	hclog.Logger
	up func()
}

func (l upLogger) Info(msg string, args ...any) {
	if msg == "stream to peer is up" {
		l.up()
	}
}

// A stream that comes up while its transport is being closed has nobody left to
// read it. Whoever closes must not wait for that reader.
func TestAStreamThatComesUpDuringCloseDoesNotHoldItUp(t *testing.T) {
	leak.Check(t)
	net := newNetwork()
	b := newNode(t, net, 2, "http", nil)
	b.transport.Start(b)
	b.transport.SetPeers(peersOf("http", 1, 2))
	up, closing := make(chan bool, 2), make(chan bool)
	a := newNode(t, net, 1, "http", nil, func(c *Config) {
		c.Logger = upLogger{hclog.NewNullLogger(), func() {
			up <- true
			<-closing
		}}
	})
	a.transport.Start(a)
	a.transport.SetPeers(peersOf("http", 1, 2))
	receive(t, "stream", up)
	a.transport.group.Stop() // As Close begins.
	close(closing)
	closed := make(chan bool)
	go func() {
		a.transport.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("Close does not return")
	}
}
