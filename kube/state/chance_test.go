package state_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
)

func TestWhatIsWrongIsSaidOfObjectsTooThatGetSomethingByChance(t *testing.T) {
	_, c := admin(t)
	p := podOf("", "1")
	p.GenerateName, p.Namespace = "web-", "nowhere"
	if _, err := objects.Create(t.Context(), c, p); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("a pod with a generated name in no namespace: %v", err)
	}
	s := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 0}}}}
	s.Namespace, s.Name = "default", "s"
	if _, err := objects.Create(t.Context(), c, s); !errors.Is(err, objects.ErrInvalid) {
		t.Errorf("a service with a wrong port: %v", err)
	}
	if _, err := objects.Create(t.Context(), c, nodeOf("n", "-4")); !errors.Is(err, objects.ErrInvalid) {
		t.Errorf("a node with less than nothing: %v", err)
	}
}

// names draws the same name three times, then others; what has another length is
// drawn as ever.
type names struct{ drawn atomic.Int64 }

func (n *names) Read(b []byte) (int, error) {
	if len(b) != 5 {
		return io.ReadFull(rand.Reader, b)
	}
	value := byte(max(0, n.drawn.Add(1)-3))
	for i := range b {
		b[i] = value
	}
	return len(b), nil
}

func TestAGeneratedNameThatIsTakenIsDrawnAgain(t *testing.T) {
	cluster := kubetest.Start(t, func(c *state.Config) { c.Random = &names{} })
	c := cluster.Client(auth.Admin("ann"))
	var made []string
	for range 3 {
		p := podOf("", "1")
		p.GenerateName = "web-"
		made = append(made, create(t, c, p).Name)
	}
	if got := strings.Join(made, " "); got != "web-bbbbb web-ccccc web-ddddd" {
		t.Errorf("made %s", got)
	}
}

// taker gives away the first address while it is drawn, behind the service's back.
type taker struct {
	store *client.Client
	taken string
}

func (x *taker) Read(b []byte) (int, error) {
	if len(b) != 4 || x.store == nil {
		return io.ReadFull(rand.Reader, b)
	}
	clear(b) // The first of the range.
	if _, err := x.store.Put(context.Background(), client.Put{Key: "/holdfast/ip/service/" + x.taken, Value: []byte("default/other")}); err != nil {
		return 0, err
	}
	x.store = nil
	return len(b), nil
}

func TestAnAddressThatSomebodyElseWasFasterToTakeIsNotWhatWasAskedFor(t *testing.T) {
	x := &taker{taken: "10.9.0.1"}
	cluster := kubetest.Start(t, func(c *state.Config) { c.Random, c.ServiceRange = x, netip.MustParsePrefix("10.9.0.0/24") })
	x.store = cluster.Store()
	s := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	s.Namespace, s.Name = "default", "s"
	if made := create(t, cluster.Client(auth.Admin("ann")), s); made.Spec.ClusterIP != "10.9.0.2" {
		t.Errorf("it has %s", made.Spec.ClusterIP)
	}
}

func TestANameThatIsDrawnIsNoLongerThanItsKindAllows(t *testing.T) {
	_, c := admin(t)
	most := strings.Repeat("a", 63)
	svc := &corev1.Service{}
	svc.Namespace, svc.GenerateName = "default", most
	svc.Spec.Ports = []corev1.ServicePort{{Port: 80}}
	ns := &corev1.Namespace{}
	ns.GenerateName = most
	if made := create(t, c, svc); len(made.Name) != 63 {
		t.Errorf("%q", made.Name)
	}
	if made := create(t, c, ns); len(made.Name) != 63 {
		t.Errorf("%q", made.Name)
	}
	p := podOf("", "1m")
	p.GenerateName = strings.Repeat(most+".", 4)[:252]
	if made := create(t, c, p); len(made.Name) != 253 {
		t.Errorf("%q", made.Name)
	}
}
