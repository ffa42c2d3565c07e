package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

// service is a discovery service that expects clusters of this size.
func service(t *testing.T, size string) (*discovery, *client.Client) {
	t.Helper()
	m := servertest.New(t, 1, func(int, *server.Config) {}).Members[0]
	d := &discovery{token: "t", endpoints: m.Config.ListenClientURLs, insecureTransport: true, log: hclog.NewNullLogger()}
	c, err := d.client(d.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Put(t.Context(), client.Put{Key: "/_etcd/registry/t/_config/size", Value: []byte(size)}); err != nil {
		t.Fatal(err)
	}
	return d, c
}

// Members that come at once may be more than the cluster takes; the order in which
// the service has them decides, and it is the same for all.
func TestADiscoveryServiceTakesTheFirst(t *testing.T) {
	for name, c := range map[string]struct {
		size string
		join int   // How many of five are told of the cluster, all the same.
		err  error // What the others are told.
	}{
		"all":            {"5", 5, nil},
		"two of five":    {"2", 2, errFullCluster},
		"no size":        {"many", 0, errNoSize},
		"not one at all": {"0", 0, errNoSize},
	} {
		d, _ := service(t, c.size)
		type outcome struct {
			text string
			err  error
		}
		told := make(chan outcome)
		for i := range 5 {
			go func() {
				self := fmt.Sprintf("m%d=http://localhost:%d", i, i+1)
				text, err := d.Join(t.Context(), ident.MemberID(i+1), self)
				if err == nil && !strings.Contains(text, self) {
					t.Errorf("%s: %s is told of %s", name, self, text)
				}
				told <- outcome{text, err}
			}()
		}
		joined := map[string]int{}
		for range 5 {
			if o := <-told; o.err == nil {
				joined[o.text]++
			} else if !errors.Is(o.err, c.err) {
				t.Errorf("%s: %v", name, o.err)
			}
		}
		for text, n := range joined {
			if n != c.join || strings.Count(text, "=") != c.join {
				t.Errorf("%s: %d members are told of %s", name, n, text)
			}
		}
		if (len(joined) == 0) != (c.join == 0) {
			t.Errorf("%s: members were told of the clusters %v", name, joined)
		}
	}
}

func TestTwoMembersOfOneNameAreTold(t *testing.T) {
	d, c := service(t, "2")
	if _, err := c.Put(t.Context(), client.Put{Key: "/_etcd/registry/t/members/1", Value: []byte("a=http://localhost:1")}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Join(t.Context(), 2, "a=http://localhost:2"); !errors.Is(err, errSameName) {
		t.Errorf("%v", err)
	}
}

// A service that is away is asked until it is there, or the member is told to stop.
func TestADiscoveryServiceThatIsAwayIsAskedAgain(t *testing.T) {
	d := &discovery{token: "t", endpoints: []string{"127.0.0.1:1"}, requestTimeout: time.Millisecond, log: hclog.NewNullLogger()}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.Join(ctx, 1, "a=http://localhost:1"); err == nil || ctx.Err() == nil {
		t.Errorf("%v before the end", err)
	}
}
