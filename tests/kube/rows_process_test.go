package kube_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// What the layer must do, row by row, with two nodes whose containers are plain
// processes: nobody needs to be root for it.
func TestRowsOnProcessNodes(t *testing.T) {
	t.Parallel()
	r := startRows(t, rowsOf{nodes: 2})
	r.together(
		row{"containers of a pod share an address and a volume", (*rows).sharesInPod},
		row{"more memory than the limit is OOMKilled and restarted once", (*rows).killsForMemory},
		row{"an emptyDir outlives the container and not the pod", (*rows).keepsEmptyDir},
		row{"a failing liveness probe restarts the container", (*rows).restartsUnlive},
		row{"requests are a hard limit, and the next pod says what is missing", (*rows).fillsANode},
		row{"copies return after a container and a pod are killed", (*rows).returnsCopies},
		row{"a wrong image, a missing secret and a failing probe are told, without a busy loop", (*rows).tellsWhatIsWrong},
		row{"people find out what is wrong", (*rows).debugs},
		row{"a node that acts for another is denied and it is logged", (*rows).deniesOtherNodes},
		row{"a service spreads over its pods", (*rows).spreadsPlainly},
		row{"a container that wants isolation is refused and says so", (*rows).refusesIsolation},
	)
	for _, one := range []row{
		{"a kubelet that is killed, and one of another version, restart nothing", (*rows).upgradesKubelet},
		{"without a control plane nothing is restarted", (*rows).losesControlPlane},
	} {
		r.Run(one.name, func(t *testing.T) { one.test(r.in(t)) })
	}
}

func (r *rows) refusesIsolation() {
	c := shContainer("c", "exec sleep 1000")
	yes := true
	c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: &yes}
	if _, _, err := r.api.Create(r.ctx, podOf("walled", c)); err != nil {
		r.Fatal(err)
	}
	r.eventually(20*time.Second, "it says what cannot be had", func(ctx context.Context) error {
		reason, message, err := r.waiting(ctx, "walled")
		if err == nil && !strings.Contains(message, "readOnlyRootFilesystem") {
			err = fmt.Errorf("%s: %s", reason, message)
		}
		return err
	})
	r.remove("walled")
}
