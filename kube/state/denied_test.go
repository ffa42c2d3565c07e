package state_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
)

// text is a log that a test reads.
type text struct {
	sync.Mutex
	bytes.Buffer
}

func (x *text) Write(b []byte) (int, error) {
	x.Lock()
	defer x.Unlock()
	return x.Buffer.Write(b)
}

func (x *text) String() string {
	x.Lock()
	defer x.Unlock()
	return x.Buffer.String()
}

func TestADenialIsLoggedOnceWithWhoWhatAndTheMissingRow(t *testing.T) {
	log := &text{}
	cluster := kubetest.Start(t, func(c *state.Config) { c.Logger = hclog.New(&hclog.LoggerOptions{Output: log}) })
	create(t, cluster.Client(auth.Admin("ann")), podOf("p", "1"))
	viewer := cluster.Client(auth.Identity{Name: "vic", Groups: []string{auth.ViewGroup}})
	if err := objects.Delete[*corev1.Pod](t.Context(), viewer, "default", "p"); !errors.Is(err, objects.ErrDenied) {
		t.Fatal(err)
	}
	var denials []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "denied") {
			denials = append(denials, line)
		}
	}
	if len(denials) != 1 {
		t.Fatalf("denials are %q", denials)
	}
	for _, want := range []string{"identity=vic", "verb=delete", `object="Pod default/p"`, "there is no row (view, delete, Pod)"} {
		if !strings.Contains(denials[0], want) {
			t.Errorf("%q is not in %s", want, denials[0])
		}
	}
}
