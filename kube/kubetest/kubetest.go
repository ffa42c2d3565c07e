// Package kubetest runs the scheduler layer's state inside a test: a ClusterState
// over one real member of the store, in a temporary folder.
package kubetest

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// Cluster is a store and a service over it.
type Cluster struct {
	Service *state.Service

	t     testing.TB
	store *client.Client
}

// Start starts a store and a service, in which the namespace "default" is there. Set, if given,
// changes the configuration of the service before.
func Start(t testing.TB, set ...func(*state.Config)) *Cluster {
	t.Helper()
	members := servertest.New(t, 1, nil)
	store, err := client.New(client.Config{Endpoints: members.ClientURLs(), Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	c := &Cluster{t: t, store: store}
	c.Service = c.Another(set...)
	ns := &corev1.Namespace{}
	ns.Name = "default"
	if _, err := objects.Create(context.Background(), c.Client(auth.Admin("kubetest")), ns); err != nil && !errors.Is(err, objects.ErrExists) {
		t.Fatal(err)
	}
	return c
}

// Another starts one more service over the same store.
func (c *Cluster) Another(set ...func(*state.Config)) *state.Service {
	c.t.Helper()
	cfg := state.Config{Store: c.store, Logger: hclog.NewNullLogger()}
	for _, f := range set {
		f(&cfg)
	}
	s, err := state.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			c.t.Errorf("close: %v", err)
		}
	})
	return s
}

// Client returns a client whose calls are those of an identity.
func (c *Cluster) Client(id auth.Identity) *objects.Client {
	return objects.New(c.Service.Dial(id), id.Name)
}

// Store returns the client of the store below, for what tests look at or break.
func (c *Cluster) Store() *client.Client { return c.store }

// Restore starts another cluster that holds what this one did at a revision, without
// what was on leases: as a restored snapshot does, at revisions of its own.
func (c *Cluster) Restore(revision int64, set ...func(*state.Config)) *Cluster {
	c.t.Helper()
	was, err := c.store.Get(context.Background(), client.Get{Range: client.Prefix("/"), Revision: revision})
	if err != nil {
		c.t.Fatal(err)
	}
	members := servertest.New(c.t, 1, nil)
	store, err := client.New(client.Config{Endpoints: members.ClientURLs(), Logger: hclog.NewNullLogger()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { store.Close() })
	for _, kv := range was.Kvs {
		if kv.Lease != 0 {
			continue
		}
		if _, err := store.Put(context.Background(), client.Put{Key: string(kv.Key), Value: kv.Value}); err != nil {
			c.t.Fatal(err)
		}
	}
	next := &Cluster{t: c.t, store: store}
	next.Service = next.Another(set...)
	return next
}
